//! CoreMachine's side of the jobs queue: planning stages and ending jobs.

use async_trait::async_trait;
use chrono::{DateTime, SecondsFormat, Utc};
use geoworker_blobs::BlobRef;
use geoworker_machine::routing::{ROUTE_FLAG, RouteFacts};
use geoworker_machine::stage::{NextStep, next_step};
use geoworker_machine::{ErrorInfo, JobId, JobState, RetryClass, TaskId, TaskState, codes};
use geoworker_plugins::{
    FileFacts, HostServices, JobContext, JournaledOperation, LoadedPlugin, OperationError, Registry,
    TaskDefinition, UnitResult,
};
use geoworker_store::Store;
use geoworker_store::records::{Job, NewTask, StagePlan};
use serde_json::Value;
use std::sync::Arc;

use crate::decisions::About;
use crate::platform::Platform;
use crate::storage::is_away;
use crate::submit::{blob_error, findings_error, plugin_error};

/// Failed tasks whose errors are looked at for the job's own.
const QUOTED_FAILURES: u32 = 20_000;

impl Platform {
    /// Moves a job on after stage `finished` (0: it was just accepted). Duplicates and late signals change nothing.
    ///
    /// # Errors
    /// Transient ones; whatever is final ends the job.
    pub(crate) async fn advance(&self, id: &JobId, finished: u32) -> Result<(), ErrorInfo> {
        let Some(job) = self.store.job(id).await.map_err(|error| error.info())? else {
            return Err(ErrorInfo::permanent(codes::JOB_NOT_FOUND, format!("there is no job {id}")));
        };
        if job.state.is_final() || job.stage != finished {
            return Ok(());
        }
        if job.cancelling {
            return self.end(&job, JobState::Cancelled, None, None).await;
        }
        let Some(step) = self.next(&job).await? else { return Ok(()) };
        let result = match step {
            NextStep::Plan(stage) => self.plan(&job, stage).await,
            NextStep::Finalize(state) => self.finalize(&job, state).await,
            NextStep::Fail => {
                let error = self.stage_failure(&job).await?;
                self.end(&job, JobState::Failed, None, Some(error)).await
            }
        };
        self.outbox_written.notify_one();
        match result {
            // What may go away is tried again by the message; what will not ends the job.
            Err(error) if error.class == RetryClass::Permanent && !is_missing_plugin(&error) => {
                self.end(&job, JobState::Failed, None, Some(error)).await
            }
            other => other,
        }
    }

    /// What follows; none while the stage still runs.
    async fn next(&self, job: &Job) -> Result<Option<NextStep>, ErrorInfo> {
        if job.stage == 0 {
            return Ok(Some(NextStep::Plan(1)));
        }
        let stages = self.store.stages(&job.job_id).await.map_err(|error| error.info())?;
        let Some(current) = stages.iter().find(|stage| stage.number == job.stage) else { return Ok(None) };
        if current.remaining > 0 {
            return Ok(None);
        }
        let before = stages.iter().filter(|stage| stage.number < job.stage).map(|stage| stage.failed).sum();
        Ok(Some(next_step(&job.stages, job.stage, current.failed, before)))
    }

    async fn plan(&self, job: &Job, stage: u32) -> Result<(), ErrorInfo> {
        // A stage is planned by one generation of plugins.
        let registry = self.registry();
        let (plugin, _) = registry.job_type(&job.job_type)?;
        let about = About { job: Some(&job.job_id), stage: Some(stage), ..About::default() };
        let (context, params) = context(job);
        let services = results_of(&self.store, &job.job_id);
        let planned =
            self.ask_plan(&plugin, &context, &params, services, about).await.map_err(plugin_error)?;
        let mut tasks = Vec::with_capacity(planned.len());
        for (definition, parameters) in planned {
            tasks.push(self.new_task(&registry, job, stage, definition, parameters).await?);
        }
        let name = job.stages.get(stage as usize - 1).map(|spec| spec.name.clone()).unwrap_or_default();
        let plan = StagePlan {
            number: stage,
            name,
            tasks,
            jobs_queue: self.jobs_queue().to_owned(),
            app_name: self.settings.app_name.clone(),
        };
        let count = plan.tasks.len();
        let stage_name = plan.name.clone();
        if self.store.plan_stage(&job.job_id, plan).await.map_err(|error| error.info())? {
            tracing::info!(job_id = %job.job_id, job_type = job.job_type, stage, tasks = count, "stage {stage_name} planned");
        }
        Ok(())
    }

    async fn new_task(
        &self,
        registry: &Registry,
        job: &Job,
        stage: u32,
        definition: TaskDefinition,
        parameters: Value,
    ) -> Result<NewTask, ErrorInfo> {
        let (plugin, info) = registry.task_type(&definition.task_type)?;
        let about =
            |error: ErrorInfo| ErrorInfo { message: format!("{}: {}", info.name, error.message), ..error };
        info.parameters
            .check(&parameters)
            .map_err(|errors| about(ErrorInfo::permanent(codes::PLUGIN_OUTPUT_INVALID, errors.join("; "))))?;
        let task_id = TaskId::derive(&job.job_id, stage, &definition.unit);
        let asked =
            About { job: Some(&job.job_id), task: Some(&task_id), stage: Some(stage), ..About::default() };
        let validated =
            self.ask_validate(&plugin, &info.name, &parameters, asked).await.map_err(plugin_error)?;
        let parameters = validated.map_err(|findings| about(findings_error(&findings)))?;
        let inputs = self.inputs(&plugin, &info.name, &parameters).await?;
        let decision = self.ask_route(&plugin, &info.name, &parameters, &inputs, asked).await;
        let decision = decision.map_err(plugin_error)?;
        let route = self.settings.router.route(&RouteFacts {
            task_type: &info.name,
            class: &info.class,
            flagged: job.parameters.get(ROUTE_FLAG).and_then(Value::as_bool).unwrap_or(false),
            input_bytes: inputs.iter().map(|facts| facts.size_bytes).sum(),
            plugin_target: &decision.target,
            plugin_reason: &decision.reason,
        });
        let timeout = info.timeout_seconds.map_or(self.settings.task_timeout.as_secs(), u64::from);
        Ok(NewTask {
            task_id,
            unit: definition.unit,
            task_type: info.name.clone(),
            parameters,
            queue: route.queue,
            route_reason: route.reason,
            max_retries: info.max_retries.unwrap_or(self.settings.retry.max_retries),
            timeout_seconds: u32::try_from(timeout).unwrap_or(u32::MAX),
        })
    }

    /// Facts of the inputs that are there; a missing one shows when the task runs.
    pub(crate) async fn inputs(
        &self,
        plugin: &LoadedPlugin,
        name: &str,
        values: &Value,
    ) -> Result<Vec<FileFacts>, ErrorInfo> {
        let blobs = plugin.task_inputs(name, values).await.map_err(plugin_error)?;
        let mut found = Vec::new();
        for blob in blobs {
            let asked = BlobRef::new(&*blob.zone, &*blob.container, &*blob.name);
            let facts = match self.zones.stat(&asked).await {
                Ok(facts) => facts,
                // Whether it is there cannot be told now: what is decided by its size must wait.
                Err(error) if is_away(&error) => return Err(blob_error(&error)),
                Err(_) => continue,
            };
            found.push(FileFacts {
                blob,
                size_bytes: facts.size_bytes,
                last_modified: facts.last_modified.to_rfc3339_opts(SecondsFormat::Secs, true),
                etag: facts.etag,
            });
        }
        Ok(found)
    }

    async fn finalize(&self, job: &Job, state: JobState) -> Result<(), ErrorInfo> {
        let (plugin, _) = self.registry().job_type(&job.job_type)?;
        let about = About { job: Some(&job.job_id), ..About::default() };
        let (context, params) = context(job);
        let services = results_of(&self.store, &job.job_id);
        let result = self.ask_finalize(&plugin, &context, &params, services, about).await;
        let result = result.map_err(plugin_error)?;
        self.end(job, state, Some(result), None).await
    }

    async fn end(
        &self,
        job: &Job,
        state: JobState,
        result: Option<Value>,
        error: Option<ErrorInfo>,
    ) -> Result<(), ErrorInfo> {
        let code = error.as_ref().map(|error| error.code.clone());
        let ended = self.store.end_job(&job.job_id, job.stage, state, result, error).await;
        if ended.map_err(|error| error.info())? {
            let ms = Utc::now().timestamp_millis() - job.created_at;
            tracing::info!(job_id = %job.job_id, job_type = job.job_type, code, duration_ms = ms, "job {state}");
        }
        Ok(())
    }

    /// The job's error: that of its one failed task, or a summary.
    async fn stage_failure(&self, job: &Job) -> Result<ErrorInfo, ErrorInfo> {
        let results = self.store.stage_results(&job.job_id, job.stage, 0, QUOTED_FAILURES).await;
        let results = results.map_err(|error| error.info())?;
        let failures: Vec<&ErrorInfo> = results
            .iter()
            .filter(|result| result.state == TaskState::Failed)
            .filter_map(|result| result.failure.as_ref())
            .collect();
        let Some(first) = failures.first() else {
            return Ok(ErrorInfo::permanent(codes::STAGE_FAILED, format!("stage {} failed", job.stage)));
        };
        if results.len() == 1 {
            return Ok((*first).clone());
        }
        let message = format!(
            "{} of {} tasks of stage {} failed; first: {first}",
            failures.len(),
            results.len(),
            job.stage
        );
        Ok(ErrorInfo::permanent(codes::STAGE_FAILED, message))
    }
}

/// What a planner is told, and the parameters in it.
fn context(job: &Job) -> (JobContext, Value) {
    let params = without_flags(&job.parameters);
    let context = JobContext {
        job_id: job.job_id.to_string(),
        job_type: job.job_type.clone(),
        params: params.to_string(),
        submitted_at: rfc3339(job.created_at),
    };
    (context, params)
}

/// Results of a job's stages, for its planner.
pub(crate) fn results_of(store: &Arc<dyn Store>, job: &JobId) -> Box<dyn HostServices> {
    Box::new(PlanningServices { store: Arc::clone(store), job: job.clone() })
}

/// A type that no loaded plugin offers: its work waits until one does.
pub(crate) fn is_missing_plugin(error: &ErrorInfo) -> bool {
    error.code == codes::JOB_TYPE_UNKNOWN || error.code == codes::TASK_TYPE_UNKNOWN
}

/// Milliseconds since 1970 as RFC 3339.
pub(crate) fn rfc3339(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).unwrap_or_default().to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn without_flags(parameters: &Value) -> Value {
    let mut plain = parameters.clone();
    if let Some(map) = plain.as_object_mut() {
        map.remove(ROUTE_FLAG);
    }
    plain
}

/// What a planner may ask for: results of the stages that are over.
struct PlanningServices {
    store: Arc<dyn Store>,
    job: JobId,
}

#[async_trait]
impl HostServices for PlanningServices {
    async fn perform(&mut self, _: &str, _: Value) -> Result<Value, OperationError> {
        let message = "operations are only possible while a task is handled";
        Err(OperationError::Failed(ErrorInfo::permanent(codes::OPERATION_NOT_DECLARED, message)))
    }

    async fn record(&mut self, _: JournaledOperation) -> Result<(), OperationError> {
        Ok(())
    }

    fn log(&mut self, level: &str, message: &str) {
        tracing::info!(job_id = %self.job, guest_level = level, "{message}");
    }

    fn progress(&mut self, _: f32, _: &str) {}

    async fn result_count(&mut self, stage: u32) -> Result<u32, OperationError> {
        self.store
            .stage_size(&self.job, stage)
            .await
            .map_err(|error| OperationError::Aborted(error.to_string()))
    }

    async fn result_page(
        &mut self,
        stage: u32,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<UnitResult>, OperationError> {
        let page = self.store.stage_results(&self.job, stage, offset, limit).await;
        let page = page.map_err(|error| OperationError::Aborted(error.to_string()))?;
        let unit = |result: geoworker_store::records::UnitResult| UnitResult {
            unit: result.unit,
            state: result.state.to_string(),
            output: result.output,
            failure: result.failure,
        };
        Ok(page.into_iter().map(unit).collect())
    }
}
