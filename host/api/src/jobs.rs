//! `/api/jobs`.

use axum::Json;
use axum::extract::State;
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use geoworker_machine::{JobId, JobState, TaskId, TaskState};
use geoworker_store::records::{Event, Job, JobsPage, Submitted, TasksPage};
use geoworker_worker::{JobStatus, Submission, TaskView, find_job};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::{BodyProblems, Conflict, NotFound, Problem, Problems};
use crate::requests::{Object, Path, Query, page_size, unreadable};
use crate::state::Api;

/// For tracing across systems.
const CORRELATION: &str = "x-correlation-id";
const CORRELATION_CHARACTERS: usize = 16;
/// Jobs and tasks of a page where nothing is asked for, and at most.
const JOBS: (u32, u32) = (20, 200);
const TASKS: (u32, u32) = (500, 2000);

/// A run that was accepted or found.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// The run.
    job_id: JobId,
    /// It was there before: nothing was submitted.
    existing: bool,
    /// Where to look.
    links: Links,
}

/// Addresses of a job.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Links {
    job: String,
    tasks: String,
    events: String,
}

impl From<Submitted> for Accepted {
    fn from(submitted: Submitted) -> Self {
        let job = format!("/api/jobs/{}", submitted.job_id);
        let (tasks, events) = (format!("{job}/tasks"), format!("{job}/events"));
        Self { job_id: submitted.job_id, existing: submitted.existing, links: Links { job, tasks, events } }
    }
}

impl IntoResponse for Accepted {
    fn into_response(self) -> Response {
        let status = if self.existing { StatusCode::OK } else { StatusCode::ACCEPTED };
        (status, [(LOCATION, self.links.job.clone())], Json(self)).into_response()
    }
}

/// How to submit.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct SubmitQuery {
    /// Make a new run even where one with the same parameters exists.
    #[serde(default)]
    force: bool,
}

/// Submits a job. The same type and parameters again give the run that is there.
#[utoipa::path(post, path = "/api/jobs/submit/{job_type}", tag = "jobs",
    params(("job_type" = String, Path, description = "One of `GET /api/job-types`"), SubmitQuery,
        ("X-Correlation-Id" = Option<String>, Header, description = "At most 16 visible characters, for tracing across systems")),
    request_body(content = BTreeMap<String, Value>, description = "The parameters, by the schema of the job type"),
    responses((status = 202, description = "Accepted.", body = Accepted),
        (status = 200, description = "The run was there before.", body = Accepted), Problems, NotFound, BodyProblems))]
pub(crate) async fn submit(
    State(api): State<Api>,
    Path(job_type): Path,
    Query(query): Query<SubmitQuery>,
    headers: HeaderMap,
    Object(parameters): Object,
) -> Result<Accepted, Problem> {
    let correlation_id = correlation(&headers)?;
    let submission = Submission { job_type, parameters, force: query.force, correlation_id };
    Ok(api.platform()?.submit(submission).await?.into())
}

fn correlation(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(CORRELATION) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=CORRELATION_CHARACTERS).contains(&text.len()));
    let text = text.ok_or_else(|| {
        unreadable(format!(
            "the header X-Correlation-Id has 1 to {CORRELATION_CHARACTERS} visible characters"
        ))
    })?;
    Ok(Some(text.to_owned()))
}

/// Which jobs.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct JobsQuery {
    /// Only those in this state.
    state: Option<JobState>,
    /// `next` of the page before.
    after: Option<JobId>,
    /// 1 to 200; default 20.
    limit: Option<u32>,
}

/// A page of jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobList {
    /// Newest first.
    jobs: Vec<Job>,
    /// For `after` of the next page; null where this was the last one.
    next: Option<JobId>,
}

/// Lists jobs, newest first.
#[utoipa::path(get, path = "/api/jobs", tag = "jobs", params(JobsQuery),
    responses((status = 200, description = "A page.", body = JobList), Problems))]
pub(crate) async fn list(
    State(api): State<Api>,
    Query(query): Query<JobsQuery>,
) -> Result<Json<JobList>, Problem> {
    let limit = page_size(query.limit, JOBS)?;
    let page = JobsPage { state: query.state, after: query.after.as_ref(), limit };
    let jobs = api.platform()?.store.jobs_page(page).await?;
    let full = jobs.len() == limit as usize;
    let next = jobs.last().filter(|_| full).map(|job| job.job_id.clone());
    Ok(Json(JobList { jobs, next }))
}

/// Tells how a job is: its stages with the counts of their tasks, its result or error, and why it waits.
#[utoipa::path(get, path = "/api/jobs/{id}", tag = "jobs",
    params(("id" = String, Path, description = "Id of the job, or its first digits")),
    responses((status = 200, description = "The job.", body = JobStatus), Problems, NotFound))]
pub(crate) async fn show(State(api): State<Api>, Path(id): Path) -> Result<Json<JobStatus>, Problem> {
    let platform = api.platform()?;
    let job = find_job(&*platform.store, &id).await?;
    let stages = platform.store.stages(&job.job_id).await?;
    let waiting = platform.job_waits_for(&job, &stages).await?;
    Ok(Json(JobStatus::new(job, stages, waiting)))
}

/// Which tasks.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TasksQuery {
    /// Only those in this state.
    state: Option<TaskState>,
    /// `next` of the page before.
    after: Option<TaskId>,
    /// 1 to 2000; default 500.
    limit: Option<u32>,
}

/// A page of tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskList {
    /// By stage and position.
    tasks: Vec<TaskView>,
    /// For `after` of the next page; null where this was the last one.
    next: Option<TaskId>,
}

/// Lists the tasks of a job, with routing, attempts, what they wait for, results and errors.
#[utoipa::path(get, path = "/api/jobs/{id}/tasks", tag = "jobs",
    params(("id" = String, Path, description = "Id of the job, or its first digits"), TasksQuery),
    responses((status = 200, description = "A page.", body = TaskList), Problems, NotFound))]
pub(crate) async fn tasks(
    State(api): State<Api>,
    Path(id): Path,
    Query(query): Query<TasksQuery>,
) -> Result<Json<TaskList>, Problem> {
    let limit = page_size(query.limit, TASKS)?;
    let store = &*api.platform()?.store;
    let job = find_job(store, &id).await?;
    let page = TasksPage { job: &job.job_id, state: query.state, after: query.after.as_ref(), limit };
    let tasks = store.tasks_page(page).await?;
    let full = tasks.len() == limit as usize;
    let next = tasks.last().filter(|_| full).map(|task| task.task_id.clone());
    Ok(Json(TaskList { tasks: tasks.into_iter().map(TaskView::from).collect(), next }))
}

/// A timeline.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventList {
    /// Oldest first.
    events: Vec<Event>,
}

/// Tells all that happened to a job and its tasks.
#[utoipa::path(get, path = "/api/jobs/{id}/events", tag = "jobs",
    params(("id" = String, Path, description = "Id of the job, or its first digits")),
    responses((status = 200, description = "The timeline.", body = EventList), Problems, NotFound))]
pub(crate) async fn events(State(api): State<Api>, Path(id): Path) -> Result<Json<EventList>, Problem> {
    let store = &*api.platform()?.store;
    let job = find_job(store, &id).await?;
    Ok(Json(EventList { events: store.events(&job.job_id).await? }))
}

/// A job that is being ended.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobCancelled {
    /// The job.
    job_id: JobId,
    /// Always true.
    cancelling: bool,
}

/// Ends a job: waiting tasks at once, running ones within seconds. What was published stays.
#[utoipa::path(post, path = "/api/jobs/{id}/cancel", tag = "jobs",
    params(("id" = String, Path, description = "Id of the job, or its first digits")),
    responses((status = 202, description = "It is being ended.", body = JobCancelled), Problems, NotFound, Conflict))]
pub(crate) async fn cancel(
    State(api): State<Api>,
    Path(id): Path,
) -> Result<(StatusCode, Json<JobCancelled>), Problem> {
    let platform = api.platform()?;
    let job_id = find_job(&*platform.store, &id).await?.job_id;
    platform.cancel(&job_id).await?;
    Ok((StatusCode::ACCEPTED, Json(JobCancelled { job_id, cancelling: true })))
}

/// Runs the failed tasks of a job that is over again, in a new, linked run that takes over what succeeded.
#[utoipa::path(post, path = "/api/jobs/{id}/retry", tag = "jobs",
    params(("id" = String, Path, description = "Id of the job, or its first digits")),
    responses((status = 202, description = "The new run.", body = Accepted), Problems, NotFound, Conflict))]
pub(crate) async fn retry(State(api): State<Api>, Path(id): Path) -> Result<Accepted, Problem> {
    let platform = api.platform()?;
    let job = find_job(&*platform.store, &id).await?;
    Ok(platform.retry(&job, None).await?.into())
}

/// Runs all of a job again, as a new, linked run.
#[utoipa::path(post, path = "/api/jobs/{id}/rerun", tag = "jobs",
    params(("id" = String, Path, description = "Id of the job, or its first digits")),
    responses((status = 202, description = "The new run.", body = Accepted), Problems, NotFound))]
pub(crate) async fn rerun(State(api): State<Api>, Path(id): Path) -> Result<Accepted, Problem> {
    let platform = api.platform()?;
    let job = find_job(&*platform.store, &id).await?;
    Ok(platform.rerun(&job).await?.into())
}
