//! `jobs`: a list, or one job.

use geoworker_machine::ErrorInfo;
use geoworker_store::Store;
use geoworker_store::records::{Event, Job};
use geoworker_worker::{JobStatus, Platform, TaskView, find_job};
use serde_json::json;

use super::submit::follow;
use super::tasks;
use crate::cli::{JobsArgs, JobsCommand};
use crate::config::Config;
use crate::context::Context;
use crate::exit::{OK, Outcome};
use crate::output;

/// Tasks that one job shows.
pub(crate) const SHOWN_TASKS: u32 = 20_000;

pub(crate) async fn run(config: &Config, args: &JobsArgs, json: bool) -> Outcome {
    let context = match &args.command {
        Some(JobsCommand::Show { .. }) => Context::open_to_explain(config).await?,
        _ => Context::open_to_look(config).await?,
    };
    let store = &*context.platform.store;
    match &args.command {
        None => list(store, args.limit, json).await?,
        Some(JobsCommand::Show { job, events }) => show(&context.platform, job, *events, json).await?,
        Some(JobsCommand::Cancel { job }) => cancel(&context.platform, job, json).await?,
        Some(JobsCommand::Retry { job, wait }) => {
            let job = find_job(store, job).await?;
            let submitted = context.platform.retry(&job, None).await?;
            return follow(context, &submitted, *wait, json).await;
        }
        Some(JobsCommand::Rerun { job, wait }) => {
            let job = find_job(store, job).await?;
            let submitted = context.platform.rerun(&job).await?;
            return follow(context, &submitted, *wait, json).await;
        }
    }
    context.close().await;
    Ok(OK)
}

async fn cancel(platform: &Platform, prefix: &str, json: bool) -> Result<(), ErrorInfo> {
    let job = find_job(&*platform.store, prefix).await?;
    platform.cancel(&job.job_id).await?;
    platform.relay_once().await?;
    if json {
        output::json(&json!({"job_id": job.job_id, "cancelling": true}));
    } else {
        output::line(&format!("job {} is being cancelled", job.job_id.short()));
    }
    Ok(())
}

async fn list(store: &dyn Store, limit: u32, json: bool) -> Result<(), ErrorInfo> {
    let jobs = store.jobs("", limit).await.map_err(|error| error.info())?;
    if json {
        output::json(&jobs);
        return Ok(());
    }
    let heading = ["JOB", "TYPE", "STATE", "STAGE", "SUBMITTED", "ERROR"].map(str::to_owned).to_vec();
    let row = |job: &Job| {
        vec![
            job.job_id.short().to_owned(),
            job.job_type.clone(),
            job.state.to_string(),
            format!("{}/{}", job.stage, job.stages.len()),
            output::time(Some(job.created_at)),
            job.error.as_ref().map_or_else(String::new, |error| error.code.clone()),
        ]
    };
    output::table(&std::iter::once(heading).chain(jobs.iter().map(row)).collect::<Vec<_>>());
    Ok(())
}

async fn show(platform: &Platform, prefix: &str, with_events: bool, json: bool) -> Result<(), ErrorInfo> {
    let store = &*platform.store;
    let job = find_job(store, prefix).await?;
    let stages = store.stages(&job.job_id).await.map_err(|error| error.info())?;
    let waiting = platform.job_waits_for(&job, &stages).await?;
    let tasks = store.tasks(&job.job_id, SHOWN_TASKS).await.map_err(|error| error.info())?;
    let events =
        if with_events { store.events(&job.job_id).await.map_err(|error| error.info())? } else { Vec::new() };
    if json {
        let mut value = json!(JobStatus::new(job, stages, waiting));
        value["tasks"] = tasks.into_iter().map(|task| json!(TaskView::from(task))).collect();
        if with_events {
            value["events"] = json!(events);
        }
        output::json(&value);
        return Ok(());
    }
    print_job(&JobStatus::new(job, stages, waiting));
    tasks::print(&tasks);
    print_events(&events);
    Ok(())
}

fn print_job(job: &JobStatus) {
    output::line(&format!("job        {}", job.job_id));
    let previous =
        job.previous_run.as_ref().map_or_else(String::new, |run| format!(", after {}", run.short()));
    output::line(&format!("type       {} (run {}{previous})", job.job_type, job.run_ordinal));
    output::line(&format!("state      {}", job.state));
    if let Some(reason) = &job.waiting {
        output::line(&format!("waiting    {reason}"));
    }
    output::line(&format!("submitted  {}", output::time(Some(job.created_at))));
    output::line(&format!("ended      {}", output::time(job.ended_at)));
    output::line(&format!("parameters {}", job.parameters));
    if let Some(error) = &job.error {
        output::line(&format!("error      {error}"));
    }
    for stage in &job.stages {
        let done = stage.total - stage.remaining;
        let failed = if stage.failed > 0 { format!(", {} failed", stage.failed) } else { String::new() };
        output::line(&format!(
            "stage {}    {}: {done}/{} tasks{failed}",
            stage.number, stage.name, stage.total
        ));
    }
    if let Some(result) = &job.result {
        output::line("result");
        output::json(result);
    }
}

/// A timeline, a line each.
pub(crate) fn print_events(events: &[Event]) {
    for event in events {
        let task = event.task_id.as_ref().map_or("", |id| id.short());
        let attempt = event.attempt.map_or_else(String::new, |attempt| format!("attempt {attempt}"));
        let detail = event.detail.as_deref().unwrap_or_default();
        output::line(&format!(
            "{}  {:16} {task:12} {attempt:10} {detail}",
            output::time(Some(event.at)),
            event.kind
        ));
    }
}
