//! Peek-lock queues: messages are hints that carry an id; the database is the truth.
//!
//! [`Queue`] is the contract, [`EmbeddedQueue`] keeps its rows in the store's database, [`conformance`] is the
//! suite that every implementation passes.

pub mod conformance;
mod embedded;
mod queue;

pub use embedded::{EmbeddedQueue, QueueSettings};
pub use queue::{DeadLetter, Depth, OutgoingMessage, Queue, QueueError, Receipt, ReceivedMessage};
