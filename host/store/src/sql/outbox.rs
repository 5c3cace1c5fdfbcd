//! Messages that are written with the rows they are about, and taken from here by relays.

use chrono::Utc;
use geoworker_machine::messages::STAGE_COMPLETE;
use geoworker_machine::{JobMessage, StageComplete, TaskMessage};
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::Row as _;

use super::super::dialect::Connection;
use super::rows::{list, sql};
use crate::error::StoreError;
use crate::records::{Job, OutboxRow, Task};

type Result<T> = std::result::Result<T, StoreError>;

/// Parameters above this many bytes stay out of the message: the row is the truth.
const INLINE_PARAMETERS: usize = 16 * 1024;

/// A message to leave for the relay.
#[derive(Debug, Serialize)]
struct Letter<'a> {
    queue: &'a str,
    body: String,
    job: &'a str,
    task: Option<&'a str>,
    not_before: i64,
}

async fn put(db: &mut Connection, letters: &[Letter<'_>]) -> Result<()> {
    if letters.is_empty() {
        return Ok(());
    }
    let insert = sql("INSERT INTO outbox (queue, body, job_id, task_id, not_before)
         SELECT value->>'queue', value->>'body', value->>'job', value->>'task',
             CAST(value->>'not_before' AS BIGINT)
         FROM {each:$1}");
    sqlx::query(insert).bind(list(&letters)?).execute(db).await?;
    Ok(())
}

/// Parameters that are small enough to travel with the message.
fn inline(parameters: &Value) -> Option<&Map<String, Value>> {
    parameters.as_object().filter(|_| parameters.to_string().len() <= INLINE_PARAMETERS)
}

pub(super) async fn put_job(db: &mut Connection, queue: &str, job: &Job) -> Result<()> {
    let message = JobMessage {
        job_id: job.job_id.clone(),
        job_type: job.job_type.clone(),
        parameters: inline(&job.parameters).cloned().unwrap_or_default(),
        stage: 1,
        correlation_id: job.correlation_id.clone(),
        timestamp: Utc::now(),
    };
    about_job(db, queue, job, serde_json::to_string(&message)?).await
}

pub(super) async fn put_stage_complete(
    db: &mut Connection,
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
    about_job(db, queue, job, serde_json::to_string(&message)?).await
}

async fn about_job(db: &mut Connection, queue: &str, job: &Job, body: String) -> Result<()> {
    put(db, &[Letter { queue, body, job: job.job_id.as_str(), task: None, not_before: 0 }]).await
}

pub(super) async fn put_tasks(
    db: &mut Connection,
    tasks: &[&Task],
    correlation_id: Option<&str>,
) -> Result<()> {
    let letters = tasks.iter().map(|task| letter(task, correlation_id)).collect::<Result<Vec<_>>>()?;
    put(db, &letters).await
}

fn letter<'a>(task: &'a Task, correlation_id: Option<&str>) -> Result<Letter<'a>> {
    let parameters = inline(&task.parameters);
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
    Ok(Letter {
        queue: &task.queue,
        body: serde_json::to_string(&message)?,
        job: task.job_id.as_str(),
        task: Some(task.task_id.as_str()),
        not_before: task.not_before,
    })
}

/// Takes messages out for `hold_ms`: no other relay sees them meanwhile, and a relay that dies only delays them.
pub(super) async fn take(db: &mut Connection, limit: u32, hold_ms: i64) -> Result<Vec<OutboxRow>> {
    let hold = sql("UPDATE outbox SET held_until = {now} + $2
         WHERE id {among} SELECT id FROM outbox WHERE held_until <= {now} ORDER BY id LIMIT $1 {skip_locked} {end}
         RETURNING id, queue, body, {greatest}(not_before - {now}, 0) AS delay");
    let found = sqlx::query(hold).bind(i64::from(limit)).bind(hold_ms).fetch_all(db).await?;
    let mut rows = found
        .iter()
        .map(|row| {
            Ok(OutboxRow {
                id: row.try_get("id")?,
                queue: row.try_get("queue")?,
                body: row.try_get("body")?,
                delay_ms: row.try_get("delay")?,
            })
        })
        .collect::<Result<Vec<OutboxRow>>>()?;
    rows.sort_by_key(|row| row.id);
    Ok(rows)
}

pub(super) async fn sent(db: &mut Connection, ids: &[i64]) -> Result<()> {
    let ids = list(&ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>())?;
    let mark = sql("UPDATE tasks SET state = 'queued' WHERE state IN ({from:Sent}) AND task_id {among} SELECT task_id FROM outbox
             WHERE id {among} SELECT CAST(value->>'id' AS BIGINT) FROM {each:$1} {end} {end}");
    sqlx::query(mark).bind(&ids).execute(&mut *db).await?;
    let delete =
        sql("DELETE FROM outbox WHERE id {among} SELECT CAST(value->>'id' AS BIGINT) FROM {each:$1} {end}");
    sqlx::query(delete).bind(&ids).execute(db).await?;
    Ok(())
}
