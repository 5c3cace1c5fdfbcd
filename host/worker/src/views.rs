//! Jobs, tasks and types as programs see them: the same JSON by command line and HTTP. Times are milliseconds since 1970 UTC.

use geoworker_machine::{ErrorInfo, JobId, JobState};
use geoworker_plugins::{JobTypeInfo, LoadedPlugin, TaskTypeInfo};
use geoworker_store::decisions::Decision;
use geoworker_store::records::{Event, Job, Stage, Task};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::waiting::task_waits_for;

/// A job with its stages.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobStatus {
    /// Identity of the run.
    pub job_id: JobId,
    /// Its type.
    pub job_type: String,
    /// Normalised parameters.
    pub parameters: Value,
    /// From 1.
    pub run_ordinal: u32,
    /// The run before this one.
    pub previous_run: Option<JobId>,
    /// For tracing across systems.
    pub correlation_id: Option<String>,
    /// Digest of the plugin that accepted it.
    pub plugin_digest: String,
    /// Stages that were planned, with the counts of their tasks.
    pub stages: Vec<Stage>,
    /// Where it is.
    pub state: JobState,
    /// The stage that runs or ran last; 0 before the first.
    pub stage: u32,
    /// Somebody asked for its end; running tasks are being interrupted.
    pub cancelling: bool,
    /// Why it does not go on; null where one of its tasks runs, or it is over.
    pub waiting: Option<String>,
    /// Result of a finished job.
    pub result: Option<Value>,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
    /// When it was submitted.
    pub created_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
    /// From submission to end; 0 before the end.
    pub duration_ms: i64,
}

impl JobStatus {
    /// A job, its planned stages, and what it waits for.
    #[must_use]
    pub fn new(job: Job, stages: Vec<Stage>, waiting: Option<String>) -> Self {
        Self {
            duration_ms: job.ended_at.map_or(0, |ended| ended - job.created_at),
            job_id: job.job_id,
            job_type: job.job_type,
            parameters: job.parameters,
            run_ordinal: job.run_ordinal,
            previous_run: job.previous_run,
            correlation_id: job.correlation_id,
            plugin_digest: job.plugin_digest,
            stages,
            state: job.state,
            stage: job.stage,
            cancelling: job.cancelling,
            waiting,
            result: job.result,
            error: job.error,
            created_at: job.created_at,
            ended_at: job.ended_at,
        }
    }
}

/// A task with what it waits for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskView {
    #[serde(flatten)]
    task: Task,
    /// Why it does not run; null where it runs or is over.
    waiting: Option<String>,
}

impl From<Task> for TaskView {
    fn from(task: Task) -> Self {
        Self { waiting: task_waits_for(&task), task }
    }
}

/// A task with its timeline.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskDetail {
    #[serde(flatten)]
    task: TaskView,
    /// What happened to it, oldest first.
    pub events: Vec<Event>,
    /// What is recorded of the handler's latest run; null where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handled: Option<HandledView>,
}

/// A run of a handler, as the decision log has it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HandledView {
    /// Which attempt.
    pub attempt: Option<u32>,
    /// SHA-256 of the plugin's file.
    pub plugin_digest: String,
    /// Package and version of the contract.
    pub contract: String,
    /// Version of the host.
    pub host_version: String,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// Last lines of the guest's log, oldest first.
    pub log: Vec<String>,
}

impl From<Decision> for HandledView {
    fn from(decision: Decision) -> Self {
        let log = decision.log.as_deref().map(serde_json::from_str).and_then(Result::ok);
        Self {
            attempt: decision.attempt,
            plugin_digest: decision.plugin_digest,
            contract: decision.contract,
            host_version: decision.host_version,
            duration_ms: decision.duration_ms,
            log: log.unwrap_or_default(),
        }
    }
}

impl TaskDetail {
    /// A task, the timeline of its job, and the handler's latest decision.
    #[must_use]
    pub fn new(task: Task, mut events: Vec<Event>, handled: Option<Decision>) -> Self {
        events.retain(|event| event.task_id.as_ref() == Some(&task.task_id));
        Self { task: task.into(), events, handled: handled.map(HandledView::from) }
    }
}

/// A job type that can be submitted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct JobTypeView {
    /// Unique name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// File of the plugin that offers it.
    pub plugin: String,
    /// SHA-256 of that file.
    pub digest: String,
    /// Names of its stages, in order.
    pub stages: Vec<String>,
    /// Task types that the stages use.
    pub task_types: Vec<String>,
    /// JSON Schema of the parameters.
    pub parameters: Value,
}

impl JobTypeView {
    /// A type of a plugin.
    #[must_use]
    pub fn new(plugin: &LoadedPlugin, info: &JobTypeInfo) -> Self {
        Self {
            name: info.name.clone(),
            version: info.version.clone(),
            summary: info.summary.clone(),
            plugin: plugin.name.clone(),
            digest: plugin.digest.clone(),
            stages: info.stages.iter().map(|stage| stage.name.clone()).collect(),
            task_types: info.task_types.clone(),
            parameters: info.parameters.source().clone(),
        }
    }
}

/// A task type that can be run.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskTypeView {
    /// Unique name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// File of the plugin that offers it.
    pub plugin: String,
    /// SHA-256 of that file.
    pub digest: String,
    /// `raster` or `vector`.
    pub class: String,
    /// Operations that the handler may ask for.
    pub operations: Vec<String>,
    /// Zones that it may use.
    pub zones: Vec<String>,
    /// JSON Schema of the parameters.
    pub parameters: Value,
    /// JSON Schema of the result.
    pub result: Value,
}

impl TaskTypeView {
    /// A type of a plugin.
    #[must_use]
    pub fn new(plugin: &LoadedPlugin, info: &TaskTypeInfo) -> Self {
        Self {
            name: info.name.clone(),
            version: info.version.clone(),
            summary: info.summary.clone(),
            plugin: plugin.name.clone(),
            digest: plugin.digest.clone(),
            class: info.class.clone(),
            operations: info.operations.clone(),
            zones: info.zones.clone(),
            parameters: info.parameters.source().clone(),
            result: info.result_schema.source().clone(),
        }
    }
}
