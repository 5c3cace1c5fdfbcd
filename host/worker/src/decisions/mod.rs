//! The decision log of a process: what its plugins answered. Recording never waits: what finds no room is counted and lost.

mod asking;
mod output;
mod transcript;
mod writer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use geoworker_machine::{ErrorInfo, TaskId};
use geoworker_plugins::{CONTRACT, LoadedPlugin};
use geoworker_store::decisions::{Decision, DecisionKind, DecisionLog, Document, NewDecision};
use prometheus_client::metrics::counter::Counter;
use serde_json::Value;
use tokio::sync::{Mutex, mpsc};

pub(crate) use asking::About;
pub(crate) use output::{answered, planned, verdict};
pub(crate) use writer::write;

use crate::platform::Platform;

/// Decisions that wait to be written.
const ROOM: usize = 4096;
/// Documents above this many bytes are known by their digest only.
const INPUT_BYTES: usize = 256 << 10;
/// The same for answers.
const OUTPUT_BYTES: usize = 64 << 10;

/// Takes decisions, and hands them to whoever writes.
pub(crate) struct Recorder {
    log: Arc<dyn DecisionLog>,
    sender: mpsc::Sender<Pending>,
    receiver: Mutex<mpsc::Receiver<Pending>>,
    dropped: Counter,
}

/// A decision that is not written yet.
struct Pending {
    made: Instant,
    decision: NewDecision,
}

impl Recorder {
    /// A recorder that counts in `dropped` what finds no room or cannot be written.
    pub(crate) fn new(log: Arc<dyn DecisionLog>, dropped: Counter) -> Self {
        let (sender, receiver) = mpsc::channel(ROOM);
        Self { log, sender, receiver: Mutex::new(receiver), dropped }
    }

    /// Takes a decision. Does not wait.
    pub(crate) fn record(&self, decision: NewDecision) {
        if self.sender.try_send(Pending { made: Instant::now(), decision }).is_err() {
            self.dropped.inc();
        }
    }
}

/// What was asked and answered.
pub(crate) struct Asked<'a> {
    pub(crate) kind: DecisionKind,
    pub(crate) plugin: &'a LoadedPlugin,
    pub(crate) type_name: &'a str,
    pub(crate) input: &'a Value,
    pub(crate) context: Option<Value>,
    /// None where the call was stopped: it decided nothing.
    pub(crate) output: Option<Value>,
    pub(crate) duration: Duration,
}

impl Asked<'_> {
    fn into_decision(self, about: About<'_>) -> Option<NewDecision> {
        Some(NewDecision {
            kind: self.kind,
            type_name: self.type_name.to_owned(),
            plugin_digest: self.plugin.digest.clone(),
            contract: CONTRACT.to_owned(),
            host_version: env!("CARGO_PKG_VERSION").to_owned(),
            job_id: about.job.cloned(),
            task_id: about.task.cloned(),
            stage: about.stage,
            attempt: about.attempt,
            input: Document::new(self.input, INPUT_BYTES),
            context: self.context.as_ref().map(|context| Document::new(context, INPUT_BYTES)),
            output: Document::new(&self.output?, OUTPUT_BYTES),
            log: None,
            age_ms: 0,
            duration_ms: self.duration.as_secs_f64() * 1000.0,
        })
    }
}

impl Platform {
    /// Records decisions from now on.
    #[must_use]
    pub fn recording(self, log: Arc<dyn DecisionLog>) -> Self {
        let recorder = Recorder::new(log, self.metrics.decisions_dropped.clone());
        Self { decisions: Some(Arc::new(recorder)), ..self }
    }

    /// The handler's latest decision on a task; none where nothing is recorded.
    ///
    /// # Errors
    /// A failure of the store.
    pub async fn latest_handle(&self, task: &TaskId) -> Result<Option<Decision>, ErrorInfo> {
        let Some(recorder) = &self.decisions else { return Ok(None) };
        recorder.log.latest_handle(task).await.map_err(|error| error.info())
    }

    /// Takes what a plugin answered.
    pub(crate) fn decided(&self, asked: Asked<'_>, about: About<'_>) {
        if let Some(recorder) = &self.decisions
            && let Some(decision) = asked.into_decision(about)
        {
            recorder.record(decision);
        }
    }
}

#[cfg(test)]
mod tests {
    use geoworker_store::StoreError;
    use geoworker_store::decisions::{DecisionsPage, Retention};
    use serde_json::json;

    use super::*;

    /// A log that cannot be written.
    struct Broken;

    #[async_trait::async_trait]
    impl DecisionLog for Broken {
        async fn record_decisions(&self, _: &[NewDecision]) -> Result<(), StoreError> {
            Err(StoreError::Corrupt("on purpose".into()))
        }
        async fn decisions(&self, _: DecisionsPage<'_>) -> Result<Vec<Decision>, StoreError> {
            Ok(Vec::new())
        }
        async fn latest_handle(&self, _: &TaskId) -> Result<Option<Decision>, StoreError> {
            Ok(None)
        }
        async fn prune_decisions(&self, _: Retention, _: u32) -> Result<u64, StoreError> {
            Ok(0)
        }
        async fn documents(&self) -> Result<u64, StoreError> {
            Ok(0)
        }
    }

    fn decision() -> NewDecision {
        NewDecision {
            kind: DecisionKind::Validate,
            type_name: "t".into(),
            plugin_digest: String::new(),
            contract: String::new(),
            host_version: String::new(),
            job_id: None,
            task_id: None,
            stage: None,
            attempt: None,
            input: Document::new(&json!({}), 10),
            context: None,
            output: Document::new(&json!({}), 10),
            log: None,
            age_ms: 0,
            duration_ms: 0.0,
        }
    }

    #[tokio::test]
    async fn a_full_or_broken_log_counts_what_it_loses_and_holds_nobody_up() {
        let dropped = Counter::default();
        let recorder = Recorder::new(Arc::new(Broken), dropped.clone());
        for _ in 0..=ROOM {
            recorder.record(decision());
        }
        assert_eq!(dropped.get(), 1, "one found no room");
        recorder.flush().await;
        assert_eq!(dropped.get(), ROOM as u64 + 1, "the others could not be written");
    }
}
