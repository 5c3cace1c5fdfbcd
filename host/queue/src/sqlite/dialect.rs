//! What is SQLite's own in the queue's statements.

use std::sync::Arc;
use std::time::Duration;

pub(super) use geoworker_store::SqliteDatabase as Database;
pub(super) use sqlx::sqlite::SqliteRow as Row;
use tokio::sync::Notify;

/// How often a waiting receiver looks for messages of other processes: nothing tells it of them.
pub(super) const POLL: Duration = Duration::from_millis(100);
/// Taking messages needs the one write lock of the file.
pub(super) const LOOK_FIRST: bool = true;

/// Fills in SQLite's spelling.
pub(super) fn fill(template: &str) -> String {
    template
        .replace("{now}", "CAST(unixepoch('subsec') * 1000 AS INTEGER)")
        .replace("{each:$1}", "json_each($1)")
        .replace("{among}", "IN (")
        .replace("{end}", ")")
        .replace("{skip_locked}", "")
}

/// There is nothing to listen to: see [`POLL`].
pub(super) fn listen(_: &Database, _: &Arc<Notify>) {}

/// There is nobody to tell: see [`POLL`].
pub(super) async fn ring(_: &Database, _: &str) {}
