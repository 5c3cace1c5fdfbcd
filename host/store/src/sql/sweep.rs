//! The sweeper: writes lost messages again. It changes no state; the ordinary transitions do the rest.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::Row as _;

use super::super::dialect::Connection;
use super::rows::{self, NewEvent, list, sql};
use super::{cancel, outbox};
use crate::error::StoreError;
use crate::records::{Job, Swept, Task};

type Result<T> = std::result::Result<T, StoreError>;

/// Hints that one pass sends at most.
const LIMIT: i64 = 1000;

pub(super) async fn sweep(
    db: &mut Connection,
    quiet_ms: i64,
    jobs_queue: &str,
    app_name: &str,
    ahead: &BTreeMap<String, u64>,
) -> Result<Swept> {
    let tasks = sweep_tasks(db, quiet_ms, ahead).await?;
    let cancelled = cancel::sweep(db, jobs_queue, app_name).await?;
    let jobs = sweep_jobs(db, quiet_ms, jobs_queue, app_name).await?;
    Ok(Swept { tasks, jobs, cancelled })
}

/// Tasks whose lease ran out, and those that are due, were not hinted at lately and cannot all have their message.
async fn sweep_tasks(db: &mut Connection, quiet_ms: i64, ahead: &BTreeMap<String, u64>) -> Result<u64> {
    let mut tasks = hint(db, "state = 'processing' AND lease_until <= {now}", "", quiet_ms, LIMIT).await?;
    for (queue, missing) in missing_messages(db, ahead).await? {
        let waiting = "state IN ('pending', 'queued', 'pending_retry')";
        tasks.extend(hint(db, waiting, &queue, quiet_ms, missing.min(LIMIT)).await?);
    }
    outbox::put_tasks(db, &tasks.iter().collect::<Vec<_>>(), None).await?;
    let lines: Vec<NewEvent<'_>> = tasks
        .iter()
        .map(|task| NewEvent::of_task(task, "task_hinted_again", Some(task.state.as_str())))
        .collect();
    rows::events(db, &lines).await?;
    Ok(tasks.len() as u64)
}

/// Marks tasks of a queue (all, where it has no name) as hinted at: at most `limit`, those that have waited longest first.
async fn hint(db: &mut Connection, which: &str, queue: &str, quiet_ms: i64, limit: i64) -> Result<Vec<Task>> {
    let due = sql(&format!(
        "UPDATE tasks SET hint_at = {{now}}
         WHERE task_id {{among}} SELECT task_id FROM tasks
                 WHERE ended_at IS NULL AND hint_at <= {{now}} - $1
                   AND not_before <= {{now}} - (CASE WHEN not_before > 0 THEN $1 ELSE 0 END)
                   AND {which} AND ($3 = '' OR queue = $3)
                 ORDER BY hint_at LIMIT $2 {{skip_locked}} {{end}}
         RETURNING *"
    ));
    let found = sqlx::query(due).bind(quiet_ms).bind(limit).bind(queue).fetch_all(db).await?;
    found.iter().map(rows::task).collect()
}

/// How many messages are missing, by queue, where each waiting task has one: a backlog waits behind its own messages, and more of them would only make it
/// wait longer. A queue whose depth is not known may miss them all.
async fn missing_messages(db: &mut Connection, ahead: &BTreeMap<String, u64>) -> Result<Vec<(String, i64)>> {
    let count = "SELECT queue, count(*) AS open,
             (SELECT count(*) FROM outbox WHERE outbox.queue = tasks.queue) AS unsent
         FROM tasks WHERE ended_at IS NULL AND state <> 'processing'
         GROUP BY queue ORDER BY queue";
    let mut missing = Vec::new();
    for row in sqlx::query(count).fetch_all(db).await? {
        let queue: String = row.try_get("queue")?;
        let (open, unsent): (i64, i64) = (row.try_get("open")?, row.try_get("unsent")?);
        let held = ahead.get(&queue).map_or(0, |messages| i64::try_from(*messages).unwrap_or(i64::MAX));
        let without = open.saturating_sub(held).saturating_sub(unsent);
        if without > 0 {
            missing.push((queue, without));
        }
    }
    Ok(missing)
}

/// Jobs that nobody planned, and stages that are over and were not advanced.
async fn sweep_jobs(db: &mut Connection, quiet_ms: i64, jobs_queue: &str, app_name: &str) -> Result<u64> {
    let stuck = sql("SELECT j.* FROM jobs j
         LEFT JOIN stages s ON s.job_id = j.job_id AND s.number = j.stage
         WHERE j.ended_at IS NULL AND j.hint_at <= {now} - $1
           AND (j.state = 'queued' OR (s.remaining = 0 AND s.ended_at <= {now} - $1))
         LIMIT $2");
    let found = sqlx::query(stuck).bind(quiet_ms).bind(LIMIT).fetch_all(&mut *db).await?;
    let jobs = found.iter().map(rows::job).collect::<Result<Vec<Job>>>()?;
    for job in &jobs {
        if job.stage == 0 {
            outbox::put_job(db, jobs_queue, job).await?;
        } else {
            outbox::put_stage_complete(db, jobs_queue, app_name, job, job.stage).await?;
        }
    }
    let hinted =
        sql("UPDATE jobs SET hint_at = {now} WHERE job_id {among} SELECT value->>'id' FROM {each:$1} {end}");
    let ids: Vec<_> = jobs.iter().map(|job| json!({"id": job.job_id})).collect();
    sqlx::query(hinted).bind(list(&ids)?).execute(&mut *db).await?;
    let lines: Vec<NewEvent<'_>> =
        jobs.iter().map(|job| NewEvent::of_job(&job.job_id, "job_hinted_again", None)).collect();
    rows::events(db, &lines).await?;
    Ok(jobs.len() as u64)
}

/// Gives back what the processes before held; only for the exclusive owner of the database.
pub(super) async fn release_all(db: &mut Connection) -> Result<u64> {
    let expire = sql("UPDATE tasks SET lease_until = 0, hint_at = 0 WHERE state = 'processing'");
    let released = sqlx::query(expire).execute(&mut *db).await?.rows_affected();
    let unlock = sql("UPDATE queue_messages SET lock_token = NULL, visible_at = {now}
         WHERE lock_token IS NOT NULL AND dead_at IS NULL");
    sqlx::query(unlock).execute(&mut *db).await?;
    sqlx::query("UPDATE outbox SET held_until = 0").execute(&mut *db).await?;
    sqlx::query("DELETE FROM leases").execute(db).await?;
    Ok(released)
}
