//! Messages from the client: those for queues, and requests.

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::definitions::{Error, Role};
use fe2o3_amqp_types::messaging::{Accepted, DeliveryState, Rejected};
use fe2o3_amqp_types::performatives::{Disposition, Transfer};

use crate::address::{Address, Node};
use crate::conditions::{BUSY, Condition};
use crate::faults::{Operation, Point};
use crate::interruption::{Interruption, Nuisance, strike};
use crate::link::{Direction, Link, Partial, SENDER_CREDIT};
use crate::management;
use crate::message::{decode, decode_transfer, encode};
use crate::request::{Answer, Request, Spelling};
use crate::session::{Context, Session};

impl Session {
    /// Takes a transfer; with the last one of a delivery the message takes effect.
    pub(crate) fn transfer(
        &mut self,
        context: &mut Context,
        transfer: Transfer,
        payload: &Bytes,
    ) -> Result<(), Interruption> {
        self.count_transfer(context)?;
        let handle = transfer.handle.0;
        // A link that was just detached may still have transfers on their way.
        let Some(link) = self.links.get_mut(&handle) else { return Ok(()) };
        let Direction::Incoming(incoming) = &mut link.direction else {
            return Err(Interruption::End(Condition::NotAllowed.error("a transfer on a receiving link")));
        };
        let (more, aborted) = (transfer.more, transfer.aborted);
        let begin = || Partial { first: transfer, content: BytesMut::new(), size: 0 };
        let mut partial = incoming.partial.take().unwrap_or_else(begin);
        let limit = context.broker.settings.max_message;
        partial.size += payload.len() as u64;
        if partial.size <= limit {
            partial.content.extend_from_slice(payload);
        }
        if more && !aborted {
            incoming.partial = Some(partial);
            return Ok(());
        }
        incoming.delivery_count = incoming.delivery_count.wrapping_add(1);
        incoming.credit = incoming.credit.saturating_sub(1);
        let low = incoming.credit <= SENDER_CREDIT / 2;
        if low {
            incoming.credit = SENDER_CREDIT;
        }
        let node = link.node.clone();
        if !aborted {
            let refusal = if partial.size > limit {
                Some(too_large(partial.size, limit))
            } else {
                self.take(context, handle, &node, &partial.first, &partial.content)?
            };
            self.acknowledge(context, &partial.first, refusal)?;
        }
        if low { self.send_flow(context, Some(handle)) } else { Ok(()) }
    }

    /// Lets a message take effect; returns why not, where it is refused.
    fn take(
        &mut self,
        context: &mut Context,
        handle: u32,
        node: &Node,
        first: &Transfer,
        content: &[u8],
    ) -> Result<Option<Error>, Interruption> {
        match node {
            Node::Queue(address) => {
                send(context, handle, address, first.message_format.unwrap_or(0), content)
            }
            Node::Cbs => {
                let request = Request::read(decode(content)?);
                let answer = context.tokens.put(context.broker.now(), &request);
                self.answer(node, &request, answer, Spelling::Cbs)?;
                Ok(None)
            }
            Node::Management(address) => {
                let request = Request::read(decode(content)?);
                let answer = manage(context, handle, address, &request)?;
                self.answer(node, &request, answer, Spelling::Management)?;
                Ok(None)
            }
        }
    }

    fn acknowledge(
        &self,
        context: &mut Context,
        first: &Transfer,
        refusal: Option<Error>,
    ) -> Result<(), Interruption> {
        let Some(id) = first.delivery_id.filter(|_| first.settled != Some(true)) else { return Ok(()) };
        let state = match refusal {
            None => DeliveryState::Accepted(Accepted {}),
            Some(error) => DeliveryState::Rejected(Rejected { error: Some(error) }),
        };
        let disposition = Disposition {
            role: Role::Receiver,
            first: id,
            last: None,
            settled: true,
            state: Some(state),
            batchable: false,
        };
        Ok(context.frames.send(self.channel, &disposition)?)
    }

    /// Queues an answer on the client's link from the same node: the one it named, or else any.
    fn answer(
        &mut self,
        node: &Node,
        request: &Request,
        answer: Answer,
        spelling: Spelling,
    ) -> Result<(), Interruption> {
        let mut named = None;
        let mut any = None;
        for (handle, link) in &mut self.links {
            if link.node != *node {
                continue;
            }
            let Some(outgoing) = link.outgoing() else { continue };
            any = Some(*handle);
            if outgoing.reply_address == request.reply_to {
                named = any;
            }
        }
        let link = named.or(any).and_then(|handle| self.links.get_mut(&handle));
        if let Some(outgoing) = link.and_then(Link::outgoing) {
            outgoing.answers.push_back(encode(&request.answer(answer, spelling))?);
        }
        Ok(())
    }
}

fn too_large(size: u64, limit: u64) -> Error {
    let text =
        format!("The received message of {size} bytes exceeds the limit of {limit} bytes on this link.");
    Condition::SizeExceeded.error(text)
}

fn send(
    context: &Context,
    handle: u32,
    address: &Address,
    format: u32,
    content: &[u8],
) -> Result<Option<Error>, Interruption> {
    let broker = &context.broker;
    if strike(broker, Point::Before(Operation::Send), handle)? == Some(Nuisance::Busy) {
        return Ok(Some(Condition::ServerBusy.error(BUSY)));
    }
    for message in decode_transfer(format, content)? {
        if let Err(unknown) = broker.send(&address.queue, message) {
            return Ok(Some(Condition::NotFound.error(unknown.to_string())));
        }
    }
    strike(broker, Point::After(Operation::Send), handle)?;
    Ok(None)
}

fn manage(
    context: &Context,
    handle: u32,
    address: &Address,
    request: &Request,
) -> Result<Answer, Interruption> {
    let broker = &context.broker;
    let Some(operation) = management::operation(request) else {
        return Ok(management::handle(broker, address, request));
    };
    match strike(broker, Point::Before(operation), handle)? {
        Some(Nuisance::Busy) => return Ok(Answer::refused(Condition::ServerBusy, BUSY)),
        Some(Nuisance::LoseLock) => {
            for token in management::lock_tokens(request).unwrap_or_default() {
                broker.lose_lock(address, token);
            }
        }
        None => {}
    }
    let answer = management::handle(broker, address, request);
    strike(broker, Point::After(operation), handle)?;
    Ok(answer)
}
