//! The store's statements, written once for both databases.
//!
//! This folder is compiled twice, below `sqlite` and below `postgres`. What differs (types, the clock, how a JSON list
//! becomes rows) comes from the parent's `dialect`; everything else is the same text, so that one suite speaks for both.
//! Work on many rows is one statement: its values travel as one JSON list.

mod attempts;
mod cancel;
mod decisions;
mod jobs;
mod outbox;
mod rerun;
mod rows;
mod store;

pub use store::DatabaseStore;
mod sweep;
mod workers;
