//! `tasks`: those of a job.

use geoworker_machine::ErrorInfo;
use geoworker_store::Store;
use geoworker_store::decisions::DecisionLog;
use geoworker_store::records::Task;
use geoworker_worker::{Platform, TaskDetail, TaskView, find_job, find_task, task_waits_for};
use serde_json::{Value, json};

use super::jobs::{SHOWN_TASKS, print_events};
use super::submit::follow;
use crate::cli::TasksCommand;
use crate::config::Config;
use crate::context::Context;
use crate::exit::{OK, Outcome};
use crate::output;

pub(crate) async fn run(config: &Config, command: &TasksCommand, json: bool) -> Outcome {
    let context = Context::open_to_look(config).await?;
    let store = &*context.platform.store;
    match command {
        TasksCommand::List { job } => list(store, job, json).await?,
        TasksCommand::Show { task } => show(store, &*context.decisions, task, json).await?,
        TasksCommand::Cancel { task } => cancel(&context.platform, task, json).await?,
        TasksCommand::Retry { task, wait } => {
            let task = find_task(store, task).await?;
            let job = find_job(store, task.job_id.as_str()).await?;
            let submitted = context.platform.retry(&job, Some(&task.task_id)).await?;
            return follow(context, &submitted, *wait, json).await;
        }
    }
    context.close().await;
    Ok(OK)
}

async fn list(store: &dyn Store, job: &str, json: bool) -> Result<(), ErrorInfo> {
    let job = find_job(store, job).await?;
    let tasks = store.tasks(&job.job_id, SHOWN_TASKS).await.map_err(|error| error.info())?;
    if json {
        output::json(&tasks.into_iter().map(TaskView::from).collect::<Vec<_>>());
    } else {
        print(&tasks);
    }
    Ok(())
}

async fn show(
    store: &dyn Store,
    decisions: &dyn DecisionLog,
    task: &str,
    json: bool,
) -> Result<(), ErrorInfo> {
    let task = find_task(store, task).await?;
    let events = store.events(&task.job_id).await.map_err(|error| error.info())?;
    let handled = decisions.latest_handle(&task.task_id).await.map_err(|error| error.info())?;
    let detail = TaskDetail::new(task.clone(), events, handled);
    if json {
        output::json(&detail);
        return Ok(());
    }
    let optional = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for (name, value) in [
        ("task", task.task_id.to_string()),
        ("job", format!("{}, stage {}, unit {}", task.job_id, task.stage, task.unit)),
        ("type", task.task_type.clone()),
        ("state", task.state.to_string()),
        ("waiting", optional(task_waits_for(&task))),
        ("queue", format!("{} ({})", task.queue, task.route_reason)),
        ("attempt", format!("{} of {}", task.attempt, task.max_retries + 1)),
        ("worker", optional(task.worker.clone())),
        ("progress", format!("{:.0} % {}", task.progress * 100.0, optional(task.progress_message.clone()))),
        ("plugin", optional(task.plugin_digest.clone())),
        ("parameters", task.parameters.to_string()),
        ("result", optional(task.result.as_ref().map(Value::to_string))),
        ("error", optional(task.error.as_ref().map(ToString::to_string))),
    ] {
        output::line(&format!("{name:10} {value}"));
    }
    if let Some(handled) = &detail.handled {
        output::line(&format!("{:10} {}, geoworker {}", "contract", handled.contract, handled.host_version));
        for line in &handled.log {
            output::line(&format!("{:10} {line}", "log"));
        }
    }
    print_events(&detail.events);
    Ok(())
}

async fn cancel(platform: &Platform, task: &str, json: bool) -> Result<(), ErrorInfo> {
    let task = find_task(&*platform.store, task).await?;
    platform.cancel_task(&task.task_id).await?;
    platform.relay_once().await?;
    if json {
        output::json(&json!({"task_id": task.task_id, "cancelling": true}));
    } else {
        output::line(&format!("task {} is being cancelled", task.task_id.short()));
    }
    Ok(())
}

/// Prints tasks as a table.
pub(crate) fn print(tasks: &[Task]) {
    let heading =
        ["TASK", "STAGE", "TYPE", "UNIT", "STATE", "ATTEMPT", "QUEUE", "ROUTED BY", "WAITS FOR", "ERROR"]
            .map(str::to_owned)
            .to_vec();
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
            task_waits_for(task).unwrap_or_default(),
            task.error.as_ref().map_or_else(String::new, ToString::to_string),
        ]
    };
    output::table(&std::iter::once(heading).chain(tasks.iter().map(row)).collect::<Vec<_>>());
}
