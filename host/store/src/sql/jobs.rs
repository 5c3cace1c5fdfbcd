//! Jobs and stages: accepting, planning, ending, reading.

use geoworker_machine::ids::idempotency_key;
use geoworker_machine::{ErrorInfo, JobId, JobState, TaskId, TaskState};
use serde::Serialize;
use serde_json::Value;
use sqlx::Row as _;

use super::super::dialect::Connection;
use super::outbox;
use super::rows::{self, NewEvent, list as json_list, sql};
use crate::error::StoreError;
use crate::records::{
    Event, Job, JobsPage, NewJob, NewTask, Stage, StagePlan, Submitted, Task, TasksPage, UnitResult,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Rows that one statement inserts at most, so that its JSON list stays small.
const CHUNK: usize = 500;

pub(super) async fn submit(db: &mut Connection, new: &NewJob) -> Result<Submitted> {
    let job = match accept(db, new).await? {
        Accepted::New(job) => job,
        Accepted::Existing(job_id) => return Ok(Submitted { job_id, existing: true }),
    };
    outbox::put_job(db, &new.jobs_queue, &job).await?;
    rows::events(db, &[NewEvent::of_job(&job.job_id, "job_submitted", None)]).await?;
    Ok(Submitted { job_id: job.job_id, existing: false })
}

/// What became of a request's row.
pub(super) enum Accepted {
    New(Box<Job>),
    Existing(JobId),
}

/// Writes the row of a new run, or finds the latest one. Two submitters of one request meet at the ordinal: the one
/// that comes second looks again.
pub(super) async fn accept(db: &mut Connection, new: &NewJob) -> Result<Accepted> {
    let key = idempotency_key(&new.job_type, &new.parameters);
    loop {
        let latest = "SELECT job_id, run_ordinal FROM jobs WHERE idempotency_key = $1
             ORDER BY run_ordinal DESC LIMIT 1";
        let previous = sqlx::query(latest).bind(&key).fetch_optional(&mut *db).await?;
        let previous = previous
            .map(|row| Ok::<_, StoreError>((rows::id(row.try_get(0)?)?, rows::number(&row, "run_ordinal")?)))
            .transpose()?;
        if let (Some((id, _)), false) = (&previous, new.force) {
            return Ok(Accepted::Existing(id.clone()));
        }
        let ordinal = previous.as_ref().map_or(1, |(_, ordinal)| ordinal + 1);
        if let Some(job) = insert_job(db, new, &key, ordinal, previous.map(|(id, _)| id)).await? {
            return Ok(Accepted::New(Box::new(job)));
        }
    }
}

async fn insert_job(
    db: &mut Connection,
    new: &NewJob,
    key: &str,
    ordinal: u32,
    previous: Option<JobId>,
) -> Result<Option<Job>> {
    let insert =
        sql("INSERT INTO jobs (job_id, job_type, parameters, idempotency_key, run_ordinal, previous_run,
             correlation_id, plugin_digest, stages, state, hint_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'queued', {now}, {now})
         ON CONFLICT DO NOTHING RETURNING *");
    let row = sqlx::query(insert)
        .bind(JobId::derive(&new.job_type, &new.parameters, ordinal).as_str())
        .bind(&new.job_type)
        .bind(new.parameters.to_string())
        .bind(key)
        .bind(i64::from(ordinal))
        .bind(previous.as_ref().map(JobId::as_str))
        .bind(&new.correlation_id)
        .bind(&new.plugin_digest)
        .bind(serde_json::to_string(&new.stages)?)
        .fetch_optional(db)
        .await?;
    row.as_ref().map(rows::job).transpose()
}

pub(super) async fn list(db: &mut Connection, prefix: &str, limit: u32) -> Result<Vec<Job>> {
    let select = "SELECT * FROM jobs WHERE substr(job_id, 1, length($1)) = $1
         ORDER BY created_at DESC, job_id LIMIT $2";
    let found = sqlx::query(select).bind(prefix).bind(i64::from(limit)).fetch_all(db).await?;
    found.iter().map(rows::job).collect()
}

pub(super) async fn page(db: &mut Connection, page: &JobsPage<'_>) -> Result<Vec<Job>> {
    let select = "SELECT * FROM jobs WHERE ($1 = '' OR state = $1) AND ($2 = '' OR EXISTS (
             SELECT 1 FROM jobs last WHERE last.job_id = $2 AND (jobs.created_at < last.created_at
                 OR (jobs.created_at = last.created_at AND jobs.job_id > last.job_id))))
         ORDER BY created_at DESC, job_id LIMIT $3";
    let found = sqlx::query(select)
        .bind(page.state.map_or("", JobState::as_str))
        .bind(page.after.map_or("", JobId::as_str))
        .bind(i64::from(page.limit))
        .fetch_all(db)
        .await?;
    found.iter().map(rows::job).collect()
}

pub(super) async fn job(db: &mut Connection, id: &JobId) -> Result<Option<Job>> {
    let row =
        sqlx::query("SELECT * FROM jobs WHERE job_id = $1").bind(id.as_str()).fetch_optional(db).await?;
    row.as_ref().map(rows::job).transpose()
}

pub(super) async fn stages(db: &mut Connection, id: &JobId) -> Result<Vec<Stage>> {
    let select = "SELECT * FROM stages WHERE job_id = $1 ORDER BY number";
    let found = sqlx::query(select).bind(id.as_str()).fetch_all(db).await?;
    found.iter().map(rows::stage).collect()
}

pub(super) async fn tasks(db: &mut Connection, id: &JobId, limit: u32) -> Result<Vec<Task>> {
    let select = "SELECT * FROM tasks WHERE job_id = $1 ORDER BY stage, position LIMIT $2";
    let found = sqlx::query(select).bind(id.as_str()).bind(i64::from(limit)).fetch_all(db).await?;
    found.iter().map(rows::task).collect()
}

pub(super) async fn tasks_page(db: &mut Connection, page: &TasksPage<'_>) -> Result<Vec<Task>> {
    let select = "SELECT * FROM tasks WHERE job_id = $1 AND ($2 = '' OR state = $2) AND ($3 = '' OR EXISTS (
             SELECT 1 FROM tasks last WHERE last.task_id = $3 AND (tasks.stage > last.stage
                 OR (tasks.stage = last.stage AND tasks.position > last.position))))
         ORDER BY stage, position LIMIT $4";
    let found = sqlx::query(select)
        .bind(page.job.as_str())
        .bind(page.state.map_or("", TaskState::as_str))
        .bind(page.after.map_or("", TaskId::as_str))
        .bind(i64::from(page.limit))
        .fetch_all(db)
        .await?;
    found.iter().map(rows::task).collect()
}

pub(super) async fn tasks_by_prefix(db: &mut Connection, prefix: &str, limit: u32) -> Result<Vec<Task>> {
    let select = "SELECT * FROM tasks WHERE substr(task_id, 1, length($1)) = $1 ORDER BY task_id LIMIT $2";
    let found = sqlx::query(select).bind(prefix).bind(i64::from(limit)).fetch_all(db).await?;
    found.iter().map(rows::task).collect()
}

pub(super) async fn events(db: &mut Connection, id: &JobId) -> Result<Vec<Event>> {
    let select = "SELECT * FROM events WHERE job_id = $1 ORDER BY id";
    let found = sqlx::query(select).bind(id.as_str()).fetch_all(db).await?;
    found.iter().map(rows::timeline).collect()
}

pub(super) async fn results(
    db: &mut Connection,
    id: &JobId,
    stage: u32,
    offset: u32,
    limit: u32,
) -> Result<Vec<UnitResult>> {
    let select = "SELECT unit, state, result, error FROM tasks WHERE job_id = $1 AND stage = $2
             AND position >= $3
         ORDER BY position LIMIT $4";
    let query = sqlx::query(select)
        .bind(id.as_str())
        .bind(i64::from(stage))
        .bind(i64::from(offset))
        .bind(i64::from(limit));
    query.fetch_all(db).await?.iter().map(rows::unit_result).collect()
}

pub(super) async fn plan_stage(db: &mut Connection, id: &JobId, plan: &StagePlan) -> Result<bool> {
    // The guard: the job stands at the stage before, and that stage (where there is one) is over.
    let advance = sql("UPDATE jobs SET stage = $2, state = 'processing', hint_at = {now}
         WHERE job_id = $1 AND stage = $2 - 1 AND state IN ({job_from:Processing}) AND NOT cancelling
           AND NOT EXISTS (SELECT 1 FROM stages WHERE job_id = $1 AND number = $2 - 1 AND remaining > 0)
         RETURNING *");
    let query = sqlx::query(advance).bind(id.as_str()).bind(i64::from(plan.number));
    let Some(row) = query.fetch_optional(&mut *db).await? else { return Ok(false) };
    let job = rows::job(&row)?;
    let total = u32::try_from(plan.tasks.len()).map_err(|e| StoreError::Corrupt(e.to_string()))?;
    insert_stage(db, id, plan, total).await?;
    for (chunk, tasks) in plan.tasks.chunks(CHUNK).enumerate() {
        insert_tasks(db, &job, plan.number, chunk * CHUNK, tasks).await?;
    }
    if total == 0 {
        outbox::put_stage_complete(db, &plan.jobs_queue, &plan.app_name, &job, plan.number).await?;
    }
    let detail = format!("{}: {} tasks", plan.name, total);
    rows::events(db, &[NewEvent::of_job(id, "stage_planned", Some(&detail))]).await?;
    Ok(true)
}

async fn insert_stage(db: &mut Connection, id: &JobId, plan: &StagePlan, total: u32) -> Result<()> {
    let insert = sql("INSERT INTO stages (job_id, number, name, total, remaining, created_at, ended_at)
         VALUES ($1, $2, $3, $4, $4, {now}, CASE WHEN $4 = 0 THEN {now} END)");
    sqlx::query(insert)
        .bind(id.as_str())
        .bind(i64::from(plan.number))
        .bind(&plan.name)
        .bind(i64::from(total))
        .execute(db)
        .await?;
    Ok(())
}

#[derive(Serialize)]
struct TaskRow<'a> {
    id: &'a str,
    position: usize,
    unit: &'a str,
    task_type: &'a str,
    parameters: String,
    queue: &'a str,
    reason: &'a str,
    max_retries: u32,
    timeout: u32,
}

async fn insert_tasks(
    db: &mut Connection,
    job: &Job,
    stage: u32,
    first: usize,
    tasks: &[NewTask],
) -> Result<()> {
    let insert = sql("INSERT INTO tasks (task_id, job_id, job_type, stage, position, unit, task_type,
             parameters, queue, route_reason, max_retries, timeout_seconds, state, hint_at, created_at)
         SELECT value->>'id', $2, $3, $4, CAST(value->>'position' AS BIGINT), value->>'unit',
             value->>'task_type', value->>'parameters', value->>'queue', value->>'reason',
             CAST(value->>'max_retries' AS BIGINT), CAST(value->>'timeout' AS BIGINT), 'pending', {now}, {now}
         FROM {each:$1}
         RETURNING *");
    let new: Vec<TaskRow<'_>> = tasks
        .iter()
        .enumerate()
        .map(|(index, task)| TaskRow {
            id: task.task_id.as_str(),
            position: first + index,
            unit: &task.unit,
            task_type: &task.task_type,
            parameters: task.parameters.to_string(),
            queue: &task.queue,
            reason: &task.route_reason,
            max_retries: task.max_retries,
            timeout: task.timeout_seconds,
        })
        .collect();
    let inserted = sqlx::query(insert)
        .bind(json_list(&new)?)
        .bind(job.job_id.as_str())
        .bind(&job.job_type)
        .bind(i64::from(stage))
        .fetch_all(&mut *db)
        .await?;
    let inserted = inserted.iter().map(rows::task).collect::<Result<Vec<Task>>>()?;
    outbox::put_tasks(db, &inserted.iter().collect::<Vec<_>>(), job.correlation_id.as_deref()).await
}

pub(super) async fn end(
    db: &mut Connection,
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
        "UPDATE jobs SET state = $3, result = $4, error = $5, ended_at = {{now}}
         WHERE job_id = $1 AND stage = $2 AND state IN ({guard})
           AND NOT EXISTS (SELECT 1 FROM stages WHERE job_id = $1 AND number = $2 AND remaining > 0)"
    );
    let ended = sqlx::query(sql(&update))
        .bind(id.as_str())
        .bind(i64::from(stage))
        .bind(state.as_str())
        .bind(result.map(Value::to_string))
        .bind(error.map(serde_json::to_string).transpose()?)
        .execute(&mut *db)
        .await?
        .rows_affected()
        == 1;
    if ended {
        let detail = error.map_or_else(|| state.to_string(), ToString::to_string);
        rows::events(db, &[NewEvent::of_job(id, "job_ended", Some(&detail))]).await?;
    }
    Ok(ended)
}
