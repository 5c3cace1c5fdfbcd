//! What happened while a handler ran: the operations that it asked for, and the end of its log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use geoworker_machine::RetryClass;
use geoworker_plugins::{HostServices, JournaledOperation, OperationError, UnitResult, request_hash};
use serde_json::{Value, json};

/// Lines of the log that are kept, and characters of each.
const LINES: usize = 50;
const LINE_CHARS: usize = 200;

/// Operations and log of one attempt.
#[derive(Debug, Default)]
pub(crate) struct Transcript {
    operations: Vec<JournaledOperation>,
    lines: VecDeque<String>,
}

impl Transcript {
    /// Begins with what earlier attempts had finished: a handler that runs again is answered from there.
    pub(crate) fn of(journal: &[JournaledOperation]) -> Self {
        Self { operations: journal.to_vec(), lines: VecDeque::new() }
    }

    /// What was asked for, in order.
    pub(crate) fn requests(&self) -> Value {
        let request = |entry: &JournaledOperation| json!({"operation": entry.operation, "request_hash": entry.request_hash});
        self.operations.iter().map(request).collect()
    }

    /// What was answered, in order; none where nothing was asked for.
    pub(crate) fn answers(&self) -> Option<Value> {
        let answer = |entry: &JournaledOperation| {
            json!({
                "operation": entry.operation,
                "request_hash": entry.request_hash,
                "outcome": entry.outcome
            })
        };
        (!self.operations.is_empty()).then(|| self.operations.iter().map(answer).collect())
    }

    /// The last lines of the log as a JSON list; none where there are none.
    pub(crate) fn log(&self) -> Option<String> {
        (!self.lines.is_empty()).then(|| json!(self.lines).to_string())
    }

    fn finished(&mut self, entry: JournaledOperation) {
        // What stood at and after it was of another path.
        self.operations.truncate(entry.sequence as usize);
        self.operations.push(entry);
    }

    fn failed(&mut self, operation: &str, request_hash: String, outcome: Value) {
        let sequence = u32::try_from(self.operations.len()).unwrap_or(u32::MAX);
        let operation = operation.to_owned();
        self.operations.push(JournaledOperation { sequence, operation, request_hash, outcome });
    }

    fn line(&mut self, level: &str, message: &str) {
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        let message: String = message.chars().take(LINE_CHARS).collect();
        self.lines.push_back(format!("{level}: {message}"));
    }
}

/// Services that write down what is asked of them.
pub(crate) struct Recorded {
    pub(crate) inner: Box<dyn HostServices>,
    pub(crate) transcript: Arc<Mutex<Transcript>>,
}

impl Recorded {
    fn note(&self, note: impl FnOnce(&mut Transcript)) {
        if let Ok(mut transcript) = self.transcript.lock() {
            note(&mut transcript);
        }
    }
}

#[async_trait]
impl HostServices for Recorded {
    async fn perform(&mut self, operation: &str, request: Value) -> Result<Value, OperationError> {
        let hash = request_hash(operation, &request);
        let outcome = self.inner.perform(operation, request).await;
        // Permanent failures are remembered like answers: they come through `record`.
        if let Err(OperationError::Failed(info)) = &outcome
            && info.class != RetryClass::Permanent
        {
            self.note(|transcript| transcript.failed(operation, hash, json!({"failed": info})));
        }
        outcome
    }

    async fn record(&mut self, entry: JournaledOperation) -> Result<(), OperationError> {
        self.note(|transcript| transcript.finished(entry.clone()));
        self.inner.record(entry).await
    }

    fn log(&mut self, level: &str, message: &str) {
        self.note(|transcript| transcript.line(level, message));
        self.inner.log(level, message);
    }

    fn progress(&mut self, fraction: f32, message: &str) {
        self.inner.progress(fraction, message);
    }

    async fn result_count(&mut self, stage: u32) -> Result<u32, OperationError> {
        self.inner.result_count(stage).await
    }

    async fn result_page(
        &mut self,
        stage: u32,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<UnitResult>, OperationError> {
        self.inner.result_page(stage, offset, limit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_path_replaces_what_was_recorded_and_the_log_is_bounded() {
        let entry = |sequence, hash: &str| JournaledOperation {
            sequence,
            operation: "blobs.stat".into(),
            request_hash: hash.into(),
            outcome: json!({"ok": 1}),
        };
        let mut transcript = Transcript::of(&[entry(0, "a"), entry(1, "b")]);
        transcript.finished(entry(1, "c"));
        let hashes: Vec<&str> =
            transcript.operations.iter().map(|entry| entry.request_hash.as_str()).collect();
        assert_eq!(hashes, ["a", "c"]);
        for number in 0..=LINES {
            transcript.line("info", &format!("{number} {}", "ä".repeat(LINE_CHARS)));
        }
        assert_eq!(transcript.lines.len(), LINES);
        assert!(transcript.lines[0].starts_with("info: 1 "), "the oldest line went");
        assert!(transcript.lines[0].chars().count() <= LINE_CHARS + "info: ".len());
    }
}
