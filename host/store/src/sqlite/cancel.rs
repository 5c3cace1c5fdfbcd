//! Cancelling a job: waiting tasks end at once, running ones when their workers see it, and then the job ends.

use geoworker_machine::JobId;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::outbox;
use super::rows::{self, sql};
use crate::error::StoreError;
use crate::records::Job;

type Result<T> = std::result::Result<T, StoreError>;

pub(super) async fn cancel(
    db: &mut SqliteConnection,
    id: &JobId,
    queue: &str,
    app_name: &str,
) -> Result<bool> {
    let mark = sql("UPDATE jobs SET cancelling = 1, hint_at = {now}
         WHERE job_id = ? AND state IN ({job_from:Cancelled}) RETURNING *");
    let Some(row) = sqlx::query(mark).bind(id.as_str()).fetch_optional(&mut *db).await? else {
        return Ok(false);
    };
    let job = rows::job(&row)?;
    rows::event(db, id.as_str(), None, "job_cancel_requested", None, None, None).await?;
    if job.stage == 0 {
        outbox::put_job(db, queue, &job).await?;
    } else {
        end_waiting(db, &job).await?;
        signal_if_over(db, &job, queue, app_name).await?;
    }
    Ok(true)
}

/// Ends tasks of cancelled jobs whose workers died.
pub(super) async fn sweep(db: &mut SqliteConnection, queue: &str, app_name: &str) -> Result<u64> {
    let select = "SELECT * FROM jobs WHERE cancelling = 1 AND ended_at IS NULL AND stage > 0";
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
    Ok(ended)
}

/// Ends the tasks that nobody runs; answers how many.
async fn end_waiting(db: &mut SqliteConnection, job: &Job) -> Result<u64> {
    let end = sql("UPDATE tasks SET state = 'cancelled', ended_at = {now}, lease_until = 0,
             lease_epoch = lease_epoch + 1
         WHERE job_id = ? AND state IN ({from:Cancel}) AND (state <> 'processing' OR lease_until <= {now})
         RETURNING task_id");
    let ended = sqlx::query(end).bind(job.job_id.as_str()).fetch_all(&mut *db).await?;
    for row in &ended {
        let id: String = row.try_get(0)?;
        rows::event(db, job.job_id.as_str(), Some(&id), "task_cancelled", None, None, None).await?;
        sqlx::query("DELETE FROM journal WHERE task_id = ?").bind(&id).execute(&mut *db).await?;
    }
    let count = ended.len() as u64;
    let subtract = sql("UPDATE stages SET remaining = remaining - ?3,
             ended_at = CASE WHEN remaining = ?3 THEN {now} ELSE ended_at END
         WHERE job_id = ?1 AND number = ?2");
    let query = sqlx::query(subtract).bind(job.job_id.as_str()).bind(job.stage).bind(count as i64);
    query.execute(db).await?;
    Ok(count)
}

/// The message that lets the job end, where no running task is left to send it.
async fn signal_if_over(db: &mut SqliteConnection, job: &Job, queue: &str, app_name: &str) -> Result<()> {
    let select = "SELECT remaining FROM stages WHERE job_id = ? AND number = ?";
    let row = sqlx::query(select).bind(job.job_id.as_str()).bind(job.stage).fetch_one(&mut *db).await?;
    if row.try_get::<i64, _>(0)? == 0 {
        outbox::put_stage_complete(db, queue, app_name, job, job.stage).await?;
    }
    Ok(())
}
