//! What can be submitted, by whom it is run, and within which limits.

use axum::Json;
use axum::extract::State;
use geoworker_store::records::Worker;
use geoworker_worker::{JobTypeView, TaskTypeView};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::problem::{NotFound, Problem, Problems};
use crate::requests::Path;
use crate::settings::{BODY_BYTES, REQUEST_TIME};
use crate::state::Api;

/// All job types.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobTypes {
    /// Generation of the plugins; a reload that changes something begins the next.
    generation: u64,
    /// By name.
    job_types: Vec<JobTypeView>,
}

/// Lists the job types with the JSON Schemas of their parameters.
#[utoipa::path(get, path = "/api/job-types", tag = "types",
    responses((status = 200, description = "The types.", body = JobTypes), Problems))]
pub(crate) async fn job_types(State(api): State<Api>) -> Result<Json<JobTypes>, Problem> {
    let registry = api.platform()?.registry();
    let job_types = registry.job_types().map(|(plugin, info)| JobTypeView::new(plugin, info)).collect();
    Ok(Json(JobTypes { generation: registry.generation(), job_types }))
}

/// Describes one job type.
#[utoipa::path(get, path = "/api/job-types/{name}", tag = "types",
    params(("name" = String, Path, description = "Its name")),
    responses((status = 200, description = "The type.", body = JobTypeView), Problems, NotFound))]
pub(crate) async fn job_type(State(api): State<Api>, Path(name): Path) -> Result<Json<JobTypeView>, Problem> {
    let (plugin, info) = api.platform()?.registry().job_type(&name)?;
    Ok(Json(JobTypeView::new(&plugin, &info)))
}

/// All task types.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskTypes {
    /// Generation of the plugins; a reload that changes something begins the next.
    generation: u64,
    /// By name.
    task_types: Vec<TaskTypeView>,
}

/// Lists the task types with the JSON Schemas of their parameters and results.
#[utoipa::path(get, path = "/api/task-types", tag = "types",
    responses((status = 200, description = "The types.", body = TaskTypes), Problems))]
pub(crate) async fn task_types(State(api): State<Api>) -> Result<Json<TaskTypes>, Problem> {
    let registry = api.platform()?.registry();
    let task_types = registry.task_types().map(|(plugin, info)| TaskTypeView::new(plugin, info)).collect();
    Ok(Json(TaskTypes { generation: registry.generation(), task_types }))
}

/// The limits of this process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Limits {
    /// Of a request's body.
    body_bytes: usize,
    /// Requests of all clients, in the long run.
    requests_per_second: u32,
    /// Requests of all clients, after a pause.
    requests_burst: u32,
    /// Of a request, until its answer.
    request_seconds: u64,
    /// Larger inputs are refused at submission.
    max_input_bytes: u64,
    /// Larger inputs go to the long-running queue.
    size_threshold_bytes: u64,
    /// Tasks at a time on each short queue.
    short_slots: usize,
    /// Tasks at a time on the long-running queue.
    long_slots: usize,
    /// Of an attempt, where its task type does not say.
    task_timeout_seconds: u64,
    /// Retries after the first attempt, where its task type does not say.
    max_retries: u32,
    /// Memory of all native operations together.
    memory_bytes: u64,
    /// Memory of one native operation.
    native_memory_bytes: u64,
    /// Disk of one native operation; 0 is what is free.
    native_disk_bytes: u64,
    /// Threads of one native operation.
    native_threads: usize,
    /// What every plugin is held to, by the names of the limits file.
    plugins: Value,
}

/// Tells the limits in force.
#[utoipa::path(get, path = "/api/limits", tag = "types",
    responses((status = 200, description = "The limits of the process that answers.", body = Limits), Problems))]
pub(crate) async fn limits(State(api): State<Api>) -> Result<Json<Limits>, Problem> {
    let platform = api.platform()?;
    let (settings, rate) = (&platform.settings, api.settings.rate);
    Ok(Json(Limits {
        body_bytes: BODY_BYTES,
        requests_per_second: rate.per_second,
        requests_burst: rate.burst,
        request_seconds: REQUEST_TIME.as_secs(),
        max_input_bytes: settings.max_input_bytes,
        size_threshold_bytes: settings.router.size_threshold_bytes,
        short_slots: settings.slots.short,
        long_slots: settings.slots.long,
        task_timeout_seconds: settings.task_timeout.as_secs(),
        max_retries: settings.retry.max_retries,
        memory_bytes: settings.memory_bytes,
        native_memory_bytes: settings.native_memory_bytes,
        native_disk_bytes: settings.native_disk_bytes,
        native_threads: settings.native_threads,
        plugins: json!(platform.registry().limits()),
    }))
}

/// Who works on the database.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Workers {
    /// Those seen last first.
    workers: Vec<Worker>,
}

/// Lists the workers, with what they run and when they were last seen.
#[utoipa::path(get, path = "/api/workers", tag = "types",
    responses((status = 200, description = "The workers.", body = Workers), Problems))]
pub(crate) async fn workers(State(api): State<Api>) -> Result<Json<Workers>, Problem> {
    Ok(Json(Workers { workers: api.platform()?.store.workers().await? }))
}
