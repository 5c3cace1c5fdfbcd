//! Durable state: the truth about jobs, stages and tasks.
//!
//! [`Store`] is the contract, [`SqliteStore`] the embedded implementation, [`PostgresStore`] the shared one,
//! [`conformance`] the suite that every implementation passes.

pub mod coalesce;
pub mod conformance;
pub mod decisions;
pub mod error;
mod postgres;
pub mod records;
mod sqlite;
mod store;

pub use error::StoreError;
pub use postgres::{
    PostgresCredential, PostgresDatabase, PostgresSettings, PostgresStore, TOKEN_SCOPE, TlsMode,
};
pub use sqlite::{SqliteDatabase, SqliteStore};
pub use store::Store;
