//! Rows to records, and the SQL pieces that all statements share.

use geoworker_machine::state::{sql_job_sources, sql_sources};
use geoworker_machine::{ErrorInfo, JobId, JobState, TaskId, TaskState};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{AssertSqlSafe, Row as _};

use super::super::dialect::{self, Connection, Row};
use crate::error::StoreError;
use crate::records::{Event, Job, Stage, Task, UnitResult};

/// Fills in the dialect's pieces (`{now}`, `{each:$1}`, `{greatest}`, `{skip_locked}`) and the guards of the
/// transition table, `{from:Claim}` and `{job_from:Failed}`.
pub(super) fn sql(template: &str) -> AssertSqlSafe<String> {
    use geoworker_machine::state::TaskEvent as E;
    let mut text = dialect::fill(template);
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

/// A JSON list, for `{each:$1}`.
pub(super) fn list(values: &impl Serialize) -> Result<String, StoreError> {
    Ok(serde_json::to_string(values)?)
}

/// One line of a timeline to write.
#[derive(Debug, Serialize)]
pub(super) struct NewEvent<'a> {
    pub(super) job: &'a str,
    pub(super) task: Option<&'a str>,
    pub(super) kind: &'a str,
    pub(super) attempt: Option<u32>,
    pub(super) worker: Option<&'a str>,
    pub(super) detail: Option<&'a str>,
}

impl<'a> NewEvent<'a> {
    /// About a job as a whole.
    pub(super) fn of_job(job: &'a JobId, kind: &'a str, detail: Option<&'a str>) -> Self {
        Self { job: job.as_str(), task: None, kind, attempt: None, worker: None, detail }
    }

    /// About a task's latest attempt.
    pub(super) fn of_task(task: &'a Task, kind: &'a str, detail: Option<&'a str>) -> Self {
        Self {
            job: task.job_id.as_str(),
            task: Some(task.task_id.as_str()),
            kind,
            attempt: Some(task.attempt),
            worker: task.worker.as_deref(),
            detail,
        }
    }
}

/// Writes lines of timelines.
pub(super) async fn events(db: &mut Connection, lines: &[NewEvent<'_>]) -> Result<(), StoreError> {
    if lines.is_empty() {
        return Ok(());
    }
    let insert = sql("INSERT INTO events (job_id, task_id, at, kind, attempt, worker, detail)
         SELECT value->>'job', value->>'task', {now}, value->>'kind', CAST(value->>'attempt' AS BIGINT),
             value->>'worker', value->>'detail' FROM {each:$1}");
    sqlx::query(insert).bind(list(&lines)?).execute(db).await?;
    Ok(())
}

pub(super) fn job(row: &Row) -> Result<Job, StoreError> {
    Ok(Job {
        job_id: id(row.try_get("job_id")?)?,
        job_type: row.try_get("job_type")?,
        parameters: json(row.try_get("parameters")?)?,
        run_ordinal: number(row, "run_ordinal")?,
        previous_run: row.try_get::<Option<String>, _>("previous_run")?.map(id).transpose()?,
        correlation_id: row.try_get("correlation_id")?,
        plugin_digest: row.try_get("plugin_digest")?,
        stages: json(row.try_get("stages")?)?,
        state: named(row.try_get("state")?, JobState::from_name)?,
        stage: number(row, "stage")?,
        cancelling: row.try_get("cancelling")?,
        result: row.try_get::<Option<String>, _>("result")?.map(json).transpose()?,
        error: error(row)?,
        created_at: row.try_get("created_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

pub(super) fn task(row: &Row) -> Result<Task, StoreError> {
    Ok(Task {
        task_id: task_id(row.try_get("task_id")?)?,
        job_id: id(row.try_get("job_id")?)?,
        job_type: row.try_get("job_type")?,
        stage: number(row, "stage")?,
        position: number(row, "position")?,
        unit: row.try_get("unit")?,
        task_type: row.try_get("task_type")?,
        parameters: json(row.try_get("parameters")?)?,
        queue: row.try_get("queue")?,
        route_reason: row.try_get("route_reason")?,
        max_retries: number(row, "max_retries")?,
        timeout_seconds: number(row, "timeout_seconds")?,
        state: named(row.try_get("state")?, TaskState::from_name)?,
        attempt: number(row, "attempt")?,
        lease_epoch: row.try_get("lease_epoch")?,
        lease_until: row.try_get("lease_until")?,
        worker: row.try_get("worker")?,
        not_before: row.try_get("not_before")?,
        plugin_digest: row.try_get("plugin_digest")?,
        cancelling: row.try_get("cancelling")?,
        progress: row.try_get("progress")?,
        progress_message: row.try_get("progress_message")?,
        result: row.try_get::<Option<String>, _>("result")?.map(json).transpose()?,
        error: error(row)?,
        created_at: row.try_get("created_at")?,
        started_at: row.try_get("started_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

pub(super) fn stage(row: &Row) -> Result<Stage, StoreError> {
    Ok(Stage {
        number: number(row, "number")?,
        name: row.try_get("name")?,
        total: number(row, "total")?,
        remaining: number(row, "remaining")?,
        failed: number(row, "failed")?,
        created_at: row.try_get("created_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

pub(super) fn timeline(row: &Row) -> Result<Event, StoreError> {
    let attempt = row.try_get::<Option<i64>, _>("attempt")?;
    Ok(Event {
        at: row.try_get("at")?,
        task_id: row.try_get::<Option<String>, _>("task_id")?.map(task_id).transpose()?,
        kind: row.try_get("kind")?,
        attempt: attempt.map(|attempt| fits("attempt", attempt)).transpose()?,
        worker: row.try_get("worker")?,
        detail: row.try_get("detail")?,
    })
}

pub(super) fn unit_result(row: &Row) -> Result<UnitResult, StoreError> {
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

/// A count or ordinal: a 64-bit column in both databases.
pub(super) fn number(row: &Row, column: &str) -> Result<u32, StoreError> {
    fits(column, row.try_get(column)?)
}

fn fits(column: &str, value: i64) -> Result<u32, StoreError> {
    u32::try_from(value).map_err(|_| StoreError::Corrupt(format!("{column} is {value}")))
}

fn error(row: &Row) -> Result<Option<ErrorInfo>, StoreError> {
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
