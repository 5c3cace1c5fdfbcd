//! What is SQLite's own in the store's statements.

pub(super) use super::SqliteDatabase as Database;
pub(super) use sqlx::sqlite::{SqliteConnection as Connection, SqliteRow as Row};

/// Fills in SQLite's spelling. It has one writer at a time, so that rows need no locks.
pub(super) fn fill(template: &str) -> String {
    template
        .replace("{now}", "CAST(unixepoch('subsec') * 1000 AS INTEGER)")
        .replace("{each:$1}", "json_each($1)")
        .replace("{among}", "IN (")
        .replace("{end}", ")")
        .replace("{greatest}", "max")
        .replace("{skip_locked}", "")
        .replace("{share}", "")
}
