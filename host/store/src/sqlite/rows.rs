//! Rows of SQLite to records, and the SQL pieces that all statements share.

use geoworker_machine::state::{sql_job_sources, sql_sources};
use geoworker_machine::{ErrorInfo, JobId, JobState, TaskId, TaskState};
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row};

use crate::error::StoreError;
use crate::records::{Event, Job, Stage, Task, UnitResult};

/// The database's clock in milliseconds.
pub(super) const NOW: &str = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";

/// Fills in `{now}` and the guards of the transition table, `{from:Claim}` and `{job_from:Failed}`.
pub(super) fn sql(template: &str) -> AssertSqlSafe<String> {
    use geoworker_machine::state::TaskEvent as E;
    let mut text = template.replace("{now}", NOW);
    for event in E::ALL {
        let mark = format!("{{from:{event:?}}}");
        if text.contains(&mark) {
            text = text.replace(&mark, &sql_sources(*event));
        }
    }
    for state in JobState::ALL {
        let mark = format!("{{job_from:{state:?}}}");
        if text.contains(&mark) {
            text = text.replace(&mark, &sql_job_sources(*state));
        }
    }
    AssertSqlSafe(text)
}

/// Writes one line of a timeline.
pub(super) async fn event(
    db: &mut SqliteConnection,
    job: &str,
    task: Option<&str>,
    kind: &str,
    attempt: Option<u32>,
    worker: Option<&str>,
    detail: Option<&str>,
) -> Result<(), StoreError> {
    const INSERT: &str = "INSERT INTO events (job_id, task_id, at, kind, attempt, worker, detail)
         VALUES (?, ?, CAST(unixepoch('subsec') * 1000 AS INTEGER), ?, ?, ?, ?)";
    sqlx::query(INSERT)
        .bind(job)
        .bind(task)
        .bind(kind)
        .bind(attempt)
        .bind(worker)
        .bind(detail)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) fn job(row: &SqliteRow) -> Result<Job, StoreError> {
    Ok(Job {
        job_id: id(row.try_get("job_id")?)?,
        job_type: row.try_get("job_type")?,
        parameters: json(row.try_get("parameters")?)?,
        run_ordinal: row.try_get("run_ordinal")?,
        previous_run: row.try_get::<Option<String>, _>("previous_run")?.map(id).transpose()?,
        correlation_id: row.try_get("correlation_id")?,
        plugin_digest: row.try_get("plugin_digest")?,
        stages: json(row.try_get("stages")?)?,
        state: named(row.try_get("state")?, JobState::from_name)?,
        stage: row.try_get("stage")?,
        cancelling: row.try_get("cancelling")?,
        result: row.try_get::<Option<String>, _>("result")?.map(json).transpose()?,
        error: error(row)?,
        created_at: row.try_get("created_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

pub(super) fn task(row: &SqliteRow) -> Result<Task, StoreError> {
    Ok(Task {
        task_id: task_id(row.try_get("task_id")?)?,
        job_id: id(row.try_get("job_id")?)?,
        job_type: row.try_get("job_type")?,
        stage: row.try_get("stage")?,
        position: row.try_get("position")?,
        unit: row.try_get("unit")?,
        task_type: row.try_get("task_type")?,
        parameters: json(row.try_get("parameters")?)?,
        queue: row.try_get("queue")?,
        route_reason: row.try_get("route_reason")?,
        max_retries: row.try_get("max_retries")?,
        timeout_seconds: row.try_get("timeout_seconds")?,
        state: named(row.try_get("state")?, TaskState::from_name)?,
        attempt: row.try_get("attempt")?,
        lease_epoch: row.try_get("lease_epoch")?,
        lease_until: row.try_get("lease_until")?,
        worker: row.try_get("worker")?,
        not_before: row.try_get("not_before")?,
        plugin_digest: row.try_get("plugin_digest")?,
        progress: row.try_get("progress")?,
        progress_message: row.try_get("progress_message")?,
        result: row.try_get::<Option<String>, _>("result")?.map(json).transpose()?,
        error: error(row)?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

pub(super) fn stage(row: &SqliteRow) -> Result<Stage, StoreError> {
    Ok(Stage {
        number: row.try_get("number")?,
        name: row.try_get("name")?,
        total: row.try_get("total")?,
        remaining: row.try_get("remaining")?,
        failed: row.try_get("failed")?,
        created_at: row.try_get("created_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

pub(super) fn timeline(row: &SqliteRow) -> Result<Event, StoreError> {
    Ok(Event {
        at: row.try_get("at")?,
        task_id: row.try_get::<Option<String>, _>("task_id")?.map(task_id).transpose()?,
        kind: row.try_get("kind")?,
        attempt: row.try_get("attempt")?,
        worker: row.try_get("worker")?,
        detail: row.try_get("detail")?,
    })
}

pub(super) fn unit_result(row: &SqliteRow) -> Result<UnitResult, StoreError> {
    Ok(UnitResult {
        unit: row.try_get("unit")?,
        state: named(row.try_get("state")?, TaskState::from_name)?,
        output: row.try_get("result")?,
        failure: error(row)?,
    })
}

pub(super) fn json<T: DeserializeOwned>(text: String) -> Result<T, StoreError> {
    Ok(serde_json::from_str(&text)?)
}

fn error(row: &SqliteRow) -> Result<Option<ErrorInfo>, StoreError> {
    row.try_get::<Option<String>, _>("error")?.map(json).transpose()
}

fn named<T>(name: String, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    parse(&name).ok_or_else(|| StoreError::Corrupt(format!("unknown state '{name}'")))
}

pub(super) fn id(text: String) -> Result<JobId, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt(format!("not a job id: '{text}'")))
}

pub(super) fn task_id(text: String) -> Result<TaskId, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt(format!("not a task id: '{text}'")))
}
