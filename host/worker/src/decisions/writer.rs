//! Writes decisions in batches, behind the work.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Pending, Recorder};
use crate::platform::Platform;
use crate::settings::millis;

/// Decisions of one transaction.
const BATCH: usize = 200;
/// How long a batch gathers that is not full: a commit for each decision would get in the way of the work's.
const GATHER: Duration = Duration::from_millis(250);
/// Decisions that one transaction removes, and transactions of one pass of the sweeper.
const PRUNE_BATCH: u32 = 500;
const PRUNE_BATCHES: u32 = 20;
/// Time for what is left at the end of a process.
const LAST: Duration = Duration::from_secs(5);

/// Writes until `stop`, then what is left.
pub(crate) async fn write(platform: Platform, stop: CancellationToken) {
    let Some(recorder) = &platform.decisions else { return };
    recorder.write_until(&stop).await;
    platform.flush_decisions().await;
}

impl Platform {
    /// Writes what was decided and not written yet: for the end of a process.
    pub async fn flush_decisions(&self) {
        let Some(recorder) = &self.decisions else { return };
        if tokio::time::timeout(LAST, recorder.flush()).await.is_err() {
            tracing::warn!("decisions were not recorded: the database does not answer");
        }
    }
}

impl Platform {
    /// Removes decisions that are not to be kept, in small batches; what is left to do waits for the next pass.
    pub(crate) async fn prune_decisions(&self) {
        let Some(recorder) = &self.decisions else { return };
        for _ in 0..PRUNE_BATCHES {
            match recorder.log.prune_decisions(self.settings.decisions, PRUNE_BATCH).await {
                Ok(pruned) if pruned == u64::from(PRUNE_BATCH) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "old decisions stay for now");
                    return;
                }
            }
        }
    }
}

impl Recorder {
    async fn write_until(&self, stop: &CancellationToken) {
        let mut receiver = self.receiver.lock().await;
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                _ = receiver.recv_many(&mut batch, BATCH) => {}
            }
            if batch.len() < BATCH {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(GATHER) => {}
                }
            }
            while batch.len() < BATCH
                && let Ok(pending) = receiver.try_recv()
            {
                batch.push(pending);
            }
            self.write(std::mem::take(&mut batch)).await;
        }
    }

    /// Writes all that waits.
    pub(super) async fn flush(&self) {
        let mut receiver = self.receiver.lock().await;
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            while batch.len() < BATCH
                && let Ok(pending) = receiver.try_recv()
            {
                batch.push(pending);
            }
            if batch.is_empty() {
                return;
            }
            self.write(batch).await;
        }
    }

    async fn write(&self, batch: Vec<Pending>) {
        let made = |pending: Pending| {
            let mut decision = pending.decision;
            decision.age_ms = millis(pending.made.elapsed());
            decision
        };
        let batch: Vec<_> = batch.into_iter().map(made).collect();
        if let Err(error) = self.log.record_decisions(&batch).await {
            self.dropped.inc_by(batch.len() as u64);
            tracing::warn!(%error, decisions = batch.len(), "decisions were not recorded");
        }
    }
}
