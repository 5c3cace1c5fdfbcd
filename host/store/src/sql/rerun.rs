//! Retrying failed tasks of a job that is over: a new, linked run in which everything that succeeded is carried over.

use geoworker_machine::{JobId, TaskId};
use serde::Serialize;
use sqlx::Row as _;

use super::super::dialect::Connection;
use super::jobs::{self, Accepted};
use super::outbox;
use super::rows::{self, NewEvent, list, sql};
use crate::error::StoreError;
use crate::records::{Job, NewJob, Rerun, Submitted, Task};

type Result<T> = std::result::Result<T, StoreError>;

/// A task of the old run and its twin in the new one.
#[derive(Serialize)]
struct Twin<'a> {
    old: &'a str,
    new: TaskId,
    again: bool,
}

pub(super) async fn rerun(db: &mut Connection, new: &NewJob, rerun: &Rerun) -> Result<Option<Submitted>> {
    let Some(old) = jobs::job(db, &rerun.job).await? else { return Ok(None) };
    if !old.state.is_final() || old.stage == 0 {
        return Ok(None);
    }
    let again = again(db, &old, rerun).await?;
    if again.is_empty() {
        return Ok(None);
    }
    let Accepted::New(job) = jobs::accept(db, new).await? else { return Ok(None) };
    carry_over(db, &old, &job, &again).await?;
    let detail = format!("{} tasks of run {} again", again.len(), old.run_ordinal);
    rows::events(db, &[NewEvent::of_job(&job.job_id, "job_submitted", Some(&detail))]).await?;
    Ok(Some(Submitted { job_id: job.job_id, existing: false }))
}

/// The tasks of the old run's last stage that are to run again.
async fn again(db: &mut Connection, old: &Job, rerun: &Rerun) -> Result<Vec<TaskId>> {
    let select =
        "SELECT task_id FROM tasks WHERE job_id = $1 AND stage = $2 AND state IN ('failed', 'cancelled')";
    let query = sqlx::query(select).bind(old.job_id.as_str()).bind(i64::from(old.stage));
    let mut failed = query
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| rows::task_id(row.try_get(0)?))
        .collect::<Result<Vec<TaskId>>>()?;
    if let Some(one) = &rerun.task {
        failed.retain(|id| id == one);
    }
    Ok(failed)
}

async fn carry_over(db: &mut Connection, old: &Job, job: &Job, again: &[TaskId]) -> Result<()> {
    let stand = sql("UPDATE jobs SET stage = $2, state = 'processing' WHERE job_id = $1
         AND state IN ({job_from:Processing})");
    sqlx::query(stand).bind(job.job_id.as_str()).bind(i64::from(old.stage)).execute(&mut *db).await?;
    let stages =
        sql("INSERT INTO stages (job_id, number, name, total, remaining, failed, created_at, ended_at)
         SELECT $2, number, name, total,
             CASE WHEN number = $3 THEN $4 ELSE 0 END,
             CASE WHEN number = $3 THEN failed - $4 ELSE failed END,
             {now}, CASE WHEN number = $3 THEN NULL ELSE {now} END
         FROM stages WHERE job_id = $1");
    sqlx::query(stages)
        .bind(old.job_id.as_str())
        .bind(job.job_id.as_str())
        .bind(i64::from(old.stage))
        .bind(i64::try_from(again.len()).unwrap_or(i64::MAX))
        .execute(&mut *db)
        .await?;
    copy_tasks(db, &old.job_id, job, again).await?;
    let pending = "SELECT * FROM tasks WHERE job_id = $1 AND state = 'pending' ORDER BY position";
    let pending = sqlx::query(pending).bind(job.job_id.as_str()).fetch_all(&mut *db).await?;
    let pending = pending.iter().map(rows::task).collect::<Result<Vec<Task>>>()?;
    outbox::put_tasks(db, &pending.iter().collect::<Vec<_>>(), job.correlation_id.as_deref()).await
}

async fn copy_tasks(db: &mut Connection, old: &JobId, job: &Job, again: &[TaskId]) -> Result<()> {
    let all = sqlx::query("SELECT task_id, stage, unit FROM tasks WHERE job_id = $1");
    let all = all.bind(old.as_str()).fetch_all(&mut *db).await?;
    let ids = all.iter().map(|row| row.try_get("task_id")).collect::<std::result::Result<Vec<&str>, _>>()?;
    let mut twins = Vec::with_capacity(all.len());
    for (row, id) in all.iter().zip(ids) {
        let new = TaskId::derive(&job.job_id, rows::number(row, "stage")?, row.try_get("unit")?);
        twins.push(Twin { old: id, new, again: again.iter().any(|again| again.as_str() == id) });
    }
    let copy = sql("INSERT INTO tasks (task_id, job_id, job_type, stage, position, unit, task_type, parameters,
             queue, route_reason, max_retries, timeout_seconds, state, attempt, plugin_digest, progress, result,
             error, hint_at, created_at, started_at, ended_at)
         SELECT twin, $2, job_type, stage, position, unit, task_type, parameters, queue, route_reason,
             max_retries, timeout_seconds, CASE WHEN again THEN 'pending' ELSE state END,
             CASE WHEN again THEN 0 ELSE attempt END, plugin_digest, CASE WHEN again THEN 0 ELSE progress END,
             result, CASE WHEN again THEN NULL ELSE error END, {now}, {now},
             CASE WHEN again THEN NULL ELSE started_at END, CASE WHEN again THEN NULL ELSE ended_at END
         FROM tasks JOIN (SELECT value->>'old' AS old, value->>'new' AS twin,
                 CAST(value->>'again' AS TEXT) IN ('true', '1') AS again FROM {each:$1}) AS twins ON task_id = old");
    sqlx::query(copy).bind(list(&twins)?).bind(job.job_id.as_str()).execute(db).await?;
    Ok(())
}
