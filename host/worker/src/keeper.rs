//! The lease keeper: independent of the work, it renews the row and the broker's lock, and ends the work when the
//! lease is lost.

use std::sync::{Arc, Mutex};

use geoworker_queue::Receipt;
use geoworker_store::records::{Fenced, Task};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::platform::Platform;

/// Latest progress of an attempt, written by the work, read by the keeper.
pub(crate) type Progress = Arc<Mutex<Option<(f64, String)>>>;

/// Renews until `done`; cancels `lost` when the lease is gone, or cannot be renewed for as long as it holds.
pub(crate) async fn keep(
    platform: Platform,
    task: Task,
    receipt: Receipt,
    progress: Progress,
    lost: CancellationToken,
    done: CancellationToken,
) {
    let settings = Arc::clone(&platform.settings);
    let mut held_until = Instant::now() + settings.lease;
    loop {
        tokio::select! {
            () = done.cancelled() => return,
            () = tokio::time::sleep(settings.renew) => {}
        }
        let latest = progress.lock().ok().and_then(|mut latest| latest.take());
        match platform.store.renew(&task.task_id, task.lease_epoch, settings.lease_ms(), latest).await {
            Ok(Fenced::Accepted) => held_until = Instant::now() + settings.lease,
            Ok(Fenced::Stale) => {
                tracing::warn!("the lease was lost; the attempt is abandoned");
                return lost.cancel();
            }
            Err(error) if Instant::now() >= held_until => {
                tracing::warn!(%error, "the lease ran out while the database did not answer");
                return lost.cancel();
            }
            Err(error) => tracing::warn!(%error, "the lease could not be renewed; trying again"),
        }
        // Losing the lock is survivable: the message may be delivered again, and the claim then says no.
        if let Err(error) = platform.queue.renew(&task.queue, &receipt).await {
            tracing::debug!(%error, "the message's lock could not be renewed");
        }
    }
}
