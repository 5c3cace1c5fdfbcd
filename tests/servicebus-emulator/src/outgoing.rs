//! Messages towards the client, and how it settles them.

use fe2o3_amqp_types::definitions::Role;
use fe2o3_amqp_types::messaging::{DeliveryState, Rejected};
use fe2o3_amqp_types::performatives::{Disposition, Transfer};
use fe2o3_amqp_types::primitives::Symbol;
use uuid::Uuid;

use crate::address::{Address, Node};
use crate::conditions::{BUSY, Condition};
use crate::faults::{Operation, Point};
use crate::interruption::{Interruption, Nuisance, strike};
use crate::link::{Link, Outgoing};
use crate::message::{delivery_tag, show, show_locked, text};
use crate::queue::{DeadLetter, Settlement, Visibility};
use crate::session::{Context, Session, Unsettled};

/// A delivery ready to go.
struct Parcel {
    tag: Vec<u8>,
    bytes: Vec<u8>,
    /// Missing where it is settled as it is sent.
    lock: Option<(Address, Uuid)>,
}

impl Session {
    /// Delivers all that credit, window and the queues allow.
    pub(crate) fn pump(&mut self, context: &mut Context) -> Result<(), Interruption> {
        let handles: Vec<u32> = self.links.keys().copied().collect();
        for handle in handles {
            self.pump_link(context, handle)?;
        }
        Ok(())
    }

    fn pump_link(&mut self, context: &mut Context, handle: u32) -> Result<(), Interruption> {
        loop {
            let can_start = self.window >= self.window_needed && !context.frames.is_full();
            let Some(link) = self.links.get_mut(&handle) else { return Ok(()) };
            let Some(outgoing) = link.outgoing() else { return Ok(()) };
            if outgoing.credit == 0 {
                break;
            }
            if !can_start {
                return Ok(());
            }
            let Some(parcel) = next_parcel(context, handle, link)? else { break };
            self.deliver(context, handle, parcel)?;
        }
        self.finish_drain(context, handle)
    }

    fn deliver(&mut self, context: &mut Context, handle: u32, parcel: Parcel) -> Result<(), Interruption> {
        let id = self.next_delivery;
        self.next_delivery = id.wrapping_add(1);
        if let Some(outgoing) = self.outgoing(handle) {
            outgoing.spend();
        }
        let head = Transfer {
            handle: handle.into(),
            delivery_id: Some(id),
            delivery_tag: Some(parcel.tag.into()),
            message_format: Some(0),
            settled: Some(parcel.lock.is_none()),
            more: false,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        };
        let transfers = context.frames.transfer(self.channel, head, &parcel.bytes)?;
        self.next_outgoing = self.next_outgoing.wrapping_add(transfers);
        self.window = self.window.saturating_sub(transfers);
        if let Some((address, token)) = parcel.lock {
            self.unsettled.insert(id, Unsettled { handle, address, token });
        }
        Ok(())
    }

    fn finish_drain(&mut self, context: &mut Context, handle: u32) -> Result<(), Interruption> {
        let Some(outgoing) = self.outgoing(handle).filter(|outgoing| outgoing.drain) else { return Ok(()) };
        outgoing.exhaust();
        self.send_flow(context, Some(handle))?;
        if let Some(outgoing) = self.outgoing(handle) {
            outgoing.drain = false;
        }
        Ok(())
    }

    /// Settles deliveries as the client says, and tells it the outcome where it waits for one.
    pub(crate) fn disposition(
        &mut self,
        context: &mut Context,
        disposition: &Disposition,
    ) -> Result<(), Interruption> {
        if disposition.role != Role::Receiver {
            return Ok(());
        }
        let last = disposition.last.unwrap_or(disposition.first).max(disposition.first);
        let ids: Vec<u32> = self.unsettled.range(disposition.first..=last).map(|(id, _)| *id).collect();
        let settlement = disposition.state.as_ref().and_then(settlement);
        if settlement.is_none() && !disposition.settled {
            return Ok(());
        }
        for id in ids {
            let Some(delivery) = self.unsettled.remove(&id) else { continue };
            let Some(settlement) = settlement.clone() else { continue };
            let failure = settle(context, &delivery, settlement)?;
            if !disposition.settled {
                let state = match failure {
                    Some(failure) => Some(failure),
                    None => disposition.state.clone().map(outcome),
                };
                let answer = Disposition {
                    role: Role::Sender,
                    first: id,
                    last: None,
                    settled: true,
                    state,
                    batchable: false,
                };
                context.frames.send(self.channel, &answer)?;
            }
        }
        Ok(())
    }

    fn outgoing(&mut self, handle: u32) -> Option<&mut Outgoing> {
        self.links.get_mut(&handle).and_then(Link::outgoing)
    }
}

/// Takes the next message of a queue, or the next answer, off its place.
fn next_parcel(context: &Context, handle: u32, link: &mut Link) -> Result<Option<Parcel>, Interruption> {
    let node = link.node.clone();
    let Some(outgoing) = link.outgoing() else { return Ok(None) };
    let Node::Queue(address) = node else {
        let answer = outgoing.answers.pop_front();
        let parcel = |bytes| Parcel { tag: delivery_tag(Uuid::new_v4()), bytes, lock: None };
        return Ok(answer.map(parcel));
    };
    let broker = &context.broker;
    if broker.is_throttled() {
        return Ok(None);
    }
    let before = Point::Before(Operation::Receive);
    if broker.is_ready(&address) && strike(broker, before, handle)? == Some(Nuisance::Busy) {
        return Err(Interruption::Detach(handle, Condition::ServerBusy.error(BUSY)));
    }
    let parcel = if outgoing.deletes {
        let Some(message) = broker.receive_and_delete(&address, &context.waiter) else { return Ok(None) };
        let bytes = show(&message, Visibility::Active)?;
        Parcel { tag: delivery_tag(Uuid::new_v4()), bytes, lock: None }
    } else {
        let Some(delivery) = broker.receive(&address, &context.waiter) else { return Ok(None) };
        let bytes = show_locked(&delivery)?;
        Parcel { tag: delivery_tag(delivery.token), bytes, lock: Some((address, delivery.token)) }
    };
    strike(broker, Point::After(Operation::Receive), handle)?;
    Ok(Some(parcel))
}

/// Settles one delivery; returns the outcome where it failed.
fn settle(
    context: &Context,
    delivery: &Unsettled,
    settlement: Settlement,
) -> Result<Option<DeliveryState>, Interruption> {
    let broker = &context.broker;
    match strike(broker, Point::Before(Operation::Complete), delivery.handle)? {
        Some(Nuisance::Busy) => return Ok(Some(rejected(Condition::ServerBusy, BUSY))),
        Some(Nuisance::LoseLock) => broker.lose_lock(&delivery.address, delivery.token),
        None => {}
    }
    let settled = broker.settle(&delivery.address, delivery.token, settlement);
    strike(broker, Point::After(Operation::Complete), delivery.handle)?;
    Ok(settled.err().map(|lost| rejected(Condition::LockLost, &lost.to_string())))
}

fn settlement(state: &DeliveryState) -> Option<Settlement> {
    match state {
        DeliveryState::Accepted(_) => Some(Settlement::Complete),
        DeliveryState::Rejected(rejected) => Some(Settlement::DeadLetter(dead_letter(rejected))),
        DeliveryState::Modified(modified) if modified.undeliverable_here == Some(true) => {
            Some(Settlement::Defer)
        }
        DeliveryState::Modified(_) => Some(Settlement::Abandon),
        DeliveryState::Released(_) => Some(Settlement::Release),
        _ => None,
    }
}

fn dead_letter(rejected: &Rejected) -> DeadLetter {
    let info = rejected.error.as_ref().and_then(|error| error.info.as_ref());
    let field =
        |name| info.and_then(|info| info.get(&Symbol::from(name))).and_then(text).map(ToOwned::to_owned);
    DeadLetter { reason: field("DeadLetterReason"), description: field("DeadLetterErrorDescription") }
}

/// The outcome as the service repeats it: a dead letter comes back without its reason. A client that reads another
/// outcome than its own settles again.
fn outcome(state: DeliveryState) -> DeliveryState {
    match state {
        DeliveryState::Rejected(_) => DeliveryState::Rejected(Rejected { error: None }),
        other => other,
    }
}

fn rejected(condition: Condition, text: &str) -> DeliveryState {
    DeliveryState::Rejected(Rejected { error: Some(condition.error(text)) })
}
