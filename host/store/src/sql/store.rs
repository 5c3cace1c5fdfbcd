//! [`Store`] on the statements of this folder.

use std::collections::BTreeMap;

use async_trait::async_trait;
use geoworker_machine::{ErrorInfo, JobId, JobState, TaskId};
use serde_json::Value;

use super::super::dialect::Database;
use super::attempts::{Asked, Ending};
use super::{attempts, cancel, decisions, jobs, outbox, rerun, sweep, workers};
use crate::coalesce::Coalescer;
use crate::decisions::{Decision, DecisionLog, DecisionsPage, NewDecision, Retention};
use crate::error::StoreError;
use crate::records::{
    Beat, Claim, ClaimRequest, Event, Fenced, Job, JobsPage, JournalEntry, NewJob, OutboxRow, Outcome,
    Renewal, Rerun, Stage, StagePlan, Submitted, Swept, Task, TasksPage, UnitResult, Worker,
};
use crate::store::Store;

type Result<T> = std::result::Result<T, StoreError>;

/// Tries of a transaction that another one got in the way of.
const CONFLICT_TRIES: u32 = 5;

/// [`Store`] in a database. Clones of the database share it.
#[derive(Debug)]
pub struct DatabaseStore {
    db: Database,
    claims: Coalescer<Asked, Claim>,
    endings: Coalescer<Ending, Fenced>,
}

/// Runs `$work` in one transaction, again where it met another one.
macro_rules! transaction {
    ($store:expr, |$tx:ident| $work:expr) => {{
        let mut tries = 0;
        loop {
            let outcome: Result<_> = async {
                let mut $tx = $store.db.write().await?;
                let answer = $work.await?;
                $tx.commit().await?;
                Ok(answer)
            }
            .await;
            match outcome {
                Err(StoreError::Conflict(_)) if tries < CONFLICT_TRIES => tries += 1,
                other => break other,
            }
        }
    }};
}

impl DatabaseStore {
    /// A store on an open database.
    #[must_use]
    pub fn new(db: Database) -> Self {
        Self { db, claims: Coalescer::default(), endings: Coalescer::default() }
    }
}

#[async_trait]
impl Store for DatabaseStore {
    async fn submit(&self, job: NewJob) -> Result<Submitted> {
        transaction!(self, |tx| jobs::submit(&mut tx, &job))
    }

    async fn rerun(&self, job: NewJob, asked: Rerun) -> Result<Option<Submitted>> {
        transaction!(self, |tx| rerun::rerun(&mut tx, &job, &asked))
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>> {
        jobs::job(&mut *self.db.read().await?, id).await
    }

    async fn jobs(&self, prefix: &str, limit: u32) -> Result<Vec<Job>> {
        jobs::list(&mut *self.db.read().await?, prefix, limit).await
    }

    async fn jobs_page(&self, page: JobsPage<'_>) -> Result<Vec<Job>> {
        jobs::page(&mut *self.db.read().await?, &page).await
    }

    async fn stages(&self, id: &JobId) -> Result<Vec<Stage>> {
        jobs::stages(&mut *self.db.read().await?, id).await
    }

    async fn tasks(&self, id: &JobId, limit: u32) -> Result<Vec<Task>> {
        jobs::tasks(&mut *self.db.read().await?, id, limit).await
    }

    async fn tasks_page(&self, page: TasksPage<'_>) -> Result<Vec<Task>> {
        jobs::tasks_page(&mut *self.db.read().await?, &page).await
    }

    async fn task(&self, id: &TaskId) -> Result<Option<Task>> {
        attempts::task(&mut *self.db.read().await?, id).await
    }

    async fn tasks_by_prefix(&self, prefix: &str, limit: u32) -> Result<Vec<Task>> {
        jobs::tasks_by_prefix(&mut *self.db.read().await?, prefix, limit).await
    }

    async fn events(&self, id: &JobId) -> Result<Vec<Event>> {
        jobs::events(&mut *self.db.read().await?, id).await
    }

    async fn plan_stage(&self, id: &JobId, plan: StagePlan) -> Result<bool> {
        transaction!(self, |tx| jobs::plan_stage(&mut tx, id, &plan))
    }

    async fn end_job(
        &self,
        id: &JobId,
        stage: u32,
        state: JobState,
        result: Option<Value>,
        error: Option<ErrorInfo>,
    ) -> Result<bool> {
        transaction!(self, |tx| jobs::end(&mut tx, id, stage, state, result.as_ref(), error.as_ref()))
    }

    async fn cancel_job(&self, id: &JobId, jobs_queue: &str, app_name: &str) -> Result<bool> {
        transaction!(self, |tx| cancel::cancel(&mut tx, id, jobs_queue, app_name))
    }

    async fn cancel_task(&self, id: &TaskId, jobs_queue: &str, app_name: &str) -> Result<bool> {
        transaction!(self, |tx| cancel::cancel_task(&mut tx, id, jobs_queue, app_name))
    }

    async fn stage_size(&self, id: &JobId, stage: u32) -> Result<u32> {
        let stages = self.stages(id).await?;
        Ok(stages.iter().find(|row| row.number == stage).map_or(0, |row| row.total))
    }

    async fn stage_results(
        &self,
        id: &JobId,
        stage: u32,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<UnitResult>> {
        jobs::results(&mut *self.db.read().await?, id, stage, offset, limit).await
    }

    async fn claim(&self, id: &TaskId, request: ClaimRequest<'_>) -> Result<Claim> {
        let asked = Asked {
            id: id.clone(),
            worker: request.worker.to_owned(),
            lease_ms: request.lease_ms,
            digest: request.plugin_digest.to_owned(),
        };
        let batch = async |claims: Vec<Asked>| transaction!(self, |tx| attempts::claim(&mut tx, &claims));
        self.claims.run(asked, batch).await
    }

    async fn renew(
        &self,
        id: &TaskId,
        epoch: i64,
        lease_ms: i64,
        progress: Option<(f64, String)>,
    ) -> Result<Renewal> {
        transaction!(self, |tx| attempts::renew(&mut tx, id, epoch, lease_ms, progress.as_ref()))
    }

    async fn finish(
        &self,
        id: &TaskId,
        epoch: i64,
        outcome: Outcome,
        jobs_queue: &str,
        app_name: &str,
    ) -> Result<Fenced> {
        let ending = Ending {
            id: id.clone(),
            epoch,
            outcome,
            jobs_queue: jobs_queue.to_owned(),
            app_name: app_name.to_owned(),
        };
        let batch = async |endings: Vec<Ending>| transaction!(self, |tx| attempts::finish(&mut tx, &endings));
        self.endings.run(ending, batch).await
    }

    async fn journal(&self, id: &TaskId, epoch: i64, binding: &str) -> Result<Vec<JournalEntry>> {
        transaction!(self, |tx| attempts::journal(&mut tx, id, epoch, binding))
    }

    async fn record(&self, id: &TaskId, epoch: i64, binding: &str, entry: JournalEntry) -> Result<Fenced> {
        transaction!(self, |tx| attempts::record(&mut tx, id, epoch, binding, &entry))
    }

    async fn take_outbox(&self, limit: u32, hold_ms: i64) -> Result<Vec<OutboxRow>> {
        transaction!(self, |tx| outbox::take(&mut tx, limit, hold_ms))
    }

    async fn outbox_sent(&self, ids: &[i64]) -> Result<()> {
        transaction!(self, |tx| outbox::sent(&mut tx, ids))
    }

    async fn sweep(
        &self,
        quiet_ms: i64,
        jobs_queue: &str,
        app_name: &str,
        ahead: &BTreeMap<String, u64>,
    ) -> Result<Swept> {
        transaction!(self, |tx| sweep::sweep(&mut tx, quiet_ms, jobs_queue, app_name, ahead))
    }

    async fn release_all(&self) -> Result<u64> {
        transaction!(self, |tx| sweep::release_all(&mut tx))
    }

    async fn lead(&self, name: &str, holder: &str, hold_ms: i64) -> Result<bool> {
        transaction!(self, |tx| workers::lead(&mut tx, name, holder, hold_ms))
    }

    async fn beat(&self, beat: Beat<'_>) -> Result<()> {
        transaction!(self, |tx| workers::beat(&mut tx, &beat))
    }

    async fn leave(&self, worker: &str) -> Result<()> {
        transaction!(self, |tx| workers::leave(&mut tx, worker))
    }

    async fn workers(&self) -> Result<Vec<Worker>> {
        workers::list(&mut *self.db.read().await?).await
    }
}

#[async_trait]
impl DecisionLog for DatabaseStore {
    async fn record_decisions(&self, batch: &[NewDecision]) -> Result<()> {
        transaction!(self, |tx| decisions::record(&mut tx, batch))
    }

    async fn decisions(&self, page: DecisionsPage<'_>) -> Result<Vec<Decision>> {
        decisions::page(&mut *self.db.read().await?, &page).await
    }

    async fn latest_handle(&self, task: &TaskId) -> Result<Option<Decision>> {
        decisions::latest_handle(&mut *self.db.read().await?, task).await
    }

    async fn prune_decisions(&self, retention: Retention, limit: u32) -> Result<u64> {
        transaction!(self, |tx| decisions::prune(&mut tx, retention, limit))
    }

    async fn documents(&self) -> Result<u64> {
        decisions::documents(&mut *self.db.read().await?).await
    }
}
