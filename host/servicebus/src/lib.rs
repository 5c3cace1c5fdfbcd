//! A thin Azure Service Bus queue client over AMQP 1.0.
//!
//! [`Client`] receives on a link that lives for one call, and settles, renews and schedules by lock token through the
//! queue's management node, so that every settlement is confirmed by the broker and any client may do it. Nothing is
//! repaired: after a transport error the whole connection is replaced and the operation repeated within its time.
//! Messages are never lost by that; a message may be delivered again, and a repeated send may arrive twice.

mod attempts;
mod body;
mod claims;
mod client;
mod connection;
pub mod connection_string;
mod error;
mod held;
mod management;
mod message;
mod receive;
mod requests;
mod sas;
mod send;
mod settings;
mod stream;

pub use client::{Client, Counts, dead_letters};
pub use connection_string::{ConnectionString, ConnectionStringError};
pub use error::ServiceBusError;
pub use message::{Lock, LockedMessage, MessageState, OutgoingMessage, QueueMessage};
pub use settings::{Credential, PlainHosts, Settings, SettingsError, Transport};
