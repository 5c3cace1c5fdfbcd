//! SQLite, the embedded default: one file, shared by a server and any number of command lines.

mod attempts;
mod cancel;
mod database;
mod jobs;
mod outbox;
mod rows;

use async_trait::async_trait;
use geoworker_machine::{ErrorInfo, JobId, JobState, TaskId};
use serde_json::Value;

pub use database::SqliteDatabase;

use crate::error::StoreError;
use crate::records::{
    Claim, ClaimRequest, Event, Fenced, Job, JournalEntry, NewJob, OutboxRow, Outcome, Renewal, Stage,
    StagePlan, Submitted, Swept, Task, UnitResult,
};
use crate::store::Store;

type Result<T> = std::result::Result<T, StoreError>;

/// [`Store`] on a SQLite file. Clones share the file.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    db: SqliteDatabase,
}

impl SqliteStore {
    /// A store on an open database.
    #[must_use]
    pub fn new(db: SqliteDatabase) -> Self {
        Self { db }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn submit(&self, job: NewJob) -> Result<Submitted> {
        let mut tx = self.db.write().await?;
        let submitted = jobs::submit(&mut tx, &job).await?;
        tx.commit().await?;
        Ok(submitted)
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>> {
        Ok(self.jobs(id.as_str(), 1).await?.pop())
    }

    async fn jobs(&self, prefix: &str, limit: u32) -> Result<Vec<Job>> {
        jobs::list(&mut *self.db.read().await?, prefix, limit).await
    }

    async fn stages(&self, id: &JobId) -> Result<Vec<Stage>> {
        jobs::stages(&mut *self.db.read().await?, id).await
    }

    async fn tasks(&self, id: &JobId, limit: u32) -> Result<Vec<Task>> {
        jobs::tasks(&mut *self.db.read().await?, id, limit).await
    }

    async fn task(&self, id: &TaskId) -> Result<Option<Task>> {
        attempts::task(&mut *self.db.read().await?, id).await
    }

    async fn events(&self, id: &JobId) -> Result<Vec<Event>> {
        jobs::events(&mut *self.db.read().await?, id).await
    }

    async fn plan_stage(&self, id: &JobId, plan: StagePlan) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let planned = jobs::plan_stage(&mut tx, id, &plan).await?;
        tx.commit().await?;
        Ok(planned)
    }

    async fn end_job(
        &self,
        id: &JobId,
        stage: u32,
        state: JobState,
        result: Option<Value>,
        error: Option<ErrorInfo>,
    ) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let ended = jobs::end(&mut tx, id, stage, state, result.as_ref(), error.as_ref()).await?;
        tx.commit().await?;
        Ok(ended)
    }

    async fn cancel_job(&self, id: &JobId, jobs_queue: &str, app_name: &str) -> Result<bool> {
        let mut tx = self.db.write().await?;
        let cancelled = cancel::cancel(&mut tx, id, jobs_queue, app_name).await?;
        tx.commit().await?;
        Ok(cancelled)
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
        let mut tx = self.db.write().await?;
        let claim = attempts::claim(&mut tx, id, request).await?;
        tx.commit().await?;
        Ok(claim)
    }

    async fn renew(
        &self,
        id: &TaskId,
        epoch: i64,
        lease_ms: i64,
        progress: Option<(f64, String)>,
    ) -> Result<Renewal> {
        let mut tx = self.db.write().await?;
        let renewal = attempts::renew(&mut tx, id, epoch, lease_ms, progress).await?;
        tx.commit().await?;
        Ok(renewal)
    }

    async fn finish(
        &self,
        id: &TaskId,
        epoch: i64,
        outcome: Outcome,
        jobs_queue: &str,
        app_name: &str,
    ) -> Result<Fenced> {
        let mut tx = self.db.write().await?;
        let fenced = attempts::finish(&mut tx, id, epoch, &outcome, jobs_queue, app_name).await?;
        tx.commit().await?;
        Ok(fenced)
    }

    async fn journal(&self, id: &TaskId) -> Result<Vec<JournalEntry>> {
        attempts::journal(&mut *self.db.read().await?, id).await
    }

    async fn record(&self, id: &TaskId, epoch: i64, entry: JournalEntry) -> Result<Fenced> {
        let mut tx = self.db.write().await?;
        let fenced = attempts::record(&mut tx, id, epoch, &entry).await?;
        tx.commit().await?;
        Ok(fenced)
    }

    async fn outbox(&self, limit: u32) -> Result<Vec<OutboxRow>> {
        outbox::list(&mut *self.db.read().await?, limit).await
    }

    async fn outbox_sent(&self, ids: &[i64]) -> Result<()> {
        let mut tx = self.db.write().await?;
        outbox::sent(&mut tx, ids).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn sweep(&self, quiet_ms: i64, jobs_queue: &str, app_name: &str) -> Result<Swept> {
        let mut tx = self.db.write().await?;
        let swept = outbox::sweep(&mut tx, quiet_ms, jobs_queue, app_name).await?;
        tx.commit().await?;
        Ok(swept)
    }

    async fn release_all(&self) -> Result<u64> {
        let mut tx = self.db.write().await?;
        let released = outbox::release_all(&mut tx).await?;
        tx.commit().await?;
        Ok(released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_conforms() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = SqliteDatabase::open(&folder.path().join("t.db")).await.expect("opens");
        crate::conformance::run(&SqliteStore::new(db.clone()), &crate::conformance::SqliteClock(db)).await;
    }

    /// Two processes may share one file: two databases opened on it are as good as two processes.
    #[tokio::test]
    async fn two_openers_share_one_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.db");
        let (one, two) = tokio::join!(SqliteDatabase::open(&path), SqliteDatabase::open(&path));
        let one = SqliteStore::new(one.expect("opens"));
        let two = SqliteStore::new(two.expect("opens"));
        crate::conformance::two_claimants(&one, &two).await;
    }
}
