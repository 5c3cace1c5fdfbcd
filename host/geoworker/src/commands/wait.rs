//! Waiting for a job, with its progress on the terminal.

use std::io::IsTerminal;
use std::time::Duration;

use geoworker_machine::{ErrorInfo, JobId, JobState, codes};
use geoworker_store::records::{Job, Stage, Task};
use geoworker_worker::{JobStatus, Platform};
use indicatif::{ProgressBar, ProgressStyle};

use crate::exit::{NEGATIVE, OK};
use crate::output;

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Steps of the bar.
const STEPS: u64 = 1000;
/// Tasks whose own progress is shown; a stage with more is shown by its count.
const FEW_TASKS: u32 = 8;

/// Waits for a job's end.
///
/// # Errors
/// Where the store does not answer or the job is gone.
pub(crate) async fn wait(platform: &Platform, id: &JobId) -> Result<Job, ErrorInfo> {
    let bar = bar();
    loop {
        let job = platform
            .store
            .job(id)
            .await
            .map_err(|error| error.info())?
            .ok_or_else(|| ErrorInfo::permanent(codes::JOB_NOT_FOUND, format!("there is no job {id}")))?;
        if job.state.is_final() {
            bar.finish_and_clear();
            return Ok(job);
        }
        let stages = platform.store.stages(id).await.map_err(|error| error.info())?;
        if let Some(stage) = stages.last() {
            let tasks = if stage.total <= FEW_TASKS {
                platform.store.tasks(id, 1000).await.unwrap_or_default()
            } else {
                Vec::new()
            };
            show(&bar, &job, stage, &tasks);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(STEPS);
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:30}] {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn show(bar: &ProgressBar, job: &Job, stage: &Stage, tasks: &[Task]) {
    let ended = f64::from(stage.total - stage.remaining);
    let running: Vec<&Task> =
        tasks.iter().filter(|task| task.stage == stage.number && task.ended_at.is_none()).collect();
    let partial: f64 = running.iter().map(|task| task.progress).sum();
    let of_stage = (ended + partial) / f64::from(stage.total.max(1));
    let whole = (f64::from(stage.number - 1) + of_stage) / job.stages.len().max(1) as f64;
    bar.set_position((whole * STEPS as f64) as u64);
    let doing = running.iter().find_map(|task| task.progress_message.clone()).unwrap_or_default();
    let count = format!("{}/{} tasks", stage.total - stage.remaining, stage.total);
    bar.set_message(format!("stage {}/{} {} {count} {doing}", stage.number, job.stages.len(), stage.name));
}

/// Prints how a job ended; the exit code says it too.
///
/// # Errors
/// Where the store does not answer.
pub(crate) async fn print_end(platform: &Platform, job: &Job, json: bool) -> Result<u8, ErrorInfo> {
    let stages = platform.store.stages(&job.job_id).await.map_err(|error| error.info())?;
    let good = matches!(job.state, JobState::Completed | JobState::CompletedWithErrors);
    let code = if good { OK } else { NEGATIVE };
    if json {
        output::json(&JobStatus::new(job.clone(), stages, None));
        return Ok(code);
    }
    output::line(&format!("job {} {} after {}", job.job_id.short(), job.state, output::span(duration(job))));
    for stage in &stages {
        let ms = stage.ended_at.map_or(0, |ended| ended - stage.created_at);
        output::line(&format!(
            "  stage {} {}: {} tasks, {}",
            stage.number,
            stage.name,
            stage.total,
            output::span(ms)
        ));
    }
    if let Some(result) = &job.result {
        output::json(result);
    }
    if let Some(error) = &job.error {
        eprintln!("error [{}]: {}", error.code, error.message);
        if let Some(known) = codes::find(&error.code) {
            eprintln!("  {}", error.hint.as_deref().unwrap_or(known.action));
        }
    }
    Ok(code)
}

fn duration(job: &Job) -> i64 {
    job.ended_at.map_or(0, |ended| ended - job.created_at)
}
