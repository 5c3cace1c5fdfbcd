//! Whether the database answers: a process that cannot keep the leases it holds takes no more work (R18).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use geoworker_store::records::Beat;
use tokio_util::sync::CancellationToken;

use crate::platform::Platform;

/// How often a worker says that it is there.
const BEAT: Duration = Duration::from_secs(10);
/// How often it tries while the database does not answer.
const TRY: Duration = Duration::from_secs(1);

/// What is known of the database, and of the work that depends on it.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    unanswered: AtomicBool,
    busy: AtomicU32,
}

impl Truth {
    /// The database answered.
    pub(crate) fn answered(&self) {
        self.unanswered.store(false, Ordering::Relaxed);
    }

    /// It did not.
    pub(crate) fn silent(&self) {
        self.unanswered.store(true, Ordering::Relaxed);
    }

    /// Whether work may be taken.
    pub(crate) fn is_there(&self) -> bool {
        !self.unanswered.load(Ordering::Relaxed)
    }

    /// Tasks that run.
    pub(crate) fn busy(&self) -> u32 {
        self.busy.load(Ordering::Relaxed)
    }

    /// Counts a task as running until the answer is dropped.
    pub(crate) fn working(&self) -> Working<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Working(&self.busy)
    }
}

/// A task that runs.
pub(crate) struct Working<'a>(&'a AtomicU32);

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Says that this worker is there until `ended`, then takes its leave.
pub(crate) async fn beat(platform: Platform, slots: u32, ended: CancellationToken) {
    let settings = &platform.settings;
    loop {
        let beat = Beat {
            worker: &settings.worker_id,
            app_name: &settings.app_name,
            mode: settings.mode.as_str(),
            slots,
            busy: platform.truth.busy(),
        };
        let pause = match platform.store.beat(beat).await {
            Ok(()) => {
                platform.truth.answered();
                BEAT
            }
            Err(error) => {
                platform.truth.silent();
                tracing::warn!(%error, "the database does not answer: no work is taken");
                TRY
            }
        };
        tokio::select! {
            biased;
            () = ended.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    // Where it cannot, others see that it fell silent.
    let _ = platform.store.leave(&settings.worker_id).await;
}
