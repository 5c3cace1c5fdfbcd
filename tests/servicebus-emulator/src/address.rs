//! What the address of a link names.

use crate::queue::Part;

const DEAD_LETTER: &str = "/$deadletterqueue";
const MANAGEMENT: &str = "/$management";

/// A queue or its dead-letter sub-queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// Name in lower case.
    pub(crate) queue: String,
    pub(crate) part: Part,
}

/// The node at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// `$cbs`: takes tokens.
    Cbs,
    /// `…/$management`: renews locks and the like.
    Management(Address),
    /// The messages themselves.
    Queue(Address),
}

impl Node {
    /// Reads a link address: a path, with or without `scheme://host/` before it.
    pub(crate) fn parse(address: &str) -> Self {
        let path = path(address);
        if path == "$cbs" {
            Self::Cbs
        } else if let Some(entity) = path.strip_suffix(MANAGEMENT) {
            Self::Management(Address::parse(entity))
        } else {
            Self::Queue(Address::parse(&path))
        }
    }

    /// The queue concerned, if any.
    pub(crate) fn address(&self) -> Option<&Address> {
        match self {
            Self::Cbs => None,
            Self::Management(address) | Self::Queue(address) => Some(address),
        }
    }
}

impl Address {
    fn parse(path: &str) -> Self {
        match path.strip_suffix(DEAD_LETTER) {
            Some(queue) => Self { queue: queue.to_owned(), part: Part::DeadLetter },
            None => Self { queue: path.to_owned(), part: Part::Main },
        }
    }
}

/// Path of an address in lower case, without slashes at its ends.
pub(crate) fn path(address: &str) -> String {
    let path = match address.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => address,
    };
    path.trim_matches('/').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(queue: &str, part: Part) -> Address {
        Address { queue: queue.to_owned(), part }
    }

    #[test]
    fn nodes_are_told_apart_by_their_path() {
        assert_eq!(Node::parse("$cbs"), Node::Cbs);
        assert_eq!(Node::parse("Tasks"), Node::Queue(address("tasks", Part::Main)));
        assert_eq!(Node::parse("sb://host:1/tasks/"), Node::Queue(address("tasks", Part::Main)));
        let dead = address("tasks", Part::DeadLetter);
        assert_eq!(Node::parse("tasks/$DeadLetterQueue"), Node::Queue(dead.clone()));
        assert_eq!(Node::parse("amqp://h/tasks/$DeadLetterQueue/$management"), Node::Management(dead));
        assert_eq!(path("sb://host"), "");
    }
}
