//! The lease keeper: independent of the work, it renews the row and the broker's lock, and ends the work when the
//! lease is lost or the job is cancelled.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use geoworker_queue::{QueueError, ReceivedMessage};
use geoworker_store::records::{Renewal, Task};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::platform::Platform;

/// How often progress goes out and a cancel comes in.
const BEAT: Duration = Duration::from_secs(1);

/// Latest progress of an attempt, written by the work, read by the keeper.
pub(crate) type Progress = Arc<Mutex<Option<(f64, String)>>>;

/// How an attempt can be ended from outside.
#[derive(Debug, Clone)]
pub(crate) struct Stops {
    /// The attempt must end, for whatever reason.
    pub(crate) over: CancellationToken,
    /// The reason is that its job was cancelled.
    pub(crate) cancelled: CancellationToken,
    /// The attempt has ended; the keeper may go.
    pub(crate) done: CancellationToken,
}

impl Stops {
    /// `interrupt` is the worker's own shutdown.
    pub(crate) fn new(interrupt: &CancellationToken) -> Self {
        let over = interrupt.child_token();
        Self { over, cancelled: CancellationToken::new(), done: CancellationToken::new() }
    }
}

/// Renews until the attempt has ended; ends it when the lease is gone, when it could not be renewed for as long as
/// it holds, or when the job is cancelled.
pub(crate) async fn keep(
    platform: Platform,
    task: Task,
    message: ReceivedMessage,
    progress: Progress,
    stops: Stops,
) {
    let settings = Arc::clone(&platform.settings);
    let beat = BEAT.min(settings.renew);
    let mut held_until = Instant::now() + settings.lease;
    // The broker's lock has a length of its own, and may be shorter than the lease.
    let due = |locked_for: Duration| Instant::now() + settings.renew.min(locked_for / 2);
    let mut lock_due = Some(due(message.locked_for));
    loop {
        tokio::select! {
            biased;
            () = stops.done.cancelled() => return,
            () = tokio::time::sleep(beat) => {}
        }
        let latest = progress.lock().ok().and_then(|mut latest| latest.take());
        let asked_at = Instant::now();
        match platform.store.renew(&task.task_id, task.lease_epoch, settings.lease_ms(), latest).await {
            Ok(Renewal::Held) => {
                platform.truth.answered();
                held_until = asked_at + settings.lease;
            }
            Ok(Renewal::Cancelling) => {
                platform.truth.answered();
                held_until = asked_at + settings.lease;
                stops.cancelled.cancel();
                stops.over.cancel();
            }
            Ok(Renewal::Stale) => {
                platform.metrics.lease_lost();
                tracing::warn!("the lease was lost; the attempt is abandoned");
                return stops.over.cancel();
            }
            Err(error) if Instant::now() >= held_until => {
                platform.truth.silent();
                platform.metrics.lease_lost();
                tracing::warn!(%error, "the lease ran out while the database did not answer");
                return stops.over.cancel();
            }
            Err(error) => {
                // Whoever cannot keep what it holds takes no more.
                platform.truth.silent();
                tracing::warn!(%error, "the lease could not be renewed; trying again");
            }
        }
        if lock_due.is_some_and(|due| Instant::now() >= due) {
            // A broker that does not answer must not keep this from renewing the lease.
            let renewed = tokio::select! {
                biased;
                () = stops.done.cancelled() => return,
                renewed = tokio::time::timeout(settings.renew / 2, platform.queue.renew(&task.queue, &message.receipt)) => renewed,
            };
            lock_due = match renewed {
                Ok(Ok(locked_for)) => Some(due(locked_for)),
                // Survivable: the message may be delivered again, and the claim then says no.
                Ok(Err(QueueError::LockLost)) => {
                    tracing::debug!("the message's lock was lost; the lease decides");
                    None
                }
                Ok(Err(error)) => {
                    tracing::debug!(%error, "the message's lock could not be renewed; trying again");
                    Some(Instant::now())
                }
                Err(_) => {
                    tracing::debug!("the broker does not answer; the message's lock is renewed later");
                    Some(Instant::now())
                }
            };
        }
    }
}
