//! What is PostgreSQL's own in the store's statements.

pub(super) use super::PostgresDatabase as Database;
pub(super) use sqlx::postgres::{PgConnection as Connection, PgRow as Row};

/// Fills in PostgreSQL's spelling.
pub(super) fn fill(template: &str) -> String {
    template
        // Of the statement, not of the transaction; and stable, so that indexes can be used.
        .replace("{now}", "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)")
        .replace("{each:$1}", "json_array_elements(CAST($1 AS JSON)) AS each(value)")
        // An array is made once; a subquery may be planned to run once for every row, and then it ignores its own limit.
        .replace("{among}", "= ANY(ARRAY(")
        .replace("{end}", "))")
        .replace("{greatest}", "greatest")
        .replace("{skip_locked}", "FOR UPDATE SKIP LOCKED")
        .replace("{share}", "FOR SHARE")
}
