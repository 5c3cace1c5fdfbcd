//! Azure Service Bus queues in memory, over AMQP 1.0, for tests and benchmarks. Microsoft's own clients work with it.
//!
//! ```no_run
//! use geoworker_servicebus_emulator::{Emulator, Settings};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let emulator = Emulator::start(Settings { queues: vec!["tasks:lock=5s".parse()?], ..Settings::default() }).await?;
//! let connect_with = emulator.connection_string();
//! emulator.fault("drop after-complete once".parse()?);
//! assert_eq!(emulator.counts("tasks")?.ready, 0);
//! # Ok(())
//! # }
//! ```
//!
//! There are no topics, sessions, transactions, duplicate detection, forwarding, partitions, and no management over
//! HTTP. The emulator follows what clients and documentation show of the service; it was not compared with a real
//! namespace.

mod address;
mod admin;
mod broker;
mod cbs;
mod codec;
mod conditions;
mod connection;
mod emulator;
mod incoming;
mod interruption;
mod link;
mod management;
mod message;
mod outgoing;
mod request;
mod sasl;
mod session;
mod tls;

pub mod faults;
pub mod queue;
pub mod settings;

pub use admin::COMMANDS;
pub use broker::UnknownQueue;
pub use emulator::{Emulator, StartError};
pub use faults::Fault;
pub use queue::Counts;
pub use settings::{QueueSettings, Settings};
pub use tls::TlsError;
