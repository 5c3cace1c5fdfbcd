//! The contract of durable state.

use std::collections::BTreeMap;

use async_trait::async_trait;
use geoworker_machine::{ErrorInfo, JobId, JobState, TaskId};
use serde_json::Value;

use crate::error::StoreError;
use crate::records::{
    Beat, Claim, ClaimRequest, Event, Fenced, Job, JobsPage, JournalEntry, NewJob, OutboxRow, Outcome,
    Renewal, Rerun, Stage, StagePlan, Submitted, Swept, Task, TasksPage, UnitResult, Worker,
};

type Result<T> = std::result::Result<T, StoreError>;

/// The truth. Every method is one transaction; a message about a row is written with the row (outbox).
#[async_trait]
pub trait Store: Send + Sync {
    /// Accepts a job, or returns the run with the same type and parameters.
    async fn submit(&self, job: NewJob) -> Result<Submitted>;
    /// Makes a new, linked run of a job that is over, in which failed tasks of its last stage run again and everything
    /// that succeeded is carried over; `job` is the request. None where the job is not over or none of the tasks failed.
    async fn rerun(&self, job: NewJob, asked: Rerun) -> Result<Option<Submitted>>;
    /// A job.
    async fn job(&self, id: &JobId) -> Result<Option<Job>>;
    /// Jobs whose id begins with `prefix`, newest first.
    async fn jobs(&self, prefix: &str, limit: u32) -> Result<Vec<Job>>;
    /// A page of all jobs, newest first.
    async fn jobs_page(&self, page: JobsPage<'_>) -> Result<Vec<Job>>;
    /// Planned stages of a job, in order.
    async fn stages(&self, id: &JobId) -> Result<Vec<Stage>>;
    /// Tasks of a job, by stage and position.
    async fn tasks(&self, id: &JobId, limit: u32) -> Result<Vec<Task>>;
    /// A page of a job's tasks, by stage and position.
    async fn tasks_page(&self, page: TasksPage<'_>) -> Result<Vec<Task>>;
    /// A task.
    async fn task(&self, id: &TaskId) -> Result<Option<Task>>;
    /// Tasks whose id begins with `prefix`.
    async fn tasks_by_prefix(&self, prefix: &str, limit: u32) -> Result<Vec<Task>>;
    /// Timeline of a job, oldest first.
    async fn events(&self, id: &JobId) -> Result<Vec<Event>>;

    /// Starts a stage where the job stands at the one before it; false where it does not (a duplicate or late
    /// signal). A stage without tasks signals its completion at once.
    async fn plan_stage(&self, id: &JobId, plan: StagePlan) -> Result<bool>;
    /// Ends a job that stands at `stage`; false where it does not or is over.
    async fn end_job(
        &self,
        id: &JobId,
        stage: u32,
        state: JobState,
        result: Option<Value>,
        error: Option<ErrorInfo>,
    ) -> Result<bool>;
    /// Asks for a job's end: waiting tasks end at once, running ones when their workers see it. False where the
    /// job is over. `jobs_queue` takes the message that lets the job end.
    async fn cancel_job(&self, id: &JobId, jobs_queue: &str, app_name: &str) -> Result<bool>;
    /// Asks for the end of one task, at once where nobody runs it. Its stage counts it as failed. False where it is over.
    async fn cancel_task(&self, id: &TaskId, jobs_queue: &str, app_name: &str) -> Result<bool>;
    /// Tasks of a stage.
    async fn stage_size(&self, id: &JobId, stage: u32) -> Result<u32>;
    /// How tasks of a stage ended, in planned order.
    async fn stage_results(&self, id: &JobId, stage: u32, offset: u32, limit: u32)
    -> Result<Vec<UnitResult>>;

    /// Takes the lease of a task that is due.
    async fn claim(&self, id: &TaskId, request: ClaimRequest<'_>) -> Result<Claim>;
    /// Extends the lease and reports progress.
    async fn renew(
        &self,
        id: &TaskId,
        epoch: i64,
        lease_ms: i64,
        progress: Option<(f64, String)>,
    ) -> Result<Renewal>;
    /// Ends an attempt. The one that ends the last task of a stage signals `stage_complete` on `jobs_queue`.
    async fn finish(
        &self,
        id: &TaskId,
        epoch: i64,
        outcome: Outcome,
        jobs_queue: &str,
        app_name: &str,
    ) -> Result<Fenced>;
    /// Finished operations of a task, by sequence. `binding` is what they depend on beside the request (plugin, inputs):
    /// entries that were recorded under another one are dropped.
    async fn journal(&self, id: &TaskId, epoch: i64, binding: &str) -> Result<Vec<JournalEntry>>;
    /// Records a finished operation, replacing what stood at and after its sequence.
    async fn record(&self, id: &TaskId, epoch: i64, binding: &str, entry: JournalEntry) -> Result<Fenced>;

    /// Takes messages to send, oldest first. No other relay sees them for `hold_ms`.
    async fn take_outbox(&self, limit: u32, hold_ms: i64) -> Result<Vec<OutboxRow>>;
    /// Forgets messages that were sent.
    async fn outbox_sent(&self, ids: &[i64]) -> Result<()>;
    /// Writes messages again for work that is due and was not hinted at for `quiet_ms`. `ahead` tells how many messages a
    /// queue holds, where that is known: tasks that wait behind as many messages as there are tasks are left alone.
    async fn sweep(
        &self,
        quiet_ms: i64,
        jobs_queue: &str,
        app_name: &str,
        ahead: &BTreeMap<String, u64>,
    ) -> Result<Swept>;
    /// Gives back what other workers of an embedded data directory held. Only for its exclusive owner, at start:
    /// whoever held a lease is dead.
    async fn release_all(&self) -> Result<u64>;

    /// Takes or keeps the named lease of a leader; false where somebody else holds it.
    async fn lead(&self, name: &str, holder: &str, hold_ms: i64) -> Result<bool>;
    /// A worker says that it is there.
    async fn beat(&self, beat: Beat<'_>) -> Result<()>;
    /// A worker ends in order: its row and its leader's leases go.
    async fn leave(&self, worker: &str) -> Result<()>;
    /// Workers, those seen last first.
    async fn workers(&self) -> Result<Vec<Worker>>;
}
