//! Durable state: the truth about jobs, stages and tasks.
//!
//! [`Store`] is the contract, [`SqliteStore`] the embedded implementation, [`conformance`] the suite that every
//! implementation passes.

pub mod conformance;
pub mod error;
pub mod records;
mod sqlite;
mod store;

pub use error::StoreError;
pub use sqlite::{SqliteDatabase, SqliteStore};
pub use store::Store;
