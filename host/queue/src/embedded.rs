//! The embedded queue: rows in the store's SQLite file.

use std::time::Duration;

use async_trait::async_trait;
use geoworker_store::{SqliteDatabase, StoreError};
use sqlx::{AssertSqlSafe, Row};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::queue::{DeadLetter, Depth, OutgoingMessage, Queue, QueueError, Receipt, ReceivedMessage};

const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";
/// How often a waiting receiver looks for messages of other processes.
const POLL: Duration = Duration::from_millis(100);
/// Reason of a message that was delivered too often, as Service Bus names it.
const TOO_MANY_DELIVERIES: &str = "MaxDeliveryCountExceeded";

/// How the queues lock.
#[derive(Debug, Clone, Copy)]
pub struct QueueSettings {
    /// Length of a lock. Default 60 s.
    pub lock: Duration,
    /// Deliveries after which a message is set aside. Default 10.
    pub max_deliveries: u32,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { lock: Duration::from_secs(60), max_deliveries: 10 }
    }
}

/// [`Queue`] in a SQLite file.
#[derive(Debug)]
pub struct EmbeddedQueue {
    db: SqliteDatabase,
    settings: QueueSettings,
    sent: Notify,
}

impl EmbeddedQueue {
    /// Queues in an open database.
    #[must_use]
    pub fn new(db: SqliteDatabase, settings: QueueSettings) -> Self {
        Self { db, settings, sent: Notify::new() }
    }

    fn lock_ms(&self) -> i64 {
        i64::try_from(self.settings.lock.as_millis()).unwrap_or(i64::MAX)
    }

    async fn take(&self, queue: &str, max: u32) -> Result<Vec<ReceivedMessage>, QueueError> {
        if !self.any_ready(queue).await? {
            return Ok(Vec::new());
        }
        let mut tx = self.db.write().await?;
        let expire = sql("UPDATE queue_messages SET dead_at = {now}, lock_token = NULL, dead_reason = ?2,
                 dead_detail = 'delivered ' || delivery_count || ' times'
             WHERE queue = ?1 AND dead_at IS NULL AND visible_at <= {now} AND delivery_count >= ?3");
        sqlx::query(expire)
            .bind(queue)
            .bind(TOO_MANY_DELIVERIES)
            .bind(self.settings.max_deliveries)
            .execute(&mut *tx)
            .await?;
        // The token is made of the sequence and the delivery: unique, and useless once the next delivery begins.
        let lock = sql("UPDATE queue_messages SET visible_at = {now} + ?2, delivery_count = delivery_count + 1,
                 lock_token = sequence || '-' || (delivery_count + 1)
             WHERE sequence IN (SELECT sequence FROM queue_messages
                 WHERE queue = ?1 AND dead_at IS NULL AND visible_at <= {now} ORDER BY visible_at, sequence LIMIT ?3)
             RETURNING sequence, lock_token, body, delivery_count");
        let rows = sqlx::query(lock).bind(queue).bind(self.lock_ms()).bind(max).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        let mut messages = rows
            .iter()
            .map(|row| {
                let receipt = Receipt { sequence: row.try_get(0)?, token: row.try_get(1)? };
                Ok(ReceivedMessage { receipt, body: row.try_get(2)?, delivery_count: row.try_get(3)? })
            })
            .collect::<Result<Vec<_>, sqlx::Error>>()?;
        messages.sort_by_key(|message| message.receipt.sequence);
        Ok(messages)
    }

    /// A look without the write lock, so that idle receivers do not disturb writers.
    async fn any_ready(&self, queue: &str) -> Result<bool, QueueError> {
        let look = sql("SELECT EXISTS (SELECT 1 FROM queue_messages
             WHERE queue = ? AND dead_at IS NULL AND visible_at <= {now})");
        let row = sqlx::query(look).bind(queue).fetch_one(&mut *self.db.read().await?).await?;
        Ok(row.try_get(0)?)
    }

    /// Changes the one message that the receipt locks.
    async fn settle(
        &self,
        queue: &str,
        receipt: &Receipt,
        change: &str,
        values: &[&str],
    ) -> Result<(), QueueError> {
        let statement = format!(
            "{change} WHERE queue = ?1 AND sequence = ?2 AND lock_token = ?3 AND visible_at > {{now}}
             AND dead_at IS NULL"
        );
        let mut tx = self.db.write().await?;
        let mut query = sqlx::query(sql(&statement)).bind(queue).bind(receipt.sequence).bind(&receipt.token);
        for value in values {
            query = query.bind(*value);
        }
        let changed = query.execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        if changed == 1 { Ok(()) } else { Err(QueueError::LockLost) }
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    async fn send(&self, queue: &str, messages: &[OutgoingMessage]) -> Result<(), QueueError> {
        let insert = "INSERT INTO queue_messages (queue, body, visible_at, enqueued_at)
             VALUES (?1, ?2, max(?3, {now}), {now})";
        let mut tx = self.db.write().await?;
        for message in messages {
            let query = sqlx::query(sql(insert)).bind(queue).bind(&message.body).bind(message.not_before);
            query.execute(&mut *tx).await?;
        }
        tx.commit().await?;
        self.sent.notify_waiters();
        Ok(())
    }

    async fn receive(
        &self,
        queue: &str,
        max: u32,
        wait: Duration,
    ) -> Result<Vec<ReceivedMessage>, QueueError> {
        let until = Instant::now() + wait;
        loop {
            let sent = self.sent.notified();
            let messages = self.take(queue, max).await?;
            let left = until.saturating_duration_since(Instant::now());
            if !messages.is_empty() || left.is_zero() {
                return Ok(messages);
            }
            // Either way the queue is looked at again: waking up early or late changes nothing.
            let _ = tokio::time::timeout(left.min(POLL), sent).await;
        }
    }

    async fn complete(&self, queue: &str, receipt: &Receipt) -> Result<(), QueueError> {
        self.settle(queue, receipt, "DELETE FROM queue_messages", &[]).await
    }

    async fn abandon(&self, queue: &str, receipt: &Receipt) -> Result<(), QueueError> {
        let change = "UPDATE queue_messages SET lock_token = NULL, visible_at = {now}";
        self.settle(queue, receipt, change, &[]).await?;
        self.sent.notify_waiters();
        Ok(())
    }

    async fn dead_letter(
        &self,
        queue: &str,
        receipt: &Receipt,
        reason: &str,
        detail: &str,
    ) -> Result<(), QueueError> {
        let change = "UPDATE queue_messages SET lock_token = NULL, dead_at = {now}, dead_reason = ?4, dead_detail = ?5";
        self.settle(queue, receipt, change, &[reason, detail]).await
    }

    async fn renew(&self, queue: &str, receipt: &Receipt) -> Result<(), QueueError> {
        let lock = self.lock_ms().to_string();
        let change = "UPDATE queue_messages SET visible_at = {now} + CAST(?4 AS INTEGER)";
        self.settle(queue, receipt, change, &[&lock]).await
    }

    async fn depth(&self, queue: &str) -> Result<Depth, QueueError> {
        let count = sql("SELECT
                 count(*) FILTER (WHERE dead_at IS NULL AND visible_at <= {now}),
                 count(*) FILTER (WHERE dead_at IS NULL AND visible_at > {now} AND lock_token IS NOT NULL),
                 count(*) FILTER (WHERE dead_at IS NULL AND visible_at > {now} AND lock_token IS NULL),
                 count(*) FILTER (WHERE dead_at IS NOT NULL)
             FROM queue_messages WHERE queue = ?");
        let row = sqlx::query(count).bind(queue).fetch_one(&mut *self.db.read().await?).await?;
        let cell = |index: usize| row.try_get::<i64, _>(index).map(i64::unsigned_abs);
        Ok(Depth { active: cell(0)?, locked: cell(1)?, scheduled: cell(2)?, dead: cell(3)? })
    }

    async fn dead_letters(&self, queue: &str, max: u32) -> Result<Vec<DeadLetter>, QueueError> {
        let select = "SELECT sequence, body, dead_reason, dead_detail FROM queue_messages
             WHERE queue = ? AND dead_at IS NOT NULL ORDER BY dead_at, sequence LIMIT ?";
        let rows = sqlx::query(select).bind(queue).bind(max).fetch_all(&mut *self.db.read().await?).await?;
        let letter = |row: &sqlx::sqlite::SqliteRow| {
            Ok(DeadLetter {
                sequence: row.try_get(0)?,
                body: row.try_get(1)?,
                reason: row.try_get(2)?,
                detail: row.try_get(3)?,
            })
        };
        rows.iter().map(letter).collect()
    }
}

fn sql(template: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(template.replace("{now}", NOW))
}

impl From<StoreError> for QueueError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<sqlx::Error> for QueueError {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(StoreError::from(error).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_embedded_queue_conforms() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = SqliteDatabase::open(&folder.path().join("t.db")).await.expect("opens");
        let settings = QueueSettings { lock: Duration::from_millis(400), max_deliveries: 3 };
        let (one, two) = (EmbeddedQueue::new(db.clone(), settings), EmbeddedQueue::new(db, settings));
        crate::conformance::run(&one, &two, settings).await;
    }
}
