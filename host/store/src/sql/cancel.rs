//! Cancelling: waiting tasks end at once, running ones when their workers see it, and then the job goes on or ends.

use geoworker_machine::{ErrorInfo, JobId, TaskId, codes};
use sqlx::Row as _;

use super::super::dialect::Connection;
use super::rows::{self, NewEvent, sql};
use super::{attempts, outbox};
use crate::error::StoreError;
use crate::records::{Job, Task};

type Result<T> = std::result::Result<T, StoreError>;

pub(super) async fn cancel(db: &mut Connection, id: &JobId, queue: &str, app_name: &str) -> Result<bool> {
    let mark = sql("UPDATE jobs SET cancelling = TRUE, hint_at = {now}
         WHERE job_id = $1 AND state IN ({job_from:Cancelled}) RETURNING *");
    let Some(row) = sqlx::query(mark).bind(id.as_str()).fetch_optional(&mut *db).await? else {
        return Ok(false);
    };
    let job = rows::job(&row)?;
    rows::events(db, &[NewEvent::of_job(id, "job_cancel_requested", None)]).await?;
    if job.stage == 0 {
        outbox::put_job(db, queue, &job).await?;
    } else {
        end_waiting(db, &job).await?;
        signal_if_over(db, &job, queue, app_name).await?;
    }
    Ok(true)
}

/// Cancels one task that is not over; its stage goes on without it, and counts it as failed.
pub(super) async fn cancel_task(
    db: &mut Connection,
    id: &TaskId,
    queue: &str,
    app_name: &str,
) -> Result<bool> {
    let mark = sql("UPDATE tasks SET cancelling = TRUE, error = $2, hint_at = {now}
         WHERE task_id = $1 AND state IN ({from:Cancel}) RETURNING *");
    let error = ErrorInfo::permanent(codes::TASK_CANCELLED, "somebody cancelled this task");
    let query = sqlx::query(mark).bind(id.as_str()).bind(serde_json::to_string(&error)?);
    let Some(row) = query.fetch_optional(&mut *db).await? else { return Ok(false) };
    let task = rows::task(&row)?;
    rows::events(db, &[NewEvent::of_task(&task, "task_cancel_requested", None)]).await?;
    end_one(db, id, queue, app_name).await?;
    Ok(true)
}

/// Ends a task unless somebody runs it; answers whether it did.
async fn end_one(db: &mut Connection, id: &TaskId, queue: &str, app_name: &str) -> Result<bool> {
    let end = format!("{END} WHERE task_id = $1 AND {NOT_HELD} RETURNING *");
    let ended = sqlx::query(sql(&end)).bind(id.as_str()).fetch_optional(&mut *db).await?;
    let Some(row) = ended else { return Ok(false) };
    let task = rows::task(&row)?;
    note_ended(db, std::slice::from_ref(&task)).await?;
    attempts::subtract(db, task.job_id.as_str(), task.stage, 1, 1).await?;
    let job = job_of(db, &task).await?;
    signal_if_over(db, &job, queue, app_name).await?;
    Ok(true)
}

/// Ends what was to be cancelled and is held by nobody: its worker died.
pub(super) async fn sweep(db: &mut Connection, queue: &str, app_name: &str) -> Result<u64> {
    let select = "SELECT * FROM jobs WHERE cancelling AND ended_at IS NULL AND stage > 0";
    let open = sqlx::query(select).fetch_all(&mut *db).await?;
    let mut ended = 0;
    for row in &open {
        let job = rows::job(row)?;
        let count = end_waiting(db, &job).await?;
        if count > 0 {
            signal_if_over(db, &job, queue, app_name).await?;
        }
        ended += count;
    }
    let alone =
        sql("SELECT task_id FROM tasks WHERE cancelling AND ended_at IS NULL AND lease_until <= {now}");
    for row in sqlx::query(alone).fetch_all(&mut *db).await? {
        let id = rows::task_id(row.try_get(0)?)?;
        ended += u64::from(end_one(db, &id, queue, app_name).await?);
    }
    Ok(ended)
}

const END: &str = "UPDATE tasks SET state = 'cancelled', ended_at = {now}, lease_until = 0,
     lease_epoch = lease_epoch + 1";
const NOT_HELD: &str = "state IN ({from:Cancel}) AND (state <> 'processing' OR lease_until <= {now})";

/// Ends the tasks of a job that nobody runs; answers how many.
async fn end_waiting(db: &mut Connection, job: &Job) -> Result<u64> {
    let end = format!("{END} WHERE job_id = $1 AND {NOT_HELD} RETURNING *");
    let ended = sqlx::query(sql(&end)).bind(job.job_id.as_str()).fetch_all(&mut *db).await?;
    let tasks = ended.iter().map(rows::task).collect::<Result<Vec<Task>>>()?;
    note_ended(db, &tasks).await?;
    let count = i64::try_from(tasks.len()).unwrap_or(i64::MAX);
    attempts::subtract(db, job.job_id.as_str(), job.stage, count, 0).await?;
    Ok(tasks.len() as u64)
}

async fn note_ended(db: &mut Connection, tasks: &[Task]) -> Result<()> {
    let lines: Vec<NewEvent<'_>> =
        tasks.iter().map(|task| NewEvent::of_task(task, "task_cancelled", None)).collect();
    rows::events(db, &lines).await?;
    attempts::forget_journals(db, tasks).await
}

async fn job_of(db: &mut Connection, task: &Task) -> Result<Job> {
    let select = "SELECT * FROM jobs WHERE job_id = $1";
    rows::job(&sqlx::query(select).bind(task.job_id.as_str()).fetch_one(db).await?)
}

/// The message that lets the job go on, where no running task is left to send it.
async fn signal_if_over(db: &mut Connection, job: &Job, queue: &str, app_name: &str) -> Result<()> {
    let select = "SELECT remaining FROM stages WHERE job_id = $1 AND number = $2";
    let query = sqlx::query(select).bind(job.job_id.as_str()).bind(i64::from(job.stage));
    if rows::number(&query.fetch_one(&mut *db).await?, "remaining")? == 0 {
        outbox::put_stage_complete(db, queue, app_name, job, job.stage).await?;
    }
    Ok(())
}
