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

    /// An operation found it away; the watch finds out when it is back.
    pub(crate) fn went_away(&self) {
        self.away.store(true, Ordering::Relaxed);
    }
}

/// Asks every zone again and again until `ended`.
pub(crate) async fn watch(platform: Platform, ended: CancellationToken) {
    loop {
        let answers = tokio::time::timeout(PATIENCE, platform.zones.reach()).await;
        let away = !matches!(answers, Ok(Ok(())));
        if away != platform.storage.away.swap(away, Ordering::Relaxed) {
            match away {
                true => tracing::warn!("the blob storage does not answer: no work is taken"),
                false => tracing::info!("the blob storage answers again"),
            }
        }
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = tokio::time::sleep(if away { TRY } else { ASK }) => {}
        }
    }
}

/// Whether work has to wait for the storage, rather than that it failed.
pub(crate) fn is_away(error: &BlobError) -> bool {
    matches!(error, BlobError::Unavailable(_))
}
