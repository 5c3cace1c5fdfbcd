//! What a guest's requests end at: the worker in production, nothing at load.

use async_trait::async_trait;
use geoworker_machine::ids::digest;
use geoworker_machine::json::canonical;
use geoworker_machine::{ErrorInfo, codes};
use serde_json::Value;

/// An operation that was finished before.
#[derive(Debug, Clone, PartialEq)]
pub struct JournaledOperation {
    /// Position in the handler, from 0.
    pub sequence: u32,
    /// Such as `raster.create-cog`.
    pub operation: String,
    /// SHA-256 over operation and request.
    pub request_hash: String,
    /// `{"ok": …}` or `{"failed": …}`.
    pub outcome: Value,
}

/// What a request is known by in the journal: SHA-256 over operation and canonical request.
#[must_use]
pub fn request_hash(operation: &str, request: &Value) -> String {
    digest(&[operation, &canonical(request)])
}

/// Why an operation gave no answer.
#[derive(Debug, Clone)]
pub enum OperationError {
    /// It failed; the guest is told.
    Failed(ErrorInfo),
    /// The attempt is over: the guest is stopped.
    Aborted(String),
}

/// How one task of a finished stage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitResult {
    /// Logical unit.
    pub unit: String,
    /// Final state.
    pub state: String,
    /// JSON.
    pub output: Option<String>,
    /// Why it failed.
    pub failure: Option<ErrorInfo>,
}

/// The host's side of one invocation.
#[async_trait]
pub trait HostServices: Send + Sync {
    /// Does an operation. `request` has the field names of the contract.
    async fn perform(&mut self, operation: &str, request: Value) -> Result<Value, OperationError>;
    /// Remembers a finished operation.
    async fn record(&mut self, entry: JournaledOperation) -> Result<(), OperationError>;
    /// A line of the guest's log, clean and bounded.
    fn log(&mut self, level: &str, message: &str);
    /// How far the task is.
    fn progress(&mut self, fraction: f32, message: &str);
    /// Tasks of a finished stage.
    async fn result_count(&mut self, stage: u32) -> Result<u32, OperationError>;
    /// Results of a finished stage.
    async fn result_page(
        &mut self,
        stage: u32,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<UnitResult>, OperationError>;
}

/// Services of a guest that may only think: load time, validation, routing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoServices;

fn not_here() -> OperationError {
    OperationError::Failed(ErrorInfo::permanent(
        codes::OPERATION_NOT_DECLARED,
        "operations are only possible while a task is handled",
    ))
}

#[async_trait]
impl HostServices for NoServices {
    async fn perform(&mut self, _: &str, _: Value) -> Result<Value, OperationError> {
        Err(not_here())
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
