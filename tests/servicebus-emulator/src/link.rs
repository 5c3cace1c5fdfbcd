//! One link: its node, its credit, and what is on its way.

use std::collections::VecDeque;

use bytes::BytesMut;
use fe2o3_amqp_types::performatives::Transfer;

use crate::address::Node;

/// Credit of a client that sends.
pub(crate) const SENDER_CREDIT: u32 = 500;

/// An attached link.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) node: Node,
    pub(crate) direction: Direction,
}

/// Which way messages go.
#[derive(Debug)]
pub(crate) enum Direction {
    /// The client sends.
    Incoming(Incoming),
    /// The client receives.
    Outgoing(Outgoing),
}

/// State of a link the client sends on.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) delivery_count: u32,
    /// Deliveries the client may still send.
    pub(crate) credit: u32,
    /// A delivery in several frames of which the last is still to come.
    pub(crate) partial: Option<Partial>,
}

/// A delivery as far as it has come.
#[derive(Debug)]
pub(crate) struct Partial {
    /// The transfer that says which it is.
    pub(crate) first: Transfer,
    pub(crate) content: BytesMut,
    /// Bytes seen: more than the content of a message that is too large to be kept.
    pub(crate) size: u64,
}

/// State of a link the client receives on.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) delivery_count: u32,
    /// Deliveries the client wants.
    pub(crate) credit: u32,
    /// Whether the client wants its credit back where nothing is left to deliver.
    pub(crate) drain: bool,
    /// Whether messages are deleted as they are sent.
    pub(crate) deletes: bool,
    /// The client's address for answers to its requests.
    pub(crate) reply_address: String,
    /// Encoded answers waiting for credit.
    pub(crate) answers: VecDeque<Vec<u8>>,
}

impl Link {
    /// The outgoing half, if it is one.
    pub(crate) fn outgoing(&mut self) -> Option<&mut Outgoing> {
        match &mut self.direction {
            Direction::Outgoing(outgoing) => Some(outgoing),
            Direction::Incoming(_) => None,
        }
    }
}

impl Outgoing {
    /// Takes over the client's view of the credit. What is still on its way to the client counts against it.
    pub(crate) fn grant(&mut self, client_count: u32, client_credit: u32) {
        let granted = client_count.wrapping_add(client_credit).wrapping_sub(self.delivery_count);
        // Less than nothing, in serial arithmetic: the client withdrew credit that was already used.
        self.credit = if granted > u32::MAX / 2 { 0 } else { granted };
    }

    /// Uses one credit.
    pub(crate) fn spend(&mut self) {
        self.credit = self.credit.saturating_sub(1);
        self.delivery_count = self.delivery_count.wrapping_add(1);
    }

    /// Gives up the credit that is left, as draining asks.
    pub(crate) fn exhaust(&mut self) {
        self.delivery_count = self.delivery_count.wrapping_add(self.credit);
        self.credit = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing() -> Outgoing {
        let answers = VecDeque::new();
        let reply_address = String::new();
        Outgoing { delivery_count: 0, credit: 0, drain: false, deletes: false, reply_address, answers }
    }

    #[test]
    fn deliveries_the_client_has_not_seen_yet_count_against_its_credit() {
        let mut link = outgoing();
        link.grant(0, 3);
        link.spend();
        link.spend();
        link.grant(1, 3);
        assert_eq!(link.credit, 2, "one of two deliveries was still on its way");
        link.grant(0, 0);
        assert_eq!(link.credit, 0, "withdrawn after two were used");
        link.delivery_count = u32::MAX;
        link.grant(u32::MAX, 2);
        assert_eq!(link.credit, 2, "the count wraps");
    }

    #[test]
    fn draining_moves_the_count_past_the_unused_credit() {
        let mut link = outgoing();
        link.grant(0, 5);
        link.spend();
        link.exhaust();
        assert_eq!((link.credit, link.delivery_count), (0, 5));
    }
}
