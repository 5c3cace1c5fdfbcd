//! Jobs and tasks by the first digits of their ids.

use geoworker_machine::{ErrorInfo, codes};
use geoworker_store::Store;
use geoworker_store::records::{Job, Task};

/// The one job whose id begins with `prefix`.
///
/// # Errors
/// `JOB_NOT_FOUND` where there is none, or more than one; a failure of the store.
pub async fn find_job(store: &dyn Store, prefix: &str) -> Result<Job, ErrorInfo> {
    let jobs = store.jobs(prefix, 2).await.map_err(|error| error.info())?;
    the_one(jobs, prefix, codes::JOB_NOT_FOUND, "job")
}

/// The one task whose id begins with `prefix`.
///
/// # Errors
/// `TASK_NOT_FOUND` where there is none, or more than one; a failure of the store.
pub async fn find_task(store: &dyn Store, prefix: &str) -> Result<Task, ErrorInfo> {
    let tasks = store.tasks_by_prefix(prefix, 2).await.map_err(|error| error.info())?;
    the_one(tasks, prefix, codes::TASK_NOT_FOUND, "task")
}

fn the_one<T>(mut found: Vec<T>, prefix: &str, code: &str, what: &str) -> Result<T, ErrorInfo> {
    let wrong = |message: String| Err(ErrorInfo::permanent(code, message));
    let shown = prefix.escape_debug();
    match (found.pop(), found.pop()) {
        (Some(row), None) if !prefix.is_empty() => Ok(row),
        (None, _) => wrong(format!("there is no {what} '{shown}'")),
        _ => wrong(format!("more than one {what} begins with '{shown}'")),
    }
}
