//! `jobs`: a list, or one job.

use geoworker_machine::{ErrorInfo, codes};
use geoworker_store::Store;
use geoworker_store::records::{Event, Job, Stage};
use geoworker_worker::Platform;
use serde_json::json;

use super::submit::follow;
use super::tasks;
use super::wait::summary;
use crate::cli::{JobsArgs, JobsCommand};
use crate::config::Config;
use crate::context::Context;
use crate::exit::{OK, Outcome};
use crate::output;

/// Tasks that one job shows.
pub(crate) const SHOWN_TASKS: u32 = 20_000;

pub(crate) async fn run(config: &Config, args: &JobsArgs, json: bool) -> Outcome {
    let context = Context::open_to_look(config).await?;
    let store = &*context.platform.store;
    match &args.command {
        None => list(store, args.limit, json).await?,
        Some(JobsCommand::Show { job, events }) => show(store, job, *events, json).await?,
        Some(JobsCommand::Cancel { job }) => cancel(&context.platform, job, json).await?,
        Some(JobsCommand::Retry { job, wait }) => {
            let job = find(store, job).await?;
            let submitted = context.platform.retry(&job, None).await?;
            return follow(context, &submitted, *wait, json).await;
        }
        Some(JobsCommand::Rerun { job, wait }) => {
            let job = find(store, job).await?;
            let submitted = context.platform.rerun(&job).await?;
            return follow(context, &submitted, *wait, json).await;
        }
    }
    context.close().await;
    Ok(OK)
}

async fn cancel(platform: &Platform, prefix: &str, json: bool) -> Result<(), ErrorInfo> {
    let job = find(&*platform.store, prefix).await?;
    platform.cancel(&job.job_id).await?;
    platform.relay_once().await?;
    if json {
        output::json(&json!({"job_id": job.job_id, "cancelling": true}));
    } else {
        output::line(&format!("job {} is being cancelled", job.job_id.short()));
    }
    Ok(())
}

/// The one job whose id begins with `prefix`.
///
/// # Errors
/// `JOB_NOT_FOUND` where there is none, or more than one.
pub(crate) async fn find(store: &dyn Store, prefix: &str) -> Result<Job, ErrorInfo> {
    let mut jobs = store.jobs(prefix, 2).await.map_err(|error| error.info())?;
    let wrong = |message: String| Err(ErrorInfo::permanent(codes::JOB_NOT_FOUND, message));
    let shown = prefix.escape_debug();
    match (jobs.pop(), jobs.pop()) {
        (Some(job), None) if !prefix.is_empty() => Ok(job),
        (None, _) => wrong(format!("there is no job '{shown}'")),
        _ => wrong(format!("more than one job begins with '{shown}'")),
    }
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

async fn show(store: &dyn Store, prefix: &str, with_events: bool, json: bool) -> Result<(), ErrorInfo> {
    let job = find(store, prefix).await?;
    let stages = store.stages(&job.job_id).await.map_err(|error| error.info())?;
    let tasks = store.tasks(&job.job_id, SHOWN_TASKS).await.map_err(|error| error.info())?;
    let events =
        if with_events { store.events(&job.job_id).await.map_err(|error| error.info())? } else { Vec::new() };
    if json {
        let mut value = summary(&job, &stages);
        value["tasks"] = json!(tasks::values(&tasks));
        if with_events {
            value["events"] = json!(events);
        }
        output::json(&value);
        return Ok(());
    }
    print_job(&job, &stages);
    tasks::print(&tasks);
    print_events(&events);
    Ok(())
}

fn print_job(job: &Job, stages: &[Stage]) {
    output::line(&format!("job        {}", job.job_id));
    let previous =
        job.previous_run.as_ref().map_or_else(String::new, |run| format!(", after {}", run.short()));
    output::line(&format!("type       {} (run {}{previous})", job.job_type, job.run_ordinal));
    output::line(&format!("state      {}", job.state));
    output::line(&format!("submitted  {}", output::time(Some(job.created_at))));
    output::line(&format!("ended      {}", output::time(job.ended_at)));
    output::line(&format!("parameters {}", job.parameters));
    if let Some(error) = &job.error {
        output::line(&format!("error      {error}"));
    }
    for stage in stages {
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
