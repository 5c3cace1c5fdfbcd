//! Messages that are written with the rows they are about, and the sweeper that writes lost ones again.

use chrono::Utc;
use geoworker_machine::messages::STAGE_COMPLETE;
use geoworker_machine::{JobMessage, StageComplete, TaskMessage};
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::rows::{self, sql};
use crate::error::StoreError;
use crate::records::{Job, OutboxRow, Swept, Task};

type Result<T> = std::result::Result<T, StoreError>;

/// Hints that one pass of the sweeper sends at most.
const SWEEP_LIMIT: u32 = 1000;

/// Parameters above this many bytes stay out of the message: the row is the truth.
const INLINE_PARAMETERS: usize = 16 * 1024;

pub(super) async fn put(
    db: &mut SqliteConnection,
    queue: &str,
    body: &str,
    job: &str,
    task: Option<&str>,
    not_before: i64,
) -> Result<()> {
    const INSERT: &str =
        "INSERT INTO outbox (queue, body, job_id, task_id, not_before) VALUES (?, ?, ?, ?, ?)";
    sqlx::query(INSERT).bind(queue).bind(body).bind(job).bind(task).bind(not_before).execute(db).await?;
    Ok(())
}

pub(super) async fn put_job(db: &mut SqliteConnection, queue: &str, job: &Job) -> Result<()> {
    let message = JobMessage {
        job_id: job.job_id.clone(),
        job_type: job.job_type.clone(),
        parameters: job.parameters.as_object().cloned().unwrap_or_default(),
        stage: 1,
        correlation_id: job.correlation_id.clone(),
        timestamp: Utc::now(),
    };
    put(db, queue, &serde_json::to_string(&message)?, job.job_id.as_str(), None, 0).await
}

pub(super) async fn put_stage_complete(
    db: &mut SqliteConnection,
    queue: &str,
    app_name: &str,
    job: &Job,
    stage: u32,
) -> Result<()> {
    let message = StageComplete {
        message_type: STAGE_COMPLETE.to_owned(),
        job_id: job.job_id.clone(),
        job_type: job.job_type.clone(),
        completed_stage: stage,
        completed_at: Utc::now(),
        completed_by_app: app_name.to_owned(),
        correlation_id: job.correlation_id.clone(),
    };
    put(db, queue, &serde_json::to_string(&message)?, job.job_id.as_str(), None, 0).await
}

pub(super) async fn put_task(
    db: &mut SqliteConnection,
    task: &Task,
    correlation_id: Option<&str>,
) -> Result<()> {
    let parameters =
        task.parameters.as_object().filter(|_| task.parameters.to_string().len() <= INLINE_PARAMETERS);
    let message = TaskMessage {
        task_id: task.task_id.clone(),
        parent_job_id: task.job_id.clone(),
        job_type: task.job_type.clone(),
        task_type: task.task_type.clone(),
        stage: task.stage,
        task_index: task.position.to_string(),
        parameters: parameters.cloned(),
        retry_count: task.attempt,
        timestamp: Utc::now(),
        correlation_id: correlation_id.map(str::to_owned),
    };
    let body = serde_json::to_string(&message)?;
    put(db, &task.queue, &body, task.job_id.as_str(), Some(task.task_id.as_str()), task.not_before).await
}

pub(super) async fn list(db: &mut SqliteConnection, limit: u32) -> Result<Vec<OutboxRow>> {
    let select = "SELECT id, queue, body, not_before FROM outbox ORDER BY id LIMIT ?";
    let found = sqlx::query(select).bind(limit).fetch_all(db).await?;
    found
        .iter()
        .map(|row| {
            Ok(OutboxRow {
                id: row.try_get("id")?,
                queue: row.try_get("queue")?,
                body: row.try_get("body")?,
                not_before: row.try_get("not_before")?,
            })
        })
        .collect()
}

pub(super) async fn sent(db: &mut SqliteConnection, ids: &[i64]) -> Result<()> {
    let list = serde_json::to_string(ids)?;
    let mark = sql("UPDATE tasks SET state = 'queued' WHERE state IN ({from:Sent}) AND task_id IN
         (SELECT task_id FROM outbox WHERE id IN (SELECT value FROM json_each(?)))");
    sqlx::query(mark).bind(&list).execute(&mut *db).await?;
    let delete = "DELETE FROM outbox WHERE id IN (SELECT value FROM json_each(?))";
    sqlx::query(delete).bind(&list).execute(db).await?;
    Ok(())
}

pub(super) async fn sweep(
    db: &mut SqliteConnection,
    quiet_ms: i64,
    jobs_queue: &str,
    app_name: &str,
) -> Result<Swept> {
    let tasks = sweep_tasks(db, quiet_ms).await?;
    let cancelled = super::cancel::sweep(db, jobs_queue, app_name).await?;
    let jobs = sweep_jobs(db, quiet_ms, jobs_queue, app_name).await?;
    Ok(Swept { tasks, jobs, cancelled })
}

/// Tasks that are due (or whose lease ran out) and were not hinted at lately.
async fn sweep_tasks(db: &mut SqliteConnection, quiet_ms: i64) -> Result<u64> {
    let due = sql("UPDATE tasks SET hint_at = {now}
         WHERE task_id IN (SELECT task_id FROM tasks
                 WHERE ended_at IS NULL AND hint_at <= {now} - ?1
                   AND not_before <= {now} - (CASE WHEN not_before > 0 THEN ?1 ELSE 0 END)
                   AND (state IN ('pending', 'queued', 'pending_retry')
                        OR (state = 'processing' AND lease_until <= {now}))
                 ORDER BY hint_at LIMIT ?2)
         RETURNING *");
    let found = sqlx::query(due).bind(quiet_ms).bind(SWEEP_LIMIT).fetch_all(&mut *db).await?;
    for row in &found {
        let task = rows::task(row)?;
        put_task(db, &task, None).await?;
        let (job, id) = (task.job_id.as_str(), task.task_id.as_str());
        rows::event(
            db,
            job,
            Some(id),
            "task_hinted_again",
            Some(task.attempt),
            None,
            Some(task.state.as_str()),
        )
        .await?;
    }
    Ok(found.len() as u64)
}

/// Jobs that nobody planned, and stages that are over and were not advanced.
async fn sweep_jobs(
    db: &mut SqliteConnection,
    quiet_ms: i64,
    jobs_queue: &str,
    app_name: &str,
) -> Result<u64> {
    let stuck = sql("UPDATE jobs SET hint_at = {now}
         WHERE job_id IN (SELECT j.job_id FROM jobs j
                 LEFT JOIN stages s ON s.job_id = j.job_id AND s.number = j.stage
                 WHERE j.ended_at IS NULL AND j.hint_at <= {now} - ?1
                   AND (j.state = 'queued' OR (s.remaining = 0 AND s.ended_at <= {now} - ?1))
                 LIMIT ?2)
         RETURNING *");
    let found = sqlx::query(stuck).bind(quiet_ms).bind(SWEEP_LIMIT).fetch_all(&mut *db).await?;
    for row in &found {
        let job = rows::job(row)?;
        if job.stage == 0 {
            put_job(db, jobs_queue, &job).await?;
        } else {
            put_stage_complete(db, jobs_queue, app_name, &job, job.stage).await?;
        }
        rows::event(db, job.job_id.as_str(), None, "job_hinted_again", None, None, None).await?;
    }
    Ok(found.len() as u64)
}

pub(super) async fn release_all(db: &mut SqliteConnection) -> Result<u64> {
    let expire = sql("UPDATE tasks SET lease_until = 0, hint_at = 0 WHERE state = 'processing'");
    let released = sqlx::query(expire).execute(&mut *db).await?.rows_affected();
    let unlock = sql("UPDATE queue_messages SET lock_token = NULL, visible_at = {now}
         WHERE lock_token IS NOT NULL AND dead_at IS NULL");
    sqlx::query(unlock).execute(db).await?;
    Ok(released)
}
