//! The relay: sends what transactions left in the outbox. A crash only delays.

use std::collections::BTreeMap;
use std::time::Duration;

use geoworker_machine::ErrorInfo;
use geoworker_queue::OutgoingMessage;
use tokio_util::sync::CancellationToken;

use crate::platform::Platform;

/// Messages that are sent at a time.
const BATCH: u32 = 500;
/// How long this relay has its messages to itself: if it dies, another one takes them after that.
const HOLD_MS: i64 = 15_000;
/// How often the outbox is looked at when nobody rings.
const IDLE: Duration = Duration::from_secs(1);

/// Relays until `stop`.
pub(crate) async fn relay(platform: Platform, stop: CancellationToken) {
    loop {
        match platform.relay_once().await {
            Ok(sent) if sent == u64::from(BATCH) => continue,
            Ok(_) => {}
            Err(error) => tracing::warn!(code = error.code, "the outbox waits: {}", error.message),
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = platform.outbox_written.notified() => {}
            () = tokio::time::sleep(IDLE) => {}
        }
    }
}

impl Platform {
    /// Sends one batch; answers how many messages went.
    ///
    /// # Errors
    /// Where store or queue do not answer; what was not sent stays.
    pub async fn relay_once(&self) -> Result<u64, ErrorInfo> {
        let rows = self.store.take_outbox(BATCH, HOLD_MS).await.map_err(|error| error.info())?;
        let mut queues: BTreeMap<String, (Vec<OutgoingMessage>, Vec<i64>)> = BTreeMap::new();
        let total = rows.len() as u64;
        for row in rows {
            let (messages, ids) = queues.entry(row.queue).or_default();
            messages.push(OutgoingMessage { body: row.body, delay_ms: row.delay_ms });
            ids.push(row.id);
        }
        let mut failed = None;
        for (queue, (messages, ids)) in queues {
            match self.queue.send(&queue, &messages).await {
                Ok(()) => self.store.outbox_sent(&ids).await.map_err(|error| error.info())?,
                // The others need not wait for a queue that is missing or refused.
                Err(error) => failed = Some(error.info()),
            }
        }
        failed.map_or(Ok(total), Err)
    }
}
