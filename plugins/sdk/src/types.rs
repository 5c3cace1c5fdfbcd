//! Task and job types as authors write them.

use serde_json::Value;

use crate::bindings::exports::geoworker::plugin::task_types;
use crate::bindings::geoworker::plugin::types;

pub use crate::bindings::geoworker::plugin::types::{BlobRef, Failure, Finding};
pub use task_types::TaskRoute as Route;

/// A task type as it introduces itself; see `task-type` in the contract.
#[derive(Debug, Clone)]
pub struct TaskTypeInfo {
    /// One line for people.
    pub summary: &'static str,
    /// `raster` or `vector`.
    pub class: &'static str,
    /// JSON Schema of the parameters.
    pub parameters: Value,
    /// JSON Schema of the result.
    pub result: Value,
    /// Operations of the host that `handle` uses, such as `raster.create-cog`.
    pub operations: &'static [&'static str],
    /// Zones with their access, such as `bronze:read`.
    pub zones: &'static [&'static str],
    /// Retries after the first attempt; the host's default where none.
    pub max_retries: Option<u32>,
    /// Longest time of one attempt in seconds; the host's default where none.
    pub timeout_seconds: Option<u32>,
}

/// The task to handle.
#[derive(Debug, Clone)]
pub struct Task {
    /// Logical unit of the task.
    pub unit: String,
    /// From 1. Must not change what is asked of operations.
    pub attempt: u32,
    /// Id of the job.
    pub job_id: String,
    /// When the job was submitted, RFC 3339.
    pub submitted_at: String,
    /// Normalised parameters.
    pub params: Value,
}

/// One piece of work.
pub trait TaskType: Sync {
    /// Lower-case snake case, unique among all plugins.
    fn name(&self) -> &'static str;
    /// How it introduces itself.
    fn describe(&self) -> TaskTypeInfo;
    /// Checks what the schema cannot, and fills in what follows from the rest. Pure.
    fn validate(&self, params: Value) -> Result<Value, Vec<Finding>> {
        Ok(params)
    }
    /// The blobs that the task will read. Pure.
    fn inputs(&self, _params: &Value) -> Vec<BlobRef> {
        Vec::new()
    }
    /// Where it runs; the default leaves that to size and class. Pure.
    fn route(&self, _params: &Value, _inputs: &[types::BlobFacts]) -> Route {
        Route { target: String::new(), reason: String::new() }
    }
    /// Does the work.
    fn handle(&self, task: &Task) -> Result<Value, Failure>;
}

/// One stage of a job type.
#[derive(Debug, Clone, Copy)]
pub struct StageInfo {
    /// Lower-case snake case.
    pub name: &'static str,
    /// `fail` or `continue`.
    pub on_failure: &'static str,
}

/// A job type as it introduces itself; see `job-type` in the contract.
#[derive(Debug, Clone)]
pub struct JobTypeInfo {
    /// One line for people.
    pub summary: &'static str,
    /// JSON Schema of the parameters.
    pub parameters: Value,
    /// Stages in order.
    pub stages: Vec<StageInfo>,
    /// Task types that the stages use.
    pub task_types: &'static [&'static str],
}

/// The job to plan for.
#[derive(Debug, Clone)]
pub struct Job {
    /// Identity of the run.
    pub job_id: String,
    /// Normalised parameters.
    pub params: Value,
}

/// One task to create.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its type.
    pub task_type: &'static str,
    /// Logical unit, unique within the stage.
    pub unit: String,
    /// Its parameters.
    pub params: Value,
}

/// A list of stages.
pub trait JobType: Sync {
    /// Lower-case snake case, unique among all plugins.
    fn name(&self) -> &'static str;
    /// How it introduces itself.
    fn describe(&self) -> JobTypeInfo;
    /// Checks what the schema cannot. Pure.
    fn validate(&self, params: Value) -> Result<Value, Vec<Finding>> {
        Ok(params)
    }
    /// The blobs that the job will read. Pure.
    fn inputs(&self, _params: &Value) -> Vec<BlobRef> {
        Vec::new()
    }
    /// The tasks of a stage, from 1.
    fn plan(&self, job: &Job, stage: u32) -> Result<Vec<Planned>, Failure>;
    /// The job's result.
    fn finalize(&self, job: &Job) -> Result<Value, Failure>;
}

impl Failure {
    /// A failure that would happen again.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), class: "permanent".into(), hint: None }
    }

    /// A failure that may not happen again.
    pub fn transient(code: &str, message: impl Into<String>) -> Self {
        Self { class: "transient".into(), ..Self::permanent(code, message) }
    }
}

impl Finding {
    /// Something that is wrong with a parameter.
    pub fn error(code: &str, path: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), severity: "error".into(), path: path.into(), message: message.into() }
    }

    /// Something that is worth knowing.
    pub fn warning(code: &str, path: &str, message: impl Into<String>) -> Self {
        Self { severity: "warning".into(), ..Self::error(code, path, message) }
    }
}
