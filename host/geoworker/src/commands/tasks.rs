//! `tasks`: those of a job.

use geoworker_store::records::Task;

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
        output::json(&tasks);
    } else {
        print(&tasks);
    }
    context.close().await;
    Ok(OK)
}

/// Prints tasks as a table.
pub(crate) fn print(tasks: &[Task]) {
    let heading = ["TASK", "STAGE", "TYPE", "UNIT", "STATE", "ATTEMPT", "QUEUE", "ROUTED BY", "ERROR"]
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
            task.error.as_ref().map_or_else(String::new, ToString::to_string),
        ]
    };
    output::table(&std::iter::once(heading).chain(tasks.iter().map(row)).collect::<Vec<_>>());
}
