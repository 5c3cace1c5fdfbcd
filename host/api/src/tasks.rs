//! `/api/tasks`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use geoworker_machine::TaskId;
use geoworker_worker::{TaskDetail, find_job, find_task};
use serde::Serialize;
use utoipa::ToSchema;

use crate::jobs::Accepted;
use crate::problem::{Conflict, NotFound, Problem, Problems};
use crate::requests::Path;
use crate::state::Api;

/// Tells all about a task: routing, attempts, what it waits for, result or error, timeline.
#[utoipa::path(get, path = "/api/tasks/{id}", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task, or its first digits")),
    responses((status = 200, description = "The task.", body = TaskDetail), Problems, NotFound))]
pub(crate) async fn show(State(api): State<Api>, Path(id): Path) -> Result<Json<TaskDetail>, Problem> {
    let store = &*api.platform()?.store;
    let task = find_task(store, &id).await?;
    let events = store.events(&task.job_id).await?;
    let handled = api.platform()?.latest_handle(&task.task_id).await?;
    Ok(Json(TaskDetail::new(task, events, handled)))
}

/// A task that is being ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskCancelled {
    /// The task.
    task_id: TaskId,
    /// Always true.
    cancelling: bool,
}

/// Ends one task, at once where nobody runs it. Its stage counts it as failed.
#[utoipa::path(post, path = "/api/tasks/{id}/cancel", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task, or its first digits")),
    responses((status = 202, description = "It is being ended.", body = TaskCancelled), Problems, NotFound, Conflict))]
pub(crate) async fn cancel(
    State(api): State<Api>,
    Path(id): Path,
) -> Result<(StatusCode, Json<TaskCancelled>), Problem> {
    let platform = api.platform()?;
    let task_id = find_task(&*platform.store, &id).await?.task_id;
    platform.cancel_task(&task_id).await?;
    Ok((StatusCode::ACCEPTED, Json(TaskCancelled { task_id, cancelling: true })))
}

/// Runs one failed task of a job that is over again, in a new, linked run that takes over what succeeded.
#[utoipa::path(post, path = "/api/tasks/{id}/retry", tag = "tasks",
    params(("id" = String, Path, description = "Id of the task, or its first digits")),
    responses((status = 202, description = "The new run.", body = Accepted), Problems, NotFound, Conflict))]
pub(crate) async fn retry(State(api): State<Api>, Path(id): Path) -> Result<Accepted, Problem> {
    let platform = api.platform()?;
    let task = find_task(&*platform.store, &id).await?;
    let job = find_job(&*platform.store, task.job_id.as_str()).await?;
    Ok(platform.retry(&job, Some(&task.task_id)).await?.into())
}
