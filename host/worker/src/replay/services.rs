//! A host that answers from a record and does nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use geoworker_machine::ErrorInfo;
use geoworker_plugins::{HostServices, JournaledOperation, OperationError, UnitResult, request_hash};
use serde::Deserialize;
use serde_json::{Value, json};

/// A recorded operation.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Answered {
    operation: String,
    request_hash: String,
    outcome: Value,
}

/// What a handler has asked for, and what is left to answer.
#[derive(Debug)]
pub(super) struct Asking {
    left: VecDeque<Answered>,
    asked: Vec<Value>,
    unknown: Option<Value>,
}

impl Asking {
    pub(super) fn new(answers: Vec<Answered>) -> Self {
        Self { left: answers.into(), asked: Vec::new(), unknown: None }
    }

    /// Requests in order, as they are recorded.
    pub(super) fn requests(&self) -> Value {
        Value::Array(self.asked.clone())
    }

    /// The request that ended the replay, because the record does not hold it; null where there was none.
    pub(super) fn unknown(&self) -> Value {
        self.unknown.clone().unwrap_or_default()
    }

    fn answer(&mut self, operation: &str, request: &Value) -> Result<Value, OperationError> {
        let hash = request_hash(operation, request);
        self.asked.push(json!({"operation": operation, "request_hash": hash}));
        let entry = self.left.pop_front();
        let known = entry.filter(|entry| entry.operation == operation && entry.request_hash == hash);
        let Some(Answered { mut outcome, .. }) = known else {
            self.unknown = Some(json!({"operation": operation, "request": request}));
            return Err(OperationError::Aborted("the record does not hold this request".into()));
        };
        if let Some(value) = outcome.get_mut("ok") {
            return Ok(value.take());
        }
        match serde_json::from_value::<ErrorInfo>(outcome["failed"].take()) {
            Ok(info) => Err(OperationError::Failed(info)),
            Err(error) => Err(OperationError::Aborted(error.to_string())),
        }
    }
}

/// Answers a handler from its record.
pub(super) struct ReplayServices(pub(super) Arc<Mutex<Asking>>);

#[async_trait]
impl HostServices for ReplayServices {
    async fn perform(&mut self, operation: &str, request: Value) -> Result<Value, OperationError> {
        let asking = self.0.lock();
        asking.map_err(|error| OperationError::Aborted(error.to_string()))?.answer(operation, &request)
    }
    async fn record(&mut self, _: JournaledOperation) -> Result<(), OperationError> {
        Ok(())
    }
    fn log(&mut self, _: &str, _: &str) {}
    fn progress(&mut self, _: f32, _: &str) {}
    async fn result_count(&mut self, _: u32) -> Result<u32, OperationError> {
        Ok(0)
    }
    async fn result_page(&mut self, _: u32, _: u32, _: u32) -> Result<Vec<UnitResult>, OperationError> {
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_the_record_does_not_hold_ends_the_replay() {
        let request = json!({"blob": 1});
        let answers = vec![Answered {
            operation: "blobs.stat".into(),
            request_hash: request_hash("blobs.stat", &request),
            outcome: json!({"ok": {"size": 5}}),
        }];
        let mut asking = Asking::new(answers);
        assert_eq!(asking.answer("blobs.stat", &request).expect("is recorded"), json!({"size": 5}));
        assert!(matches!(asking.answer("blobs.stat", &request), Err(OperationError::Aborted(_))));
        assert_eq!(asking.unknown()["operation"], "blobs.stat");
        assert_eq!(asking.requests().as_array().map(Vec::len), Some(2));
    }
}
