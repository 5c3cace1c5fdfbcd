//! `tasks`: those of a job.

use chrono::Utc;
use geoworker_machine::TaskState;
use geoworker_store::records::Task;
use serde_json::{Value, json};

use super::jobs::{SHOWN_TASKS, find};
use crate::config::Config;
use crate::context::Context;
use crate::exit::{OK, Outcome};
use crate::output;

pub(crate) async fn run(config: &Config, job: &str, json: bool) -> Outcome {
    let context = Context::open_to_look(config).await?;
    let job = find(&*context.platform.store, job).await?;
    let tasks = context.platform.store.tasks(&job.job_id, SHOWN_TASKS).await.map_err(|error| error.info())?;
    if json {
        output::json(&values(&tasks));
    } else {
        print(&tasks);
    }
    context.close().await;
    Ok(OK)
}

/// Tasks for programs, each with what it waits for.
pub(crate) fn values(tasks: &[Task]) -> Vec<Value> {
    let value = |task: &Task| {
        let mut value = json!(task);
        value["waiting"] = json!(waiting(task, Utc::now().timestamp_millis()));
        value
    };
    tasks.iter().map(value).collect()
}

/// Why a task that is not over does not run; none where it runs.
fn waiting(task: &Task, now: i64) -> Option<String> {
    let code = || task.error.as_ref().map_or("an error", |error| error.code.as_str());
    match task.state {
        TaskState::Pending => Some("its message is about to be sent".into()),
        TaskState::Queued => Some(format!("a free slot on {}, or its plugin", task.queue)),
        TaskState::PendingRetry => {
            Some(format!("its next attempt at {}, after {}", output::time(Some(task.not_before)), code()))
        }
        TaskState::Processing if task.lease_until < now => {
            let worker = task.worker.as_deref().unwrap_or("its worker");
            Some(format!("another worker: {worker} does not answer"))
        }
        _ => None,
    }
}

/// Prints tasks as a table.
pub(crate) fn print(tasks: &[Task]) {
    let heading =
        ["TASK", "STAGE", "TYPE", "UNIT", "STATE", "ATTEMPT", "QUEUE", "ROUTED BY", "WAITS FOR", "ERROR"]
            .map(str::to_owned)
            .to_vec();
    let now = Utc::now().timestamp_millis();
    let row = |task: &Task| {
        vec![
            task.task_id.short().to_owned(),
            task.stage.to_string(),
            task.task_type.clone(),
            task.unit.clone(),
            task.state.to_string(),
            format!("{}/{}", task.attempt, task.max_retries + 1),
            task.queue.clone(),
            task.route_reason.clone(),
            waiting(task, now).unwrap_or_default(),
            task.error.as_ref().map_or_else(String::new, ToString::to_string),
        ]
    };
    output::table(&std::iter::once(heading).chain(tasks.iter().map(row)).collect::<Vec<_>>());
}
