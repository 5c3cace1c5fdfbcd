//! Queues as rows, written once and compiled below `sqlite` and `postgres`. What differs comes from the parent's
//! `dialect`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use geoworker_store::StoreError;
use geoworker_store::coalesce::Coalescer;
use serde_json::json;
use sqlx::{AssertSqlSafe, Row as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dialect::{self, Database, POLL, Row};
use crate::queue::{DeadLetter, Depth, OutgoingMessage, Queue, QueueError, Receipt, ReceivedMessage};
use crate::settings::QueueSettings;

/// Reason of a message that was delivered too often, as Service Bus names it.
const TOO_MANY_DELIVERIES: &str = "MaxDeliveryCountExceeded";

/// [`Queue`] in a database. Other processes on the same database share the queues.
#[derive(Debug)]
pub struct DatabaseQueue {
    db: Database,
    settings: QueueSettings,
    sent: Arc<Notify>,
    takes: Coalescer<Wanted, Vec<ReceivedMessage>>,
    completions: Coalescer<(String, Receipt), bool>,
}

/// Messages that one receiver wants.
#[derive(Debug, Clone)]
struct Wanted {
    queue: String,
    max: u32,
}

impl DatabaseQueue {
    /// Queues in an open database.
    #[must_use]
    pub fn new(db: Database, settings: QueueSettings) -> Self {
        let sent = Arc::new(Notify::new());
        dialect::listen(&db, &sent);
        Self { db, settings, sent, takes: Coalescer::default(), completions: Coalescer::default() }
    }

    fn lock_ms(&self) -> i64 {
        i64::try_from(self.settings.lock.as_millis()).unwrap_or(i64::MAX)
    }

    /// Takes messages for all that wait for some, in the order in which they asked.
    async fn take(&self, asked: Vec<Wanted>) -> Result<Vec<Vec<ReceivedMessage>>, StoreError> {
        let mut totals: BTreeMap<&str, u32> = BTreeMap::new();
        for wanted in &asked {
            let total = totals.entry(&wanted.queue).or_default();
            *total = total.saturating_add(wanted.max);
        }
        let mut ready = BTreeMap::new();
        for (queue, total) in totals {
            ready.insert(queue.to_owned(), self.lock_messages(queue, total).await?.into_iter());
        }
        let share = |wanted: &Wanted| {
            let messages =
                ready.get_mut(&wanted.queue).map(|ready| ready.take(wanted.max as usize).collect());
            messages.unwrap_or_default()
        };
        Ok(asked.iter().map(share).collect())
    }

    async fn lock_messages(&self, queue: &str, max: u32) -> Result<Vec<ReceivedMessage>, StoreError> {
        if dialect::LOOK_FIRST && !self.any_ready(queue).await? {
            return Ok(Vec::new());
        }
        // The token is made of the sequence and the delivery: unique, and useless once the next delivery begins.
        let lock =
            sql("UPDATE queue_messages SET visible_at = {now} + $2, delivery_count = delivery_count + 1,
                 lock_token = sequence || '-' || (delivery_count + 1)
             WHERE sequence {among} SELECT sequence FROM queue_messages
                 WHERE queue = $1 AND dead_at IS NULL AND visible_at <= {now}
                 ORDER BY visible_at, sequence LIMIT $3 {skip_locked} {end}
             RETURNING sequence, lock_token, body, delivery_count");
        let mut connection = self.db.transport().await?;
        let rows = sqlx::query(lock)
            .bind(queue)
            .bind(self.lock_ms())
            .bind(i64::from(max))
            .fetch_all(&mut *connection)
            .await?;
        let mut messages =
            rows.iter().map(|row| message(row, self.settings.lock)).collect::<Result<Vec<_>, _>>()?;
        messages.sort_by_key(|message| message.receipt.sequence);
        let limit = self.settings.max_deliveries;
        let (worn, good): (Vec<_>, Vec<_>) =
            messages.into_iter().partition(|message| message.delivery_count > limit);
        drop(connection);
        for message in worn {
            let detail = format!("delivered {limit} times");
            // Whoever settles it first decides.
            let _ = self.dead_letter(queue, &message.receipt, TOO_MANY_DELIVERIES, &detail).await;
        }
        Ok(good)
    }

    /// A look without the write lock, so that idle receivers do not disturb writers.
    async fn any_ready(&self, queue: &str) -> Result<bool, StoreError> {
        let look = sql("SELECT EXISTS (SELECT 1 FROM queue_messages
             WHERE queue = $1 AND dead_at IS NULL AND visible_at <= {now})");
        let row = sqlx::query(look).bind(queue).fetch_one(&mut *self.db.transport().await?).await?;
        Ok(row.try_get(0)?)
    }

    /// Removes messages that are still locked; answers which.
    async fn remove(&self, done: Vec<(String, Receipt)>) -> Result<Vec<bool>, StoreError> {
        // `coalesce`, so that the index of waiting messages is not used: it holds many more than these.
        let delete = sql("DELETE FROM queue_messages
             WHERE sequence {among} SELECT CAST(value->>'sequence' AS BIGINT) FROM {each:$1} {end}
                 AND lock_token || ' ' || queue {among} SELECT value->>'lock' FROM {each:$1} {end}
                 AND coalesce(dead_at, 0) = 0 AND visible_at > {now}
             RETURNING sequence, lock_token");
        let list: Vec<_> = done
            .iter()
            .map(|(queue, receipt)| {
                json!({"sequence": receipt.sequence, "lock": format!("{} {queue}", receipt.token)})
            })
            .collect();
        let list = serde_json::to_string(&list)?;
        let rows = sqlx::query(delete).bind(list).fetch_all(&mut *self.db.transport().await?).await?;
        let mut removed = rows
            .iter()
            .map(|row| Ok(Receipt { sequence: row.try_get(0)?, token: row.try_get(1)? }))
            .collect::<Result<Vec<_>, sqlx::Error>>()?;
        let mut was_removed = |receipt: &Receipt| {
            let found = removed.iter().position(|other| other == receipt);
            found.map(|index| removed.swap_remove(index)).is_some()
        };
        Ok(done.iter().map(|(_, receipt)| was_removed(receipt)).collect())
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
            "{change} WHERE queue = $1 AND sequence = $2 AND lock_token = $3 AND visible_at > {{now}}
             AND dead_at IS NULL"
        );
        let mut query = sqlx::query(sql(&statement)).bind(queue).bind(receipt.sequence).bind(&receipt.token);
        for value in values {
            query = query.bind(*value);
        }
        let changed = query.execute(&mut *self.db.transport().await?).await?.rows_affected();
        if changed == 1 { Ok(()) } else { Err(QueueError::LockLost) }
    }

    async fn ring(&self, queue: &str) {
        self.sent.notify_waiters();
        dialect::ring(&self.db, queue).await;
    }
}

#[async_trait]
impl Queue for DatabaseQueue {
    async fn send(&self, queue: &str, messages: &[OutgoingMessage]) -> Result<(), QueueError> {
        let insert = sql("INSERT INTO queue_messages (queue, body, visible_at, enqueued_at)
             SELECT $2, value->>'body', {now} + CAST(value->>'delay' AS BIGINT), {now} FROM {each:$1}");
        let list: Vec<_> = messages
            .iter()
            .map(|message| json!({"body": message.body, "delay": message.delay_ms.max(0)}))
            .collect();
        let list = serde_json::to_string(&list).map_err(StoreError::from)?;
        sqlx::query(insert).bind(list).bind(queue).execute(&mut *self.db.transport().await?).await?;
        self.ring(queue).await;
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
            let wanted = Wanted { queue: queue.to_owned(), max };
            let messages = self.takes.run(wanted, async |asked| self.take(asked).await).await?;
            let left = until.saturating_duration_since(Instant::now());
            if !messages.is_empty() || left.is_zero() {
                return Ok(messages);
            }
            // Either way the queue is looked at again: waking up early or late changes nothing.
            let _ = tokio::time::timeout(left.min(POLL), sent).await;
        }
    }

    async fn complete(&self, queue: &str, receipt: &Receipt) -> Result<(), QueueError> {
        let call = (queue.to_owned(), receipt.clone());
        let removed = self.completions.run(call, async |done| self.remove(done).await).await?;
        if removed { Ok(()) } else { Err(QueueError::LockLost) }
    }

    async fn abandon(&self, queue: &str, receipt: &Receipt) -> Result<(), QueueError> {
        let change = "UPDATE queue_messages SET lock_token = NULL, visible_at = {now}";
        self.settle(queue, receipt, change, &[]).await?;
        self.ring(queue).await;
        Ok(())
    }

    async fn dead_letter(
        &self,
        queue: &str,
        receipt: &Receipt,
        reason: &str,
        detail: &str,
    ) -> Result<(), QueueError> {
        let change = "UPDATE queue_messages SET lock_token = NULL, dead_at = {now}, dead_reason = $4, dead_detail = $5";
        self.settle(queue, receipt, change, &[reason, detail]).await
    }

    async fn renew(&self, queue: &str, receipt: &Receipt) -> Result<Duration, QueueError> {
        let lock = self.lock_ms().to_string();
        let change = "UPDATE queue_messages SET visible_at = {now} + CAST($4 AS BIGINT)";
        self.settle(queue, receipt, change, &[&lock]).await?;
        Ok(self.settings.lock)
    }

    async fn depth(&self, queue: &str) -> Result<Depth, QueueError> {
        let count = sql("SELECT
                 count(*) FILTER (WHERE dead_at IS NULL AND visible_at <= {now}),
                 count(*) FILTER (WHERE dead_at IS NULL AND visible_at > {now} AND lock_token IS NOT NULL),
                 count(*) FILTER (WHERE dead_at IS NULL AND visible_at > {now} AND lock_token IS NULL),
                 count(*) FILTER (WHERE dead_at IS NOT NULL)
             FROM queue_messages WHERE queue = $1");
        let row = sqlx::query(count).bind(queue).fetch_one(&mut *self.db.transport().await?).await?;
        let cell = |index: usize| row.try_get::<i64, _>(index).map(i64::unsigned_abs);
        Ok(Depth {
            active: cell(0)?,
            locked: cell(1)?,
            scheduled: cell(2)?,
            dead: cell(3)?,
            ..Depth::default()
        })
    }

    async fn dead_letters(&self, queue: &str, max: u32) -> Result<Vec<DeadLetter>, QueueError> {
        let select = "SELECT sequence, body, dead_reason, dead_detail FROM queue_messages
             WHERE queue = $1 AND dead_at IS NOT NULL ORDER BY dead_at, sequence LIMIT $2";
        let query = sqlx::query(select).bind(queue).bind(i64::from(max));
        let rows = query.fetch_all(&mut *self.db.transport().await?).await?;
        let letter = |row: &Row| {
            Ok(DeadLetter {
                sequence: row.try_get(0)?,
                body: row.try_get(1)?,
                reason: row.try_get(2)?,
                detail: row.try_get(3)?,
            })
        };
        rows.iter().map(letter).collect()
    }

    async fn redrive(&self, queue: &str, max: u32) -> Result<u32, QueueError> {
        let update = sql("UPDATE queue_messages
             SET dead_at = NULL, dead_reason = NULL, dead_detail = NULL, delivery_count = 0, visible_at = {now}
             WHERE sequence {among} SELECT sequence FROM queue_messages
                 WHERE queue = $1 AND dead_at IS NOT NULL ORDER BY dead_at, sequence LIMIT $2 {skip_locked} {end}");
        let query = sqlx::query(update).bind(queue).bind(i64::from(max));
        let moved = query.execute(&mut *self.db.transport().await?).await?.rows_affected();
        self.ring(queue).await;
        Ok(u32::try_from(moved).unwrap_or(u32::MAX))
    }
}

fn message(row: &Row, locked_for: Duration) -> Result<ReceivedMessage, sqlx::Error> {
    let receipt = Receipt { sequence: row.try_get(0)?, token: row.try_get(1)? };
    let delivery_count = u32::try_from(row.try_get::<i64, _>(3)?).unwrap_or(u32::MAX);
    Ok(ReceivedMessage { receipt, body: row.try_get(2)?, delivery_count, locked_for })
}

fn sql(template: &str) -> AssertSqlSafe<String> {
    AssertSqlSafe(dialect::fill(template))
}
