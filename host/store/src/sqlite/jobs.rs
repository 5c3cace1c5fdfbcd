//! Jobs and stages: accepting, planning, ending, reading.

use geoworker_machine::ids::idempotency_key;
use geoworker_machine::{ErrorInfo, JobId, JobState};
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteConnection;

use super::outbox;
use super::rows::{self, sql};
use crate::error::StoreError;
use crate::records::{Event, Job, NewJob, NewTask, Stage, StagePlan, Submitted, Task, UnitResult};

type Result<T> = std::result::Result<T, StoreError>;

pub(super) async fn submit(db: &mut SqliteConnection, new: &NewJob) -> Result<Submitted> {
    let key = idempotency_key(&new.job_type, &new.parameters);
    let latest =
        "SELECT job_id, run_ordinal FROM jobs WHERE idempotency_key = ? ORDER BY run_ordinal DESC LIMIT 1";
    let previous = sqlx::query(latest).bind(&key).fetch_optional(&mut *db).await?;
    let previous: Option<(String, u32)> =
        previous.map(|row| Ok::<_, StoreError>((row.try_get(0)?, row.try_get(1)?))).transpose()?;
    if let (Some((id, _)), false) = (&previous, new.force) {
        return Ok(Submitted { job_id: rows::id(id.clone())?, existing: true });
    }
    let ordinal = previous.as_ref().map_or(1, |(_, ordinal)| ordinal + 1);
    let job_id = JobId::derive(&new.job_type, &new.parameters, ordinal);
    let insert =
        sql("INSERT INTO jobs (job_id, job_type, parameters, idempotency_key, run_ordinal, previous_run,
             correlation_id, plugin_digest, stages, state, hint_at, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 'queued', {now}, {now}) RETURNING *");
    let row = sqlx::query(insert)
        .bind(job_id.as_str())
        .bind(&new.job_type)
        .bind(new.parameters.to_string())
        .bind(&key)
        .bind(ordinal)
        .bind(previous.map(|(id, _)| id))
        .bind(&new.correlation_id)
        .bind(&new.plugin_digest)
        .bind(serde_json::to_string(&new.stages)?)
        .fetch_one(&mut *db)
        .await?;
    outbox::put_job(db, &new.jobs_queue, &rows::job(&row)?).await?;
    rows::event(db, job_id.as_str(), None, "job_submitted", None, None, None).await?;
    Ok(Submitted { job_id, existing: false })
}

pub(super) async fn list(db: &mut SqliteConnection, prefix: &str, limit: u32) -> Result<Vec<Job>> {
    let select = "SELECT * FROM jobs WHERE substr(job_id, 1, length(?1)) = ?1
         ORDER BY created_at DESC, job_id LIMIT ?2";
    let found = sqlx::query(select).bind(prefix).bind(limit).fetch_all(db).await?;
    found.iter().map(rows::job).collect()
}

pub(super) async fn stages(db: &mut SqliteConnection, id: &JobId) -> Result<Vec<Stage>> {
    let select = "SELECT * FROM stages WHERE job_id = ? ORDER BY number";
    let found = sqlx::query(select).bind(id.as_str()).fetch_all(db).await?;
    found.iter().map(rows::stage).collect()
}

pub(super) async fn tasks(db: &mut SqliteConnection, id: &JobId, limit: u32) -> Result<Vec<Task>> {
    let select = "SELECT * FROM tasks WHERE job_id = ? ORDER BY stage, position LIMIT ?";
    let found = sqlx::query(select).bind(id.as_str()).bind(limit).fetch_all(db).await?;
    found.iter().map(rows::task).collect()
}

pub(super) async fn events(db: &mut SqliteConnection, id: &JobId) -> Result<Vec<Event>> {
    let select = "SELECT * FROM events WHERE job_id = ? ORDER BY id";
    let found = sqlx::query(select).bind(id.as_str()).fetch_all(db).await?;
    found.iter().map(rows::timeline).collect()
}

pub(super) async fn results(
    db: &mut SqliteConnection,
    id: &JobId,
    stage: u32,
    offset: u32,
    limit: u32,
) -> Result<Vec<UnitResult>> {
    let select = "SELECT unit, state, result, error FROM tasks WHERE job_id = ? AND stage = ?
         ORDER BY position LIMIT ? OFFSET ?";
    let query = sqlx::query(select).bind(id.as_str()).bind(stage).bind(limit).bind(offset);
    query.fetch_all(db).await?.iter().map(rows::unit_result).collect()
}

pub(super) async fn plan_stage(db: &mut SqliteConnection, id: &JobId, plan: &StagePlan) -> Result<bool> {
    // The guard: the job stands at the stage before, and that stage (where there is one) is over.
    let advance = sql("UPDATE jobs SET stage = ?2, state = 'processing', hint_at = {now}
         WHERE job_id = ?1 AND stage = ?2 - 1 AND state IN ({job_from:Processing}) AND cancelling = 0
           AND NOT EXISTS (SELECT 1 FROM stages WHERE job_id = ?1 AND number = ?2 - 1 AND remaining > 0)
         RETURNING *");
    let Some(row) = sqlx::query(advance).bind(id.as_str()).bind(plan.number).fetch_optional(&mut *db).await?
    else {
        return Ok(false);
    };
    let job = rows::job(&row)?;
    let total = u32::try_from(plan.tasks.len()).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    let insert = sql("INSERT INTO stages (job_id, number, name, total, remaining, created_at, ended_at)
         VALUES (?1, ?2, ?3, ?4, ?4, {now}, CASE WHEN ?4 = 0 THEN {now} END)");
    sqlx::query(insert)
        .bind(id.as_str())
        .bind(plan.number)
        .bind(&plan.name)
        .bind(total)
        .execute(&mut *db)
        .await?;
    for (position, task) in plan.tasks.iter().enumerate() {
        insert_task(db, &job, plan.number, position, task).await?;
    }
    if total == 0 {
        outbox::put_stage_complete(db, &plan.jobs_queue, &plan.app_name, &job, plan.number).await?;
    }
    let detail = format!("{}: {} tasks", plan.name, total);
    rows::event(db, id.as_str(), None, "stage_planned", None, None, Some(&detail)).await?;
    Ok(true)
}

async fn insert_task(
    db: &mut SqliteConnection,
    job: &Job,
    stage: u32,
    position: usize,
    task: &NewTask,
) -> Result<()> {
    let insert =
        sql("INSERT INTO tasks (task_id, job_id, job_type, stage, position, unit, task_type, parameters,
             queue, route_reason, max_retries, timeout_seconds, state, hint_at, created_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', {now}, {now}) RETURNING *");
    let row = sqlx::query(insert)
        .bind(task.task_id.as_str())
        .bind(job.job_id.as_str())
        .bind(&job.job_type)
        .bind(stage)
        .bind(position as i64)
        .bind(&task.unit)
        .bind(&task.task_type)
        .bind(task.parameters.to_string())
        .bind(&task.queue)
        .bind(&task.route_reason)
        .bind(task.max_retries)
        .bind(task.timeout_seconds)
        .fetch_one(&mut *db)
        .await?;
    outbox::put_task(db, &rows::task(&row)?, job.correlation_id.as_deref()).await
}

pub(super) async fn end(
    db: &mut SqliteConnection,
    id: &JobId,
    stage: u32,
    state: JobState,
    result: Option<&Value>,
    error: Option<&ErrorInfo>,
) -> Result<bool> {
    let guard = match state {
        JobState::Completed => "{job_from:Completed}",
        JobState::CompletedWithErrors => "{job_from:CompletedWithErrors}",
        JobState::Cancelled => "{job_from:Cancelled}",
        JobState::Failed => "{job_from:Failed}",
        JobState::Queued | JobState::Processing => return Ok(false),
    };
    let update = format!(
        "UPDATE jobs SET state = ?3, result = ?4, error = ?5, ended_at = {{now}}
         WHERE job_id = ?1 AND stage = ?2 AND state IN ({guard})
           AND NOT EXISTS (SELECT 1 FROM stages WHERE job_id = ?1 AND number = ?2 AND remaining > 0)"
    );
    let error_text = error.map(serde_json::to_string).transpose()?;
    let ended = sqlx::query(sql(&update))
        .bind(id.as_str())
        .bind(stage)
        .bind(state.as_str())
        .bind(result.map(Value::to_string))
        .bind(error_text)
        .execute(&mut *db)
        .await?
        .rows_affected()
        == 1;
    if ended {
        let detail = error.map_or_else(|| state.to_string(), ToString::to_string);
        rows::event(db, id.as_str(), None, "job_ended", None, None, Some(&detail)).await?;
    }
    Ok(ended)
}
