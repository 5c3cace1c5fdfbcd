//! What must hold, however it went.

use std::collections::{BTreeMap, BTreeSet};

use geoworker_blobs::{BlobRef, FolderZones};
use geoworker_machine::stage::FailurePolicy;
use geoworker_machine::{JobState, TaskState};
use geoworker_store::records::{Job, Task};

use crate::world::Tables;

/// Checks everything; answers what is broken, each line beginning with the invariant's name.
pub(crate) fn check(tables: &Tables, zones: &FolderZones) -> Vec<String> {
    let mut broken = tables.violations.clone();
    for job in tables.jobs.values() {
        check_job(tables, job, &mut broken);
    }
    for task in tables.tasks.values() {
        check_task(tables, task, &mut broken);
    }
    check_outputs(tables, zones, &mut broken);
    check_outputs_are_owned(tables, zones, &mut broken);
    broken
}

fn kinds<'a>(tables: &'a Tables, job: &'a Job, task: Option<&'a Task>) -> Vec<&'a str> {
    let of_job = tables.events.iter().filter(move |(id, _)| *id == job.job_id);
    let wanted = task.map(|task| &task.task_id);
    of_job
        .filter(|(_, event)| event.task_id.as_ref() == wanted)
        .map(|(_, event)| event.kind.as_str())
        .collect()
}

fn check_job(tables: &Tables, job: &Job, broken: &mut Vec<String>) {
    let name = job.job_id.short();
    if !job.state.is_final() {
        broken.push(format!("every job ends: {name} is {} in stage {}", job.state, job.stage));
        return;
    }
    let kinds = kinds(tables, job, None);
    let mut seen = BTreeSet::new();
    for kind in &kinds {
        let once = *kind == "job_ended" || kind.starts_with("stage_planned");
        if once && !seen.insert(*kind) {
            broken.push(format!("one advance per stage, one end per job: {name} has '{kind}' twice"));
        }
    }
    let stages: Vec<_> = tables.stages.iter().filter(|((id, _), _)| id == job.job_id.as_str()).collect();
    let mut failed_where_not_allowed = false;
    let mut failed = false;
    for ((_, number), stage) in stages {
        let tasks = tables.tasks.values().filter(|task| task.job_id == job.job_id && task.stage == *number);
        let states: Vec<TaskState> = tasks.map(|task| task.state).collect();
        let open = states.iter().filter(|state| !state.is_final()).count();
        if open != stage.remaining as usize || states.len() != stage.total as usize {
            broken.push(format!(
                "a stage counts its tasks: stage {number} of {name} says {} of {}, and {open} of {} are open",
                stage.remaining,
                stage.total,
                states.len()
            ));
        }
        let policy = job.stages.get(*number as usize - 1).map(|spec| spec.on_failure);
        failed |= stage.failed > 0;
        failed_where_not_allowed |= stage.failed > 0 && policy == Some(FailurePolicy::Fail);
    }
    let expected = match job.state {
        JobState::Cancelled => job.cancelling,
        JobState::Failed => failed_where_not_allowed,
        JobState::CompletedWithErrors => failed && !failed_where_not_allowed,
        _ => !failed,
    };
    if !expected {
        broken.push(format!(
            "a job ends in the one right state: {name} is {} (failed tasks: {failed}, where not allowed: \
             {failed_where_not_allowed}, cancelling: {}, error: {:?})",
            job.state, job.cancelling, job.error
        ));
    }
}

fn check_task(tables: &Tables, task: &Task, broken: &mut Vec<String>) {
    let name = task.task_id.short();
    let Some(job) = tables.jobs.get(task.job_id.as_str()) else { return };
    let kinds = kinds(tables, job, Some(task));
    let ends =
        kinds.iter().filter(|kind| matches!(**kind, "task_completed" | "task_failed" | "task_cancelled"));
    let carried_over = kinds.is_empty() && job.previous_run.is_some();
    let ends = ends.count();
    if task.state.is_final() && ends != 1 && !carried_over {
        broken.push(format!("one committing attempt per task: {name} ended {ends} times"));
    }
    let given_back =
        kinds.iter().filter(|kind| matches!(**kind, "task_given_back" | "task_deferred")).count();
    // A claim beyond the last attempt runs nothing: it finds out that attempts are used up, and may die of that, too.
    let last = task.max_retries + 1;
    let of_task = tables.events.iter().filter(|(_, event)| event.task_id.as_ref() == Some(&task.task_id));
    let ran =
        of_task.filter(|(_, event)| event.kind == "task_claimed" && event.attempt.is_some_and(|n| n <= last));
    let (ran, budget) = (ran.count(), last as usize + given_back);
    if ran > budget {
        broken.push(format!(
            "attempts stay within their budget: {name} was tried {ran} times, {budget} allowed"
        ));
    }
}

/// What can be seen is what a completed task says that it wrote: nobody published over it later. Runs of one request write
/// the same blobs; the last of them wins.
fn check_outputs(tables: &Tables, zones: &FolderZones, broken: &mut Vec<String>) {
    let mut versions: BTreeMap<&str, Vec<(&Task, &str)>> = BTreeMap::new();
    for task in tables.tasks.values().filter(|task| task.state == TaskState::Completed) {
        let written = task.result.as_ref().and_then(|result| result["written"].as_array());
        for blob in written.into_iter().flatten() {
            let (name, etag) = (blob["name"].as_str().unwrap_or_default(), blob["etag"].as_str());
            versions.entry(name).or_default().extend(etag.map(|etag| (task, etag)));
        }
    }
    for (name, writers) in versions {
        let target = BlobRef::new("silver", "probe", name);
        let found = zones.stat(&target).map(|facts| facts.etag).ok();
        let known = found.as_ref().is_some_and(|found| writers.iter().any(|(_, etag)| etag == found));
        if !known && !is_of_an_unfinished_run(tables, zones, &target, &writers) {
            let etags: Vec<_> = writers.iter().map(|(_, etag)| etag).collect();
            broken.push(format!(
                "no stale attempt publishes: {name} was written as {etags:?} by tasks that completed, and it is {found:?}"
            ));
        }
    }
}

/// A later run of the job was given up after it had replaced the blob, or while its worker slept in the middle of that:
/// its attempt was the last of its task, and was claimed after all that completed. Nobody has published since.
fn is_of_an_unfinished_run(
    tables: &Tables,
    zones: &FolderZones,
    target: &BlobRef,
    completed: &[(&Task, &str)],
) -> bool {
    let Some(fence) = zones.publisher(target) else { return false };
    let Some(task) = tables.tasks.get(fence.owner.as_str()) else { return false };
    let claimed = Some(fence.claimed_at);
    let last_attempt = task.state != TaskState::Completed && claimed_at(tables, task) == claimed;
    last_attempt && completed.iter().all(|(task, _)| claimed_at(tables, task) < claimed)
}

/// When a task's last attempt was claimed.
fn claimed_at(tables: &Tables, task: &Task) -> Option<i64> {
    let claims = tables.events.iter().filter(|(_, event)| event.kind == "task_claimed");
    claims.filter(|(_, event)| event.task_id.as_ref() == Some(&task.task_id)).map(|(_, event)| event.at).max()
}

/// Every visible blob belongs to a task that may have written it.
fn check_outputs_are_owned(tables: &Tables, zones: &FolderZones, broken: &mut Vec<String>) {
    let folders: BTreeMap<&str, ()> = tables
        .tasks
        .values()
        .filter_map(|task| task.parameters.get("folder").and_then(|folder| folder.as_str()))
        .map(|folder| (folder, ()))
        .collect();
    let visible = zones.list("silver", "probe", "", 100_000).unwrap_or_default();
    for facts in visible {
        let name = facts.blob.name;
        let owned = folders.keys().any(|folder| name.starts_with(&format!("{folder}/")));
        if !owned {
            broken.push(format!("every output has its task: {name} has none"));
        }
    }
}
