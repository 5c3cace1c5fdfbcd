//! Rows as the platform sees them, and what is asked of the store. Times are milliseconds since 1970 UTC.

use geoworker_machine::stage::StageSpec;
use geoworker_machine::{ErrorInfo, JobId, JobState, TaskId, TaskState};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A job to accept.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its type.
    pub job_type: String,
    /// Normalised parameters.
    pub parameters: Value,
    /// Its stages.
    pub stages: Vec<StageSpec>,
    /// Digest of the plugin that accepted it.
    pub plugin_digest: String,
    /// For tracing across systems.
    pub correlation_id: Option<String>,
    /// Queue of the job message.
    pub jobs_queue: String,
    /// Make a new run even where one with the same parameters exists.
    pub force: bool,
}

/// What became of a submission (R12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The run.
    pub job_id: JobId,
    /// It was there before.
    pub existing: bool,
}

/// A job.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Job {
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
    /// Its stages.
    pub stages: Vec<StageSpec>,
    /// Where it is.
    pub state: JobState,
    /// The stage that runs or ran last; 0 before the first.
    pub stage: u32,
    /// Somebody asked for its end; running tasks are being interrupted.
    pub cancelling: bool,
    /// Result of a finished job.
    pub result: Option<Value>,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
    /// When it was submitted.
    pub created_at: i64,
    /// When it ended.
    pub ended_at: Option<i64>,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobsPage<'a> {
    /// Only those in this state.
    pub state: Option<JobState>,
    /// Only those behind this one; none is from the newest on.
    pub after: Option<&'a JobId>,
    /// At most this many.
    pub limit: u32,
}

/// A page of a job's tasks, by stage and position.
#[derive(Debug, Clone, Copy)]
pub struct TasksPage<'a> {
    /// The job.
    pub job: &'a JobId,
    /// Only those in this state.
    pub state: Option<TaskState>,
    /// Only those behind this one; none is from the first on.
    pub after: Option<&'a TaskId>,
    /// At most this many.
    pub limit: u32,
}

/// A stage that was planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Stage {
    /// From 1.
    pub number: u32,
    /// Name for people.
    pub name: String,
    /// Tasks.
    pub total: u32,
    /// Tasks that have not ended.
    pub remaining: u32,
    /// Tasks that failed.
    pub failed: u32,
    /// When it was planned.
    pub created_at: i64,
    /// When its last task ended.
    pub ended_at: Option<i64>,
}

/// A task to create.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Identity.
    pub task_id: TaskId,
    /// Logical unit.
    pub unit: String,
    /// Its type.
    pub task_type: String,
    /// Normalised parameters.
    pub parameters: Value,
    /// Queue of its message.
    pub queue: String,
    /// Why that queue.
    pub route_reason: String,
    /// Retries after the first attempt.
    pub max_retries: u32,
    /// Longest time of one attempt.
    pub timeout_seconds: u32,
}

/// A stage to start.
#[derive(Debug, Clone)]
pub struct StagePlan {
    /// From 1.
    pub number: u32,
    /// Name for people.
    pub name: String,
    /// Its tasks, in order; none completes the stage at once.
    pub tasks: Vec<NewTask>,
    /// Queue of `stage_complete` messages, for a stage without tasks.
    pub jobs_queue: String,
    /// `APP_NAME`, for the message.
    pub app_name: String,
}

/// A task.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Task {
    /// Identity.
    pub task_id: TaskId,
    /// Its job.
    pub job_id: JobId,
    /// The job's type.
    pub job_type: String,
    /// From 1.
    pub stage: u32,
    /// Position in the plan, from 0.
    pub position: u32,
    /// Logical unit.
    pub unit: String,
    /// Its type.
    pub task_type: String,
    /// Normalised parameters.
    pub parameters: Value,
    /// Queue of its message.
    pub queue: String,
    /// Why that queue.
    pub route_reason: String,
    /// Retries after the first attempt.
    pub max_retries: u32,
    /// Longest time of one attempt.
    pub timeout_seconds: u32,
    /// Where it is.
    pub state: TaskState,
    /// Attempts so far.
    pub attempt: u32,
    /// Fencing token: every write of an attempt carries it.
    pub lease_epoch: i64,
    /// Until when the lease holds.
    pub lease_until: i64,
    /// Who holds or held it.
    pub worker: Option<String>,
    /// Not before this time.
    pub not_before: i64,
    /// Digest of the plugin of the last attempt.
    pub plugin_digest: Option<String>,
    /// Somebody asked for its end.
    pub cancelling: bool,
    /// 0 to 1.
    pub progress: f64,
    /// One line.
    pub progress_message: Option<String>,
    /// Result of a completed task.
    pub result: Option<Value>,
    /// Why the last attempt failed.
    pub error: Option<ErrorInfo>,
    /// When it was created.
    pub created_at: i64,
    /// When its first attempt began.
    pub started_at: Option<i64>,
    /// When it ended.
    pub ended_at: Option<i64>,
}

/// Who claims and for how long.
#[derive(Debug, Clone, Copy)]
pub struct ClaimRequest<'a> {
    /// Name of the worker.
    pub worker: &'a str,
    /// Length of the lease.
    pub lease_ms: i64,
    /// Digest of the plugin that will run.
    pub plugin_digest: &'a str,
}

/// Answer to a claim.
#[derive(Debug)]
pub enum Claim {
    /// The lease is held; the row carries its epoch.
    Claimed(Box<Task>),
    /// Somebody else holds the lease for this many milliseconds.
    Busy(i64),
    /// A retry waits for this many milliseconds.
    NotDue(i64),
    /// The task, or its job, is over.
    Over,
    /// There is no such task.
    Unknown,
}

/// How an attempt ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// With a result.
    Completed(Value),
    /// For good.
    Failed(ErrorInfo),
    /// Another attempt follows after this many milliseconds.
    Retry {
        /// Why it failed.
        error: ErrorInfo,
        /// Delay.
        delay_ms: i64,
    },
    /// It was not finished: the attempt does not count.
    GiveBack(String),
    /// It cannot be done now: another attempt follows, and this one does not count.
    Deferred {
        /// What it waits for.
        reason: String,
        /// Delay.
        delay_ms: i64,
    },
    /// It, or its job, was cancelled.
    Cancelled,
}

/// Whether a write of an attempt was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fenced {
    /// The lease was held.
    Accepted,
    /// The lease was lost: nothing was changed.
    Stale,
}

/// Answer to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease holds.
    Held,
    /// The lease holds, and the task or its job is being cancelled: stop the work and say so.
    Cancelling,
    /// The lease was lost.
    Stale,
}

/// A finished operation.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    /// Position in the handler, from 0.
    pub sequence: u32,
    /// Name, such as `raster.create-cog`.
    pub operation: String,
    /// SHA-256 of the request.
    pub request_hash: String,
    /// The answer, success or failure.
    pub outcome: Value,
    /// How long it took.
    pub duration_ms: i64,
}

/// A message to send.
#[derive(Debug, Clone)]
pub struct OutboxRow {
    /// Identity of the row.
    pub id: i64,
    /// Where to.
    pub queue: String,
    /// JSON.
    pub body: String,
    /// Deliver after this many milliseconds, by the database's clock.
    pub delay_ms: i64,
}

/// One line of a timeline.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Event {
    /// When.
    pub at: i64,
    /// Which task, where it is about one.
    pub task_id: Option<TaskId>,
    /// What, such as `task_claimed`.
    pub kind: String,
    /// Which attempt.
    pub attempt: Option<u32>,
    /// Who.
    pub worker: Option<String>,
    /// Why, or with what.
    pub detail: Option<String>,
}

/// How one task of a stage ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitResult {
    /// Logical unit.
    pub unit: String,
    /// Final state.
    pub state: TaskState,
    /// JSON text of the result.
    pub output: Option<String>,
    /// Why it failed.
    pub failure: Option<ErrorInfo>,
}

/// What a pass of the sweeper did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Hints sent again for tasks.
    pub tasks: u64,
    /// Hints sent again for jobs and stages.
    pub jobs: u64,
    /// Tasks of cancelled jobs that were ended because nobody runs them.
    pub cancelled: u64,
}

/// Which tasks of a job that is over are to run again.
#[derive(Debug, Clone)]
pub struct Rerun {
    /// The job.
    pub job: JobId,
    /// One task that failed or was cancelled; none is all of them.
    pub task: Option<TaskId>,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Beat<'a> {
    /// Its name.
    pub worker: &'a str,
    /// `APP_NAME`.
    pub app_name: &'a str,
    /// `APP_MODE`.
    pub mode: &'a str,
    /// Tasks that it can run at a time.
    pub slots: u32,
    /// Tasks that it runs.
    pub busy: u32,
}

/// A worker as others see it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Worker {
    /// Its name.
    pub worker: String,
    /// `APP_NAME`.
    pub app_name: String,
    /// `APP_MODE`.
    pub mode: String,
    /// Tasks that it can run at a time.
    pub slots: u32,
    /// Tasks that it ran when it was last seen.
    pub busy: u32,
    /// Tasks whose lease it holds.
    pub tasks: u32,
    /// Since when.
    pub started_at: i64,
    /// When it was last seen.
    pub seen_at: i64,
    /// How long ago that is, in milliseconds.
    pub silent_ms: i64,
}
