//! One attempt of a task: claim, keep the lease, run the handler, write the outcome, settle the message.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use geoworker_machine::retry::{RetryPolicy, Verdict};
use geoworker_machine::{ErrorInfo, TaskMessage, codes};
use geoworker_plugins::{JournaledOperation, LoadedPlugin, PluginError, TaskContext, TaskTypeInfo};
use geoworker_queue::ReceivedMessage;
use geoworker_store::records::{Claim, ClaimRequest, Fenced, Job, Outcome, Task};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::core::rfc3339;
use crate::keeper::{Progress, Stops, keep};
use crate::messages::Settlement;
use crate::operations::{Deferral, Journaled, TaskServices};
use crate::platform::Platform;
use crate::settings::millis;
use crate::supervisor::Native;

/// How long an attempt that must end may take to end by itself.
const ENDING: Duration = Duration::from_secs(3);
/// Tries to write an outcome; the keeper holds the lease meanwhile.
const FINISH_TRIES: u32 = 30;
/// How long a deferred attempt waits.
const DEFERRAL: Duration = Duration::from_secs(30);
/// Between those tries.
const FINISH_PAUSE: Duration = Duration::from_secs(1);

/// Deals with a task message. `interrupt` ends the attempt and gives the task back.
pub(crate) async fn on_task(
    platform: &Platform,
    message: &ReceivedMessage,
    interrupt: &CancellationToken,
) -> Result<Settlement, ErrorInfo> {
    let parsed: TaskMessage = match serde_json::from_str(&message.body) {
        Ok(parsed) => parsed,
        Err(error) => return Ok(Settlement::dead(codes::MESSAGE_INVALID, &error.to_string())),
    };
    // The attempt ends on the version that it begins with, whatever is reloaded meanwhile.
    let Ok((plugin, info)) = platform.registry().task_type(&parsed.task_type) else {
        tracing::warn!(task_id = %parsed.task_id, task_type = parsed.task_type, "no plugin offers this task type: the task waits");
        return Ok(Settlement::NoPlugin);
    };
    let request = ClaimRequest {
        worker: &platform.settings.worker_id,
        lease_ms: platform.settings.lease_ms(),
        plugin_digest: &plugin.digest,
    };
    let task = match platform.store.claim(&parsed.task_id, request).await.map_err(|error| error.info())? {
        Claim::Claimed(task) => *task,
        Claim::NotDue(ms) => return Ok(Settlement::Later(ms)),
        // If the holder dies, whoever looks when its lease ends takes over; the sweeper would come later.
        Claim::Busy(ms) => return Ok(Settlement::Later(ms)),
        Claim::Over => return Ok(Settlement::Complete),
        Claim::Unknown => {
            return Ok(Settlement::dead(
                codes::MESSAGE_INVALID,
                "there is no such task; the row is the truth",
            ));
        }
    };
    let Some(job) = platform.store.job(&task.job_id).await.map_err(|error| error.info())? else {
        return Ok(Settlement::dead(codes::JOB_NOT_FOUND, "the task's job is gone"));
    };
    let span = tracing::info_span!(
        "task",
        task_id = %task.task_id,
        job_id = %task.job_id,
        task_type = task.task_type,
        stage = task.stage,
        attempt = task.attempt
    );
    Ok(run(platform, &plugin, &info, task, &job, message, interrupt).instrument(span).await)
}

async fn run(
    platform: &Platform,
    plugin: &LoadedPlugin,
    info: &TaskTypeInfo,
    task: Task,
    job: &Job,
    message: &ReceivedMessage,
    interrupt: &CancellationToken,
) -> Settlement {
    let started = Instant::now();
    let _working = platform.truth.working();
    let progress: Progress = Arc::new(Mutex::new(None));
    let stops = Stops::new(interrupt);
    let keeper = keep(platform.clone(), task.clone(), message.clone(), Arc::clone(&progress), stops.clone());
    let keeper = tokio::spawn(keeper.in_current_span());
    let outcome = attempt(platform, plugin, info, &task, job, progress, &stops.over, started).await;
    let outcome = if stops.cancelled.is_cancelled() { Outcome::Cancelled } else { outcome };
    let written = write_outcome(platform, &task, &outcome, &stops).await;
    stops.done.cancel();
    // The keeper only waits and renews; its end has nothing to tell.
    let _ = keeper.await;
    platform.outbox_written.notify_one();
    platform.metrics.attempt_ended(&task.task_type, &outcome, written);
    report(&outcome, written, started.elapsed());
    match (written, outcome) {
        (Some(Fenced::Accepted), Outcome::Failed(error)) => Settlement::dead(&error.code, &error.message),
        (Some(Fenced::Accepted), Outcome::GiveBack(_)) | (None, _) => Settlement::Abandon,
        // Retries and deferred attempts have a message of their own.
        _ => Settlement::Complete,
    }
}

#[expect(clippy::too_many_arguments, reason = "everything that one attempt is made of")]
async fn attempt(
    platform: &Platform,
    plugin: &LoadedPlugin,
    info: &TaskTypeInfo,
    task: &Task,
    job: &Job,
    progress: Progress,
    over: &CancellationToken,
    started: Instant,
) -> Outcome {
    if task.attempt > task.max_retries + 1 {
        let message = format!("{} attempts ended without an answer", task.attempt - 1);
        return Outcome::Failed(ErrorInfo::permanent(codes::ATTEMPTS_EXHAUSTED, message));
    }
    let binding = match binding(platform, plugin, info, task).await {
        Ok(binding) => binding,
        Err(error)
            if error.code == codes::BLOB_STORAGE_UNAVAILABLE && !platform.storage_is_reached().await =>
        {
            return Outcome::Deferred { reason: error.message, delay_ms: millis(DEFERRAL) };
        }
        Err(error) => return decide(platform, task, Err(PluginError::Failed(error)), None),
    };
    // The first claim of a task finds nothing that was finished before.
    let journal = if task.lease_epoch == 1 {
        Vec::new()
    } else {
        match platform.store.journal(&task.task_id, task.lease_epoch, &binding).await {
            Ok(journal) => journal,
            Err(error) => return Outcome::GiveBack(error.to_string()),
        }
    };
    if !journal.is_empty() {
        tracing::info!(operations = journal.len(), "finished operations are answered from the journal");
    }
    let deferred = Deferral::default();
    let services = TaskServices {
        platform: platform.clone(),
        task: task.clone(),
        plugin_digest: plugin.digest.clone(),
        native: Native::new(&platform.settings, Arc::clone(&platform.admission)),
        progress,
        over: over.clone(),
        started,
        binding,
        journaled: Journaled::of(&journal),
        deferred: Arc::clone(&deferred),
    };
    let journal = journal
        .into_iter()
        .map(|entry| JournaledOperation {
            sequence: entry.sequence,
            operation: entry.operation,
            request_hash: entry.request_hash,
            outcome: entry.outcome,
        })
        .collect();
    let context = context(task, job);
    let limit = Duration::from_secs(u64::from(task.timeout_seconds));
    let handled = tokio::select! {
        biased;
        handled = platform.ask_handle(plugin, info, &context, task, Box::new(services), journal) => handled,
        // Operations end by themselves when the attempt is over or out of time, and clean up behind them. Only a
        // guest that does not ask for any is cut off here.
        () = async { over.cancelled().await; tokio::time::sleep(ENDING).await } => {
            Err(PluginError::Stopped("the attempt is over".into()))
        }
        () = tokio::time::sleep(limit + ENDING) => {
            let message = format!("the attempt took longer than {} s", limit.as_secs());
            Err(PluginError::Failed(ErrorInfo::transient(codes::TIMEOUT, message)))
        }
    };
    let waits_for = deferred.lock().ok().and_then(|mut reason| reason.take());
    decide(platform, task, handled, waits_for)
}

/// What the answers of finished operations depend on, beside what was asked: the plugin, and the inputs as they are now.
async fn binding(
    platform: &Platform,
    plugin: &LoadedPlugin,
    info: &TaskTypeInfo,
    task: &Task,
) -> Result<String, ErrorInfo> {
    if info.operations.is_empty() {
        return Ok(plugin.digest.clone());
    }
    let inputs = platform.inputs(plugin, &info.name, &task.parameters).await?;
    let parts = inputs
        .iter()
        .flat_map(|facts| [facts.blob.zone.as_str(), &facts.blob.container, &facts.blob.name, &facts.etag]);
    let parts: Vec<&str> = std::iter::once(plugin.digest.as_str()).chain(parts).collect();
    Ok(geoworker_machine::ids::digest(&parts))
}

fn decide(
    platform: &Platform,
    task: &Task,
    handled: Result<Value, PluginError>,
    waits_for: Option<String>,
) -> Outcome {
    let error = match handled {
        Ok(value) => return Outcome::Completed(value),
        Err(PluginError::Stopped(_)) if waits_for.is_some() => {
            let reason = waits_for.unwrap_or_default();
            return Outcome::Deferred { reason, delay_ms: millis(DEFERRAL) };
        }
        Err(PluginError::Stopped(reason)) => return Outcome::GiveBack(reason),
        Err(PluginError::Failed(error)) => error,
    };
    let policy =
        RetryPolicy { max_retries: task.max_retries, base_delay_ms: platform.settings.retry.base_delay_ms };
    let previous = task.error.as_ref().map(|error| error.class);
    match policy.decide(error.class, previous, task.attempt, jitter(task)) {
        Verdict::RetryAfter(delay_ms) => Outcome::Retry { error, delay_ms },
        Verdict::Fail => Outcome::Failed(error),
    }
}

/// 0 to 1, spread over tasks and attempts: enough to keep retries apart, and no randomness is needed.
fn jitter(task: &Task) -> f64 {
    let digits = geoworker_machine::ids::digest(&[task.task_id.as_str(), &task.attempt.to_string()]);
    let number = u32::from_str_radix(&digits[..8], 16).unwrap_or(0);
    f64::from(number) / f64::from(u32::MAX)
}

/// What a handler is told.
pub(crate) fn context(task: &Task, job: &Job) -> TaskContext {
    TaskContext {
        task_id: task.task_id.to_string(),
        job_id: task.job_id.to_string(),
        job_type: task.job_type.clone(),
        task_type: task.task_type.clone(),
        stage: task.stage,
        unit: task.unit.clone(),
        attempt: task.attempt,
        submitted_at: rfc3339(job.created_at),
        params: task.parameters.to_string(),
    }
}

/// Writes the outcome, trying again while the database does not answer; none where it never did.
async fn write_outcome(platform: &Platform, task: &Task, outcome: &Outcome, stops: &Stops) -> Option<Fenced> {
    for _ in 0..FINISH_TRIES {
        let jobs = platform.jobs_queue();
        let app = &platform.settings.app_name;
        match platform.store.finish(&task.task_id, task.lease_epoch, outcome.clone(), jobs, app).await {
            Ok(fenced) => return Some(fenced),
            Err(error) => tracing::warn!(%error, "the outcome cannot be written; trying again"),
        }
        if stops.over.is_cancelled() && !stops.cancelled.is_cancelled() {
            return None;
        }
        tokio::time::sleep(FINISH_PAUSE).await;
    }
    None
}

fn report(outcome: &Outcome, written: Option<Fenced>, elapsed: Duration) {
    let duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    if written != Some(Fenced::Accepted) {
        tracing::warn!(duration_ms, "the attempt's outcome was not accepted: another attempt owns the task");
        return;
    }
    match outcome {
        Outcome::Completed(_) => tracing::info!(duration_ms, "task completed"),
        Outcome::Failed(error) => {
            tracing::error!(duration_ms, code = error.code, "task failed: {}", error.message);
        }
        Outcome::Retry { error, delay_ms } => {
            tracing::warn!(
                duration_ms,
                code = error.code,
                delay_ms,
                "attempt failed, another follows: {}",
                error.message
            );
        }
        Outcome::Cancelled => tracing::info!(duration_ms, "task cancelled"),
        Outcome::GiveBack(reason) => tracing::warn!(duration_ms, "task given back: {reason}"),
        Outcome::Deferred { reason, .. } => tracing::info!(duration_ms, "task deferred: {reason}"),
    }
}
