//! Whether the blob storage answers: a process that can neither read nor write takes no more work (R18).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use geoworker_blobs::BlobError;
use tokio_util::sync::CancellationToken;

use crate::platform::Platform;

/// How often it is asked.
const ASK: Duration = Duration::from_secs(10);
/// How often it is asked while it does not answer.
const TRY: Duration = Duration::from_secs(2);
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of the storage.
#[derive(Debug, Default)]
pub(crate) struct Storage {
    away: AtomicBool,
}

impl Storage {
    pub(crate) fn is_there(&self) -> bool {
        !self.away.load(Ordering::Relaxed)
    }
}

impl Platform {
    /// Asks every zone: whether work has to wait for the storage, rather than that it failed.
    pub(crate) async fn storage_is_reached(&self) -> bool {
        let answers = tokio::time::timeout(PATIENCE, self.zones.reach()).await;
        let away = !matches!(answers, Ok(Ok(())));
        if away != self.storage.away.swap(away, Ordering::Relaxed) {
            match away {
                true => tracing::warn!("the blob storage does not answer: no work is taken"),
                false => tracing::info!("the blob storage answers again"),
            }
        }
        !away
    }
}

/// Asks every zone again and again until `ended`.
pub(crate) async fn watch(platform: Platform, ended: CancellationToken) {
    loop {
        let away = !platform.storage_is_reached().await;
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = tokio::time::sleep(if away { TRY } else { ASK }) => {}
        }
    }
}

/// The storage did not answer.
pub(crate) fn is_away(error: &BlobError) -> bool {
    matches!(error, BlobError::Unavailable(_))
}
