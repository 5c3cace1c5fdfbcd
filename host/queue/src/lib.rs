//! Peek-lock queues: messages are hints that carry an id; the database is the truth.
//!
//! [`Queue`] is the contract, [`EmbeddedQueue`] and [`PostgresQueue`] keep their rows in the store's database,
//! [`ServiceBusQueue`] speaks to Azure Service Bus, [`conformance`] is the suite that every implementation passes.

pub mod conformance;
mod postgres;
mod queue;
mod servicebus;
mod settings;
mod sqlite;

pub use postgres::PostgresQueue;
pub use queue::{DeadLetter, Depth, OutgoingMessage, Queue, QueueError, Receipt, ReceivedMessage};
pub use servicebus::ServiceBusQueue;
pub use settings::QueueSettings;
pub use sqlite::EmbeddedQueue;
