//! Attempts: claim, renew, finish, journal. Every write carries the lease epoch.

use std::collections::{BTreeMap, HashMap};

use geoworker_machine::state::TaskEvent;
use geoworker_machine::{ErrorInfo, TaskId, TaskState};
use serde::Serialize;
use sqlx::Row as _;

use super::super::dialect::Connection;
use super::outbox;
use super::rows::{self, NewEvent, list, sql};
use crate::error::StoreError;
use crate::records::{Claim, Fenced, JournalEntry, Outcome, Renewal, Task};

type Result<T> = std::result::Result<T, StoreError>;

pub(super) async fn task(db: &mut Connection, id: &TaskId) -> Result<Option<Task>> {
    let row =
        sqlx::query("SELECT * FROM tasks WHERE task_id = $1").bind(id.as_str()).fetch_optional(db).await?;
    row.as_ref().map(rows::task).transpose()
}

/// One claim of a batch.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Asked {
    pub(super) id: TaskId,
    pub(super) worker: String,
    pub(super) lease_ms: i64,
    pub(super) digest: String,
}

/// Takes the leases of all that are due; answers in the order of the claims.
pub(super) async fn claim(db: &mut Connection, claims: &[Asked]) -> Result<Vec<Claim>> {
    let take = sql("UPDATE tasks SET state = 'processing', attempt = attempt + 1,
             lease_epoch = lease_epoch + 1, lease_until = {now} + asked_lease, worker = asked_worker,
             plugin_digest = asked_digest, progress = 0, progress_message = NULL, hint_at = {now},
             started_at = coalesce(started_at, {now})
         FROM (SELECT value->>'id' AS asked_id, value->>'worker' AS asked_worker,
                 CAST(value->>'lease_ms' AS BIGINT) AS asked_lease, value->>'digest' AS asked_digest
             FROM {each:$1}) AS asked
         WHERE task_id {among} SELECT value->>'id' FROM {each:$1} {end}
           AND task_id = asked_id AND state IN ({from:Claim}) AND not_before <= {now}
           AND (state <> 'processing' OR lease_until <= {now}) AND NOT cancelling
           AND (SELECT jobs.ended_at IS NULL AND NOT jobs.cancelling FROM jobs
                 WHERE jobs.job_id = tasks.job_id)
         RETURNING *");
    let taken = sqlx::query(take).bind(list(&claims)?).fetch_all(&mut *db).await?;
    let tasks = taken.iter().map(rows::task).collect::<Result<Vec<Task>>>()?;
    let lines: Vec<NewEvent<'_>> =
        tasks.iter().map(|task| NewEvent::of_task(task, "task_claimed", None)).collect();
    rows::events(db, &lines).await?;
    let mut held: HashMap<TaskId, Task> =
        tasks.into_iter().map(|task| (task.task_id.clone(), task)).collect();
    let mut answers = Vec::with_capacity(claims.len());
    for asked in claims {
        // Two hints for one task may meet in a batch: the second finds the lease taken.
        answers.push(match held.remove(&asked.id) {
            Some(task) => Claim::Claimed(Box::new(task)),
            None => why_not(db, &asked.id).await?,
        });
    }
    Ok(answers)
}

async fn why_not(db: &mut Connection, id: &TaskId) -> Result<Claim> {
    let select = sql("SELECT state, {greatest}(lease_until - {now}, 0) AS held,
             {greatest}(not_before - {now}, 0) AS wait,
             (SELECT jobs.ended_at IS NOT NULL OR jobs.cancelling FROM jobs
                 WHERE jobs.job_id = tasks.job_id) OR cancelling AS over
         FROM tasks WHERE task_id = $1");
    let Some(row) = sqlx::query(select).bind(id.as_str()).fetch_optional(db).await? else {
        return Ok(Claim::Unknown);
    };
    let state: String = row.try_get("state")?;
    let over: bool = row.try_get("over")?;
    if over || TaskState::from_name(&state).is_none_or(TaskState::is_final) {
        return Ok(Claim::Over);
    }
    if state == TaskState::Processing.as_str() {
        return Ok(Claim::Busy(row.try_get("held")?));
    }
    Ok(Claim::NotDue(row.try_get("wait")?))
}

pub(super) async fn renew(
    db: &mut Connection,
    id: &TaskId,
    epoch: i64,
    lease_ms: i64,
    progress: Option<&(f64, String)>,
) -> Result<Renewal> {
    let extend = sql("UPDATE tasks SET lease_until = {now} + $3, hint_at = {now},
             progress = coalesce($4, progress), progress_message = coalesce($5, progress_message)
         WHERE task_id = $1 AND lease_epoch = $2 AND state = 'processing'
         RETURNING cancelling OR (SELECT jobs.cancelling FROM jobs WHERE jobs.job_id = tasks.job_id)");
    let query = sqlx::query(extend)
        .bind(id.as_str())
        .bind(epoch)
        .bind(lease_ms)
        .bind(progress.map(|(fraction, _)| *fraction))
        .bind(progress.map(|(_, message)| message.as_str()));
    let Some(row) = query.fetch_optional(db).await? else { return Ok(Renewal::Stale) };
    let cancelling: bool = row.try_get(0)?;
    Ok(if cancelling { Renewal::Cancelling } else { Renewal::Held })
}

/// The end of one attempt, in a batch.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    pub(super) id: TaskId,
    pub(super) epoch: i64,
    pub(super) outcome: Outcome,
    pub(super) jobs_queue: String,
    pub(super) app_name: String,
}

/// What the end of an attempt writes into the task's row.
#[derive(Debug, Serialize)]
struct Change<'a> {
    id: &'a str,
    epoch: i64,
    event: String,
    state: &'static str,
    /// Attempts that do not count.
    uncounted: u32,
    delay_ms: i64,
    result: Option<String>,
    error: Option<String>,
    #[serde(skip)]
    kind: &'static str,
    #[serde(skip)]
    detail: Option<String>,
}

impl<'a> Change<'a> {
    fn of(ending: &'a Ending) -> Result<Self> {
        let (event, kind) = match &ending.outcome {
            Outcome::Completed(_) => (TaskEvent::Complete, "task_completed"),
            Outcome::Failed(_) => (TaskEvent::Fail, "task_failed"),
            Outcome::Cancelled => (TaskEvent::Cancel, "task_cancelled"),
            Outcome::Retry { .. } => (TaskEvent::Retry, "task_retry"),
            Outcome::GiveBack(_) => (TaskEvent::GiveBack, "task_given_back"),
            Outcome::Deferred { .. } => (TaskEvent::Defer, "task_deferred"),
        };
        let state = TaskState::Processing
            .after(event)
            .ok_or_else(|| StoreError::Corrupt(format!("{event:?} does not end an attempt")))?;
        let mut change = Self {
            id: ending.id.as_str(),
            epoch: ending.epoch,
            event: format!("{event:?}"),
            state: state.as_str(),
            uncounted: 0,
            delay_ms: 0,
            result: None,
            error: None,
            kind,
            detail: None,
        };
        match &ending.outcome {
            Outcome::Completed(result) => change.result = Some(result.to_string()),
            Outcome::Cancelled => {}
            Outcome::Failed(error) => change.set_error(error)?,
            Outcome::Retry { error, delay_ms } => {
                change.set_error(error)?;
                change.delay_ms = *delay_ms;
                change.detail = Some(format!("{error}; again in {delay_ms} ms"));
            }
            Outcome::GiveBack(reason) => {
                change.uncounted = 1;
                change.detail = Some(reason.clone());
            }
            Outcome::Deferred { reason, delay_ms } => {
                change.uncounted = 1;
                change.delay_ms = *delay_ms;
                change.detail = Some(format!("{reason}; again in {delay_ms} ms"));
            }
        }
        Ok(change)
    }

    fn set_error(&mut self, error: &ErrorInfo) -> Result<()> {
        self.error = Some(serde_json::to_string(error)?);
        self.detail = Some(error.to_string());
        Ok(())
    }
}

/// Ends attempts; answers in the order of the endings. There is no other way in which a running task ends: last task
/// turns out the lights.
pub(super) async fn finish(db: &mut Connection, endings: &[Ending]) -> Result<Vec<Fenced>> {
    let update = sql("UPDATE tasks SET state = ending_state, attempt = attempt - ending_uncounted,
             result = ending_result, error = coalesce(ending_error, error),
             not_before = CASE WHEN ending_delay > 0 THEN {now} + ending_delay ELSE not_before END,
             ended_at = CASE WHEN ending_state IN ('completed', 'failed', 'cancelled') THEN {now} END,
             progress = CASE WHEN ending_state = 'completed' THEN 1 ELSE progress END,
             lease_until = 0, hint_at = {now}
         FROM (SELECT value->>'id' AS ending_id, CAST(value->>'epoch' AS BIGINT) AS ending_epoch,
                 value->>'event' AS ending_event, value->>'state' AS ending_state,
                 CAST(value->>'uncounted' AS BIGINT) AS ending_uncounted,
                 CAST(value->>'delay_ms' AS BIGINT) AS ending_delay,
                 value->>'result' AS ending_result, value->>'error' AS ending_error
             FROM {each:$1}) AS ending
         WHERE task_id {among} SELECT value->>'id' FROM {each:$1} {end}
           AND task_id = ending_id AND lease_epoch = ending_epoch
           AND CASE ending_event
                 WHEN 'Complete' THEN state IN ({from:Complete})
                 WHEN 'Fail' THEN state IN ({from:Fail})
                 WHEN 'Cancel' THEN state = 'processing' AND state IN ({from:Cancel})
                 WHEN 'Retry' THEN state IN ({from:Retry})
                 WHEN 'GiveBack' THEN state IN ({from:GiveBack})
                 WHEN 'Defer' THEN state IN ({from:Defer})
                 ELSE FALSE END
         RETURNING *");
    let changes = endings.iter().map(Change::of).collect::<Result<Vec<_>>>()?;
    let changed = sqlx::query(update).bind(list(&changes)?).fetch_all(&mut *db).await?;
    let tasks = changed.iter().map(rows::task).collect::<Result<Vec<Task>>>()?;
    let by_id: HashMap<&str, &Task> = tasks.iter().map(|task| (task.task_id.as_str(), task)).collect();
    let accepted: Vec<(&Task, &Change<'_>, &Ending)> = changes
        .iter()
        .zip(endings)
        .filter_map(|(change, ending)| Some((*by_id.get(change.id)?, change, ending)))
        .collect();
    let lines: Vec<NewEvent<'_>> = accepted
        .iter()
        .map(|(task, change, _)| NewEvent::of_task(task, change.kind, change.detail.as_deref()))
        .collect();
    rows::events(db, &lines).await?;
    forget_journals(db, &tasks).await?;
    let waiting: Vec<&Task> = tasks.iter().filter(|task| task.state == TaskState::PendingRetry).collect();
    outbox::put_tasks(db, &waiting, None).await?;
    count_down(db, &accepted).await?;
    Ok(endings
        .iter()
        .map(|ending| {
            let accepted = by_id.get(ending.id.as_str()).is_some_and(|task| task.lease_epoch == ending.epoch);
            if accepted { Fenced::Accepted } else { Fenced::Stale }
        })
        .collect())
}

pub(super) async fn forget_journals(db: &mut Connection, tasks: &[Task]) -> Result<()> {
    let over: Vec<&str> =
        tasks.iter().filter(|task| task.state.is_final()).map(|task| task.task_id.as_str()).collect();
    if over.is_empty() {
        return Ok(());
    }
    let forget = sql("DELETE FROM journal WHERE task_id {among} SELECT value->>'id' FROM {each:$1} {end}");
    let ids: Vec<_> = over.into_iter().map(|id| serde_json::json!({"id": id})).collect();
    sqlx::query(forget).bind(list(&ids)?).execute(db).await?;
    Ok(())
}

/// Counts the stages down and signals those that are over. In the order of their keys, and last in the transaction:
/// every worker of a stage meets at this row.
async fn count_down(db: &mut Connection, accepted: &[(&Task, &Change<'_>, &Ending)]) -> Result<()> {
    let mut stages: BTreeMap<(&str, u32), (i64, i64, &Ending)> = BTreeMap::new();
    for (task, _, ending) in accepted.iter().filter(|(task, ..)| task.state.is_final()) {
        let entry = stages.entry((task.job_id.as_str(), task.stage)).or_insert((0, 0, ending));
        entry.0 += 1;
        // A task that was cancelled by itself did not do its part: the stage's policy decides.
        entry.1 += i64::from(task.state == TaskState::Failed || task.cancelling);
    }
    for ((job, stage), (ended, failed, ending)) in stages {
        let left = subtract(db, job, stage, ended, failed).await?;
        if left == 0 {
            let row =
                sqlx::query("SELECT * FROM jobs WHERE job_id = $1").bind(job).fetch_one(&mut *db).await?;
            let job = rows::job(&row)?;
            outbox::put_stage_complete(db, &ending.jobs_queue, &ending.app_name, &job, stage).await?;
        }
    }
    Ok(())
}

/// Takes ended tasks off a stage; answers how many are left.
pub(super) async fn subtract(
    db: &mut Connection,
    job: &str,
    stage: u32,
    ended: i64,
    failed: i64,
) -> Result<i64> {
    let count = sql("UPDATE stages SET remaining = remaining - $3, failed = failed + $4,
             ended_at = CASE WHEN remaining = $3 THEN {now} ELSE ended_at END
         WHERE job_id = $1 AND number = $2 RETURNING remaining");
    let query = sqlx::query(count).bind(job).bind(i64::from(stage)).bind(ended).bind(failed);
    Ok(query.fetch_one(db).await?.try_get(0)?)
}

/// Entries that fit `binding`, for the holder of the lease; others are of a changed plugin or input and are dropped.
pub(super) async fn journal(
    db: &mut Connection,
    id: &TaskId,
    epoch: i64,
    binding: &str,
) -> Result<Vec<JournalEntry>> {
    let discard = "DELETE FROM journal WHERE task_id = $1 AND binding <> $3
         AND EXISTS (SELECT 1 FROM tasks WHERE task_id = $1 AND lease_epoch = $2 AND state = 'processing')";
    sqlx::query(discard).bind(id.as_str()).bind(epoch).bind(binding).execute(&mut *db).await?;
    let select = "SELECT * FROM journal WHERE task_id = $1 AND binding = $2 ORDER BY sequence";
    let found = sqlx::query(select).bind(id.as_str()).bind(binding).fetch_all(db).await?;
    found
        .iter()
        .map(|row| {
            Ok(JournalEntry {
                sequence: rows::number(row, "sequence")?,
                operation: row.try_get("operation")?,
                request_hash: row.try_get("request_hash")?,
                outcome: rows::json(row.try_get("outcome")?)?,
                duration_ms: row.try_get("duration_ms")?,
            })
        })
        .collect()
}

pub(super) async fn record(
    db: &mut Connection,
    id: &TaskId,
    epoch: i64,
    binding: &str,
    entry: &JournalEntry,
) -> Result<Fenced> {
    // Locks the row where the database can: a claim in between waits until the entry is written.
    let holder =
        sql("SELECT 1 FROM tasks WHERE task_id = $1 AND lease_epoch = $2 AND state = 'processing' {share}");
    if sqlx::query(holder).bind(id.as_str()).bind(epoch).fetch_optional(&mut *db).await?.is_none() {
        return Ok(Fenced::Stale);
    }
    let clear = "DELETE FROM journal WHERE task_id = $1 AND sequence >= $2";
    sqlx::query(clear).bind(id.as_str()).bind(i64::from(entry.sequence)).execute(&mut *db).await?;
    let insert = sql("INSERT INTO journal
             (task_id, sequence, operation, request_hash, binding, outcome, duration_ms, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, {now})");
    sqlx::query(insert)
        .bind(id.as_str())
        .bind(i64::from(entry.sequence))
        .bind(&entry.operation)
        .bind(&entry.request_hash)
        .bind(binding)
        .bind(entry.outcome.to_string())
        .bind(entry.duration_ms)
        .execute(db)
        .await?;
    Ok(Fenced::Accepted)
}
