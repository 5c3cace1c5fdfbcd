//! What is PostgreSQL's own in the queue's statements.

use std::sync::Arc;
use std::time::Duration;

pub(super) use geoworker_store::PostgresDatabase as Database;
pub(super) use sqlx::postgres::PgRow as Row;
use tokio::sync::Notify;

/// How often a waiting receiver looks where no notification came: the fallback.
pub(super) const POLL: Duration = Duration::from_secs(1);
/// Taking none writes nothing.
pub(super) const LOOK_FIRST: bool = false;
/// Channel of the notifications that messages were sent.
const CHANNEL: &str = "geoworker_sent";
/// Wait before a listener that could not connect tries again.
const RECONNECT: Duration = Duration::from_secs(5);

/// Fills in PostgreSQL's spelling.
pub(super) fn fill(template: &str) -> String {
    template
        .replace("{now}", "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)")
        .replace("{each:$1}", "json_array_elements(CAST($1 AS JSON)) AS each(value)")
        // An array is made once; a subquery may be planned to run once for every row, and then it ignores its own limit.
        .replace("{among}", "= ANY(ARRAY(")
        .replace("{end}", "))")
        .replace("{skip_locked}", "FOR UPDATE SKIP LOCKED")
}

/// Wakes the receivers of this process whenever any process sends, until the queue is dropped.
pub(super) fn listen(db: &Database, sent: &Arc<Notify>) {
    let (db, sent) = (db.clone(), Arc::downgrade(sent));
    tokio::spawn(async move {
        while sent.strong_count() > 0 {
            let Ok(mut listener) = db.listen(CHANNEL).await else {
                tokio::time::sleep(RECONNECT).await;
                continue;
            };
            // What was sent while nobody listened.
            while let Some(sent) = sent.upgrade() {
                sent.notify_waiters();
                drop(sent);
                if listener.recv().await.is_err() {
                    break;
                }
            }
        }
    });
}

/// Tells the receivers of all processes. Where it fails, they look by themselves.
pub(super) async fn ring(db: &Database, queue: &str) {
    let Ok(mut connection) = db.transport().await else { return };
    let _ = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(queue).execute(&mut *connection).await;
}
