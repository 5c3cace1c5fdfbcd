//! One session: its links and windows. Messages towards the client are in `outgoing`, those from it in `incoming`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use fe2o3_amqp_types::definitions::{Error, Role, SenderSettleMode};
use fe2o3_amqp_types::messaging::TargetArchetype;
use fe2o3_amqp_types::performatives::{Attach, Begin, Detach, Flow};
use fe2o3_amqp_types::primitives::Symbol;
use uuid::Uuid;

use crate::address::{Address, Node};
use crate::broker::{Broker, Waiter};
use crate::cbs::Tokens;
use crate::codec::FrameWriter;
use crate::conditions::Condition;
use crate::interruption::Interruption;
use crate::link::{Direction, Incoming, Link, Outgoing, SENDER_CREDIT};
use crate::queue::Part;

/// Transfers a client may send ahead of a flow.
const WINDOW: u32 = 5000;

/// Transfers after which the client's window is refilled.
const REFILL_AFTER: u32 = 1000;

const HIGHEST_HANDLE: u32 = 255;
const FIRST_TRANSFER: u32 = 1;
const SESSION_FILTER: &str = "com.microsoft:session-filter";

/// What all sessions of a connection use.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) broker: Arc<Broker>,
    pub(crate) frames: FrameWriter,
    pub(crate) waiter: Waiter,
    pub(crate) tokens: Tokens,
}

/// State of a session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) channel: u16,
    pub(crate) links: BTreeMap<u32, Link>,
    /// Deliveries the client has not settled, by delivery id.
    pub(crate) unsettled: BTreeMap<u32, Unsettled>,
    pub(crate) next_delivery: u32,
    pub(crate) next_outgoing: u32,
    /// Transfers the client still takes.
    pub(crate) window: u32,
    /// Window below which no delivery starts, so that none gets stuck half-way.
    pub(crate) window_needed: u32,
    next_incoming: u32,
    transfers_since_flow: u32,
}

/// A delivery under way.
#[derive(Debug)]
pub(crate) struct Unsettled {
    pub(crate) handle: u32,
    pub(crate) address: Address,
    pub(crate) token: Uuid,
}

impl Session {
    /// Answers `begin`.
    pub(crate) fn begin(context: &mut Context, channel: u16, begin: &Begin) -> Result<Self, Interruption> {
        let answer = Begin {
            remote_channel: Some(channel),
            next_outgoing_id: FIRST_TRANSFER,
            incoming_window: WINDOW,
            outgoing_window: WINDOW,
            handle_max: HIGHEST_HANDLE.into(),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        context.frames.send(channel, &answer)?;
        let largest = context.frames.frames_for(context.broker.settings.max_message);
        Ok(Self {
            channel,
            links: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            next_delivery: 0,
            next_outgoing: FIRST_TRANSFER,
            window: begin.incoming_window,
            window_needed: largest.min(begin.incoming_window).max(1),
            next_incoming: begin.next_outgoing_id,
            transfers_since_flow: 0,
        })
    }

    /// Answers `attach`, or refuses it: with an attach without termini, and a detach that says why.
    pub(crate) fn attach(&mut self, context: &mut Context, attach: Attach) -> Result<(), Interruption> {
        let receives = attach.role == Role::Receiver;
        let node = Node::parse(if receives { source_address(&attach) } else { target_address(&attach) });
        let refusal = refusal(context, &node, &attach);
        let handle = attach.handle.0;
        let mut answer = Attach {
            role: if receives { Role::Sender } else { Role::Receiver },
            unsettled: None,
            incomplete_unsettled: false,
            initial_delivery_count: receives.then_some(0),
            max_message_size: Some(context.broker.settings.max_message),
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
            ..attach.clone()
        };
        if let Some(error) = refusal {
            answer.source = None;
            answer.target = None;
            context.frames.send(self.channel, &answer)?;
            return self.send_detach(context, handle, Some(error));
        }
        context.frames.send(self.channel, &answer)?;
        let direction = if receives { outgoing(&attach) } else { incoming(&attach) };
        self.links.insert(handle, Link { node, direction });
        if receives { Ok(()) } else { self.send_flow(context, Some(handle)) }
    }

    /// Takes over windows and credit.
    pub(crate) fn flow(&mut self, context: &mut Context, flow: &Flow) -> Result<(), Interruption> {
        let seen = flow.next_incoming_id.unwrap_or(FIRST_TRANSFER);
        let window = seen.wrapping_add(flow.incoming_window).wrapping_sub(self.next_outgoing);
        self.window = if window > u32::MAX / 2 { 0 } else { window };
        let handle = flow.handle.as_ref().map(|handle| handle.0);
        let link = handle.and_then(|handle| self.links.get_mut(&handle));
        if let Some(outgoing) = link.and_then(Link::outgoing) {
            outgoing.grant(flow.delivery_count.unwrap_or(0), flow.link_credit.unwrap_or(0));
            outgoing.drain = flow.drain;
        }
        if flow.echo { self.send_flow(context, handle) } else { Ok(()) }
    }

    /// Answers `detach`, unless it is itself an answer. Messages on their way stay locked.
    pub(crate) fn detach(&mut self, context: &mut Context, detach: &Detach) -> Result<(), Interruption> {
        if self.forget(detach.handle.0) {
            let answer = Detach { handle: detach.handle.clone(), closed: detach.closed, error: None };
            context.frames.send(self.channel, &answer)?;
        }
        Ok(())
    }

    /// Detaches a link with an error.
    pub(crate) fn force_detach(
        &mut self,
        context: &mut Context,
        handle: u32,
        error: Error,
    ) -> Result<(), Interruption> {
        if self.forget(handle) { self.send_detach(context, handle, Some(error)) } else { Ok(()) }
    }

    /// Handles of the links that carry messages of queues.
    pub(crate) fn queue_links(&self) -> Vec<u32> {
        let carries = |link: &Link| matches!(link.node, Node::Queue(_));
        self.links.iter().filter(|(_, link)| carries(link)).map(|(handle, _)| *handle).collect()
    }

    /// Interrupts the first link whose token ran out.
    pub(crate) fn check_tokens(&self, context: &Context) -> Result<(), Interruption> {
        for (handle, link) in &self.links {
            if let Some(error) = unauthorized(context, &link.node) {
                return Err(Interruption::Detach(*handle, error));
            }
        }
        Ok(())
    }

    /// Counts a transfer from the client, refilling its window in time.
    pub(crate) fn count_transfer(&mut self, context: &mut Context) -> Result<(), Interruption> {
        self.next_incoming = self.next_incoming.wrapping_add(1);
        self.transfers_since_flow += 1;
        if self.transfers_since_flow < REFILL_AFTER { Ok(()) } else { self.send_flow(context, None) }
    }

    /// Tells the client windows and, for a link, its credit.
    pub(crate) fn send_flow(
        &mut self,
        context: &mut Context,
        handle: Option<u32>,
    ) -> Result<(), Interruption> {
        self.transfers_since_flow = 0;
        let link = handle.and_then(|handle| self.links.get(&handle));
        let (delivery_count, credit, drain) = match link.map(|link| &link.direction) {
            None => (None, None, false),
            Some(Direction::Incoming(link)) => (Some(link.delivery_count), Some(link.credit), false),
            Some(Direction::Outgoing(link)) => (Some(link.delivery_count), Some(link.credit), link.drain),
        };
        let flow = Flow {
            next_incoming_id: Some(self.next_incoming),
            incoming_window: WINDOW,
            next_outgoing_id: self.next_outgoing,
            outgoing_window: WINDOW,
            handle: link.and(handle).map(Into::into),
            delivery_count,
            link_credit: credit,
            available: None,
            drain,
            echo: false,
            properties: None,
        };
        Ok(context.frames.send(self.channel, &flow)?)
    }

    fn send_detach(
        &self,
        context: &mut Context,
        handle: u32,
        error: Option<Error>,
    ) -> Result<(), Interruption> {
        let detach = Detach { handle: handle.into(), closed: true, error };
        Ok(context.frames.send(self.channel, &detach)?)
    }

    fn forget(&mut self, handle: u32) -> bool {
        self.unsettled.retain(|_, delivery| delivery.handle != handle);
        self.links.remove(&handle).is_some()
    }
}

/// Why this link cannot be.
fn refusal(context: &Context, node: &Node, attach: &Attach) -> Option<Error> {
    let address = node.address()?;
    if let Some(error) = unauthorized(context, node) {
        return Some(error);
    }
    if let Err(unknown) = context.broker.open(&address.queue) {
        return Some(Condition::NotFound.error(unknown.to_string()));
    }
    let Node::Queue(address) = node else { return None };
    if attach.role == Role::Sender && address.part == Part::DeadLetter {
        return Some(Condition::NotAllowed.error("Nothing can be sent to a dead-letter queue."));
    }
    let filters = attach.source.as_ref().and_then(|source| source.filter.as_ref());
    if filters.is_some_and(|filters| filters.contains_key(&Symbol::from(SESSION_FILTER))) {
        let text =
            "A sessionful message receiver cannot be created on an entity that does not require sessions.";
        return Some(Condition::NotAllowed.error(text));
    }
    None
}

fn unauthorized(context: &Context, node: &Node) -> Option<Error> {
    let address = node.address()?;
    let broker = &context.broker;
    let allowed = !broker.settings.enforce_tokens || context.tokens.cover(broker.now(), &address.queue);
    (!allowed)
        .then(|| Condition::Unauthorized.error("ExpiredToken: no token for this entity, or it ran out."))
}

fn outgoing(attach: &Attach) -> Direction {
    Direction::Outgoing(Outgoing {
        delivery_count: 0,
        credit: 0,
        drain: false,
        deletes: attach.snd_settle_mode == SenderSettleMode::Settled,
        reply_address: target_address(attach).to_owned(),
        answers: VecDeque::new(),
    })
}

fn incoming(attach: &Attach) -> Direction {
    let delivery_count = attach.initial_delivery_count.unwrap_or(0);
    Direction::Incoming(Incoming { delivery_count, credit: SENDER_CREDIT, partial: None })
}

fn source_address(attach: &Attach) -> &str {
    attach.source.as_ref().and_then(|source| source.address.as_deref()).unwrap_or_default()
}

fn target_address(attach: &Attach) -> &str {
    match attach.target.as_deref() {
        Some(TargetArchetype::Target(target)) => target.address.as_deref().unwrap_or_default(),
        _ => "",
    }
}
