//! Attempts: claim, renew, finish, journal. Every write carries the lease epoch.

use geoworker_machine::state::TaskEvent;
use geoworker_machine::{ErrorInfo, TaskId, TaskState};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::outbox;
use super::rows::{self, sql};
use crate::error::StoreError;
use crate::records::{Claim, ClaimRequest, Fenced, JournalEntry, Outcome, Renewal, Task};

type Result<T> = std::result::Result<T, StoreError>;

pub(super) async fn task(db: &mut SqliteConnection, id: &TaskId) -> Result<Option<Task>> {
    let row =
        sqlx::query("SELECT * FROM tasks WHERE task_id = ?").bind(id.as_str()).fetch_optional(db).await?;
    row.as_ref().map(rows::task).transpose()
}

pub(super) async fn claim(
    db: &mut SqliteConnection,
    id: &TaskId,
    request: ClaimRequest<'_>,
) -> Result<Claim> {
    let take =
        sql("UPDATE tasks SET state = 'processing', attempt = attempt + 1, lease_epoch = lease_epoch + 1,
             lease_until = {now} + ?2, worker = ?3, plugin_digest = ?4, progress = 0, progress_message = NULL,
             hint_at = {now}, started_at = coalesce(started_at, {now})
         WHERE task_id = ?1 AND state IN ({from:Claim}) AND not_before <= {now}
           AND (state <> 'processing' OR lease_until <= {now})
           AND EXISTS (SELECT 1 FROM jobs
                 WHERE jobs.job_id = tasks.job_id AND ended_at IS NULL AND cancelling = 0)
         RETURNING *");
    let taken = sqlx::query(take)
        .bind(id.as_str())
        .bind(request.lease_ms)
        .bind(request.worker)
        .bind(request.plugin_digest)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = taken else { return why_not(db, id).await };
    let task = rows::task(&row)?;
    let discard = "DELETE FROM journal WHERE task_id = ? AND plugin_digest <> ?";
    sqlx::query(discard).bind(id.as_str()).bind(request.plugin_digest).execute(&mut *db).await?;
    let job = task.job_id.as_str();
    rows::event(db, job, Some(id.as_str()), "task_claimed", Some(task.attempt), Some(request.worker), None)
        .await?;
    Ok(Claim::Claimed(Box::new(task)))
}

async fn why_not(db: &mut SqliteConnection, id: &TaskId) -> Result<Claim> {
    let select = sql("SELECT state, max(lease_until - {now}, 0) AS held, max(not_before - {now}, 0) AS wait,
             (SELECT ended_at IS NOT NULL OR cancelling FROM jobs WHERE jobs.job_id = tasks.job_id) AS job_over
         FROM tasks WHERE task_id = ?");
    let Some(row) = sqlx::query(select).bind(id.as_str()).fetch_optional(db).await? else {
        return Ok(Claim::Unknown);
    };
    let state: String = row.try_get("state")?;
    let job_over: bool = row.try_get("job_over")?;
    if job_over || TaskState::from_name(&state).is_none_or(TaskState::is_final) {
        return Ok(Claim::Over);
    }
    if state == TaskState::Processing.as_str() {
        return Ok(Claim::Busy(row.try_get("held")?));
    }
    Ok(Claim::NotDue(row.try_get("wait")?))
}

pub(super) async fn renew(
    db: &mut SqliteConnection,
    id: &TaskId,
    epoch: i64,
    lease_ms: i64,
    progress: Option<(f64, String)>,
) -> Result<Renewal> {
    let (fraction, message) =
        progress.map_or((None, None), |(fraction, message)| (Some(fraction), Some(message)));
    let extend = sql("UPDATE tasks SET lease_until = {now} + ?3, hint_at = {now},
             progress = coalesce(?4, progress), progress_message = coalesce(?5, progress_message)
         WHERE task_id = ?1 AND lease_epoch = ?2 AND state = 'processing'
         RETURNING (SELECT cancelling FROM jobs WHERE jobs.job_id = tasks.job_id)");
    let query = sqlx::query(extend).bind(id.as_str()).bind(epoch).bind(lease_ms).bind(fraction).bind(message);
    let Some(row) = query.fetch_optional(db).await? else { return Ok(Renewal::Stale) };
    let cancelling: bool = row.try_get(0)?;
    Ok(if cancelling { Renewal::Cancelling } else { Renewal::Held })
}

pub(super) async fn finish(
    db: &mut SqliteConnection,
    id: &TaskId,
    epoch: i64,
    outcome: &Outcome,
    jobs_queue: &str,
    app_name: &str,
) -> Result<Fenced> {
    match outcome {
        Outcome::Completed(result) => {
            let text = result.to_string();
            end(db, id, epoch, TaskEvent::Complete, Some(&text), None, jobs_queue, app_name).await
        }
        Outcome::Failed(error) => {
            end(db, id, epoch, TaskEvent::Fail, None, Some(error), jobs_queue, app_name).await
        }
        Outcome::Retry { error, delay_ms } => retry(db, id, epoch, error, *delay_ms).await,
        Outcome::GiveBack(reason) => give_back(db, id, epoch, reason).await,
        Outcome::Cancelled => end(db, id, epoch, TaskEvent::Cancel, None, None, jobs_queue, app_name).await,
    }
}

/// The one way in which a task ends: last task turns out the lights.
#[expect(clippy::too_many_arguments, reason = "the one place where all of these meet")]
async fn end(
    db: &mut SqliteConnection,
    id: &TaskId,
    epoch: i64,
    event: TaskEvent,
    result: Option<&str>,
    error: Option<&ErrorInfo>,
    jobs_queue: &str,
    app_name: &str,
) -> Result<Fenced> {
    let Some(state) = TaskState::Processing.after(event) else { return Ok(Fenced::Stale) };
    let update =
        sql("UPDATE tasks SET state = ?3, result = ?4, error = coalesce(?5, error), ended_at = {now},
             lease_until = 0, progress = CASE WHEN ?3 = 'completed' THEN 1 ELSE progress END
         WHERE task_id = ?1 AND lease_epoch = ?2 AND state IN ({from:Complete})
         RETURNING *");
    let ended = sqlx::query(update)
        .bind(id.as_str())
        .bind(epoch)
        .bind(state.as_str())
        .bind(result)
        .bind(error.map(serde_json::to_string).transpose()?)
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = ended else { return Ok(Fenced::Stale) };
    let task = rows::task(&row)?;
    let job_id = task.job_id.as_str();
    let count = sql("UPDATE stages SET remaining = remaining - 1, failed = failed + ?3,
             ended_at = CASE WHEN remaining = 1 THEN {now} END
         WHERE job_id = ?1 AND number = ?2 RETURNING remaining");
    let failed = i64::from(state == TaskState::Failed);
    let left: i64 = sqlx::query(count)
        .bind(job_id)
        .bind(task.stage)
        .bind(failed)
        .fetch_one(&mut *db)
        .await?
        .try_get(0)?;
    sqlx::query("DELETE FROM journal WHERE task_id = ?").bind(id.as_str()).execute(&mut *db).await?;
    let kind = format!("task_{state}");
    let detail = error.map(ToString::to_string);
    let worker = task.worker.as_deref();
    rows::event(db, job_id, Some(id.as_str()), &kind, Some(task.attempt), worker, detail.as_deref()).await?;
    if left == 0 {
        let row = sqlx::query("SELECT * FROM jobs WHERE job_id = ?").bind(job_id).fetch_one(&mut *db).await?;
        outbox::put_stage_complete(db, jobs_queue, app_name, &rows::job(&row)?, task.stage).await?;
    }
    Ok(Fenced::Accepted)
}

async fn retry(
    db: &mut SqliteConnection,
    id: &TaskId,
    epoch: i64,
    error: &ErrorInfo,
    delay: i64,
) -> Result<Fenced> {
    let update =
        sql("UPDATE tasks SET state = 'pending_retry', error = ?3, not_before = {now} + ?4, lease_until = 0,
             hint_at = {now}
         WHERE task_id = ?1 AND lease_epoch = ?2 AND state IN ({from:Retry}) RETURNING *");
    let query =
        sqlx::query(update).bind(id.as_str()).bind(epoch).bind(serde_json::to_string(error)?).bind(delay);
    let Some(row) = query.fetch_optional(&mut *db).await? else { return Ok(Fenced::Stale) };
    let task = rows::task(&row)?;
    outbox::put_task(db, &task, None).await?;
    let detail = format!("{error}; again in {delay} ms");
    log_attempt(db, &task, "task_retry", &detail).await?;
    Ok(Fenced::Accepted)
}

async fn give_back(db: &mut SqliteConnection, id: &TaskId, epoch: i64, reason: &str) -> Result<Fenced> {
    let update =
        sql("UPDATE tasks SET state = 'queued', attempt = attempt - 1, lease_until = 0, hint_at = {now}
         WHERE task_id = ?1 AND lease_epoch = ?2 AND state IN ({from:GiveBack}) RETURNING *");
    let Some(row) = sqlx::query(update).bind(id.as_str()).bind(epoch).fetch_optional(&mut *db).await? else {
        return Ok(Fenced::Stale);
    };
    log_attempt(db, &rows::task(&row)?, "task_given_back", reason).await?;
    Ok(Fenced::Accepted)
}

async fn log_attempt(db: &mut SqliteConnection, task: &Task, kind: &str, detail: &str) -> Result<()> {
    let (job, id) = (task.job_id.as_str(), task.task_id.as_str());
    rows::event(db, job, Some(id), kind, Some(task.attempt), task.worker.as_deref(), Some(detail)).await
}

pub(super) async fn journal(db: &mut SqliteConnection, id: &TaskId) -> Result<Vec<JournalEntry>> {
    let select = "SELECT * FROM journal WHERE task_id = ? ORDER BY sequence";
    let found = sqlx::query(select).bind(id.as_str()).fetch_all(db).await?;
    found
        .iter()
        .map(|row| {
            Ok(JournalEntry {
                sequence: row.try_get("sequence")?,
                operation: row.try_get("operation")?,
                request_hash: row.try_get("request_hash")?,
                outcome: rows::json(row.try_get("outcome")?)?,
                duration_ms: row.try_get("duration_ms")?,
            })
        })
        .collect()
}

pub(super) async fn record(
    db: &mut SqliteConnection,
    id: &TaskId,
    epoch: i64,
    entry: &JournalEntry,
) -> Result<Fenced> {
    let holder =
        "SELECT plugin_digest FROM tasks WHERE task_id = ? AND lease_epoch = ? AND state = 'processing'";
    let Some(row) = sqlx::query(holder).bind(id.as_str()).bind(epoch).fetch_optional(&mut *db).await? else {
        return Ok(Fenced::Stale);
    };
    let digest: String = row.try_get::<Option<String>, _>(0)?.unwrap_or_default();
    let clear = "DELETE FROM journal WHERE task_id = ? AND sequence >= ?";
    sqlx::query(clear).bind(id.as_str()).bind(entry.sequence).execute(&mut *db).await?;
    let insert = sql("INSERT INTO journal
             (task_id, sequence, operation, request_hash, plugin_digest, outcome, duration_ms, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, {now})");
    sqlx::query(insert)
        .bind(id.as_str())
        .bind(entry.sequence)
        .bind(&entry.operation)
        .bind(&entry.request_hash)
        .bind(digest)
        .bind(entry.outcome.to_string())
        .bind(entry.duration_ms)
        .execute(db)
        .await?;
    Ok(Fenced::Accepted)
}
