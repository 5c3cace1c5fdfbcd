//! Calls into a loaded plugin: a fresh store each, and one checked conversion for everything that comes out.

use std::time::{Duration, Instant};

use geoworker_machine::json::depth;
use geoworker_machine::{ErrorInfo, RetryClass, codes};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmtime::Store;
use wasmtime::component::Instance;

use crate::bindings::{
    FileFacts, JobContext, TaskContext, TaskDefinition, TaskRoute, job_types, task_types, types,
};
use crate::error::{PluginError, from_trap};
use crate::guest::{Grants, GuestState};
use crate::limits::Limits;
use crate::registry::{LoadedPlugin, TaskTypeInfo};
use crate::services::{HostServices, JournaledOperation, NoServices};

/// Longest code, unit or name that a guest may return, in bytes.
const MAX_NAME: usize = 512;
/// Longest message that a guest may return, in bytes.
const MAX_MESSAGE: usize = 2000;

/// One thing that is wrong with parameters, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Stable code.
    pub code: String,
    /// `error`, `warning` or `info`.
    pub severity: String,
    /// JSON pointer.
    pub path: String,
    /// One sentence.
    pub message: String,
}

/// Answer of `validate`: normalised parameters, or what is wrong.
pub type Validation = Result<Value, Vec<Finding>>;

type Called<T> = Result<T, PluginError>;

impl LoadedPlugin {
    /// Checks and normalises parameters of a task type.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn validate_task(&self, name: &str, params: &Value) -> Called<Validation> {
        let (mut store, guest) = self.task_guest(thinking(&self.limits)).await?;
        let answer = guest.call_validate(&mut store, name, &params.to_string()).await;
        self.validation(store.data(), answer.map_err(|error| self.trap("validate", &error))?)
    }

    /// Checks and normalises parameters of a job type.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn validate_job(&self, name: &str, params: &Value) -> Called<Validation> {
        let (mut store, guest) = self.job_guest(thinking(&self.limits)).await?;
        let answer = guest.call_validate(&mut store, name, &params.to_string()).await;
        self.validation(store.data(), answer.map_err(|error| self.trap("validate", &error))?)
    }

    /// Blobs that a task will read.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn task_inputs(&self, name: &str, params: &Value) -> Called<Vec<types::BlobRef>> {
        let (mut store, guest) = self.task_guest(thinking(&self.limits)).await?;
        let answer = guest.call_inputs(&mut store, name, &params.to_string()).await;
        answer.map_err(|error| self.trap("inputs", &error))
    }

    /// Blobs that a job will read.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn job_inputs(&self, name: &str, params: &Value) -> Called<Vec<types::BlobRef>> {
        let (mut store, guest) = self.job_guest(thinking(&self.limits)).await?;
        let answer = guest.call_inputs(&mut store, name, &params.to_string()).await;
        answer.map_err(|error| self.trap("inputs", &error))
    }

    /// The plugin's own routing decision.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn route(&self, name: &str, params: &Value, inputs: &[FileFacts]) -> Called<TaskRoute> {
        let (mut store, guest) = self.task_guest(thinking(&self.limits)).await?;
        let answer = guest.call_route(&mut store, name, &params.to_string(), inputs).await;
        let route = answer.map_err(|error| self.trap("route", &error))?;
        Ok(TaskRoute { reason: cut(&route.reason, MAX_MESSAGE), ..route })
    }

    /// Runs a handler; `journal` answers what was finished before.
    ///
    /// # Errors
    /// The handler's failure, or where the guest breaks the contract or a limit.
    pub async fn handle(
        &self,
        info: &TaskTypeInfo,
        context: &TaskContext,
        services: Box<dyn HostServices>,
        journal: Vec<JournaledOperation>,
    ) -> Called<Value> {
        let grants = Grants { operations: info.operations.clone(), zones: info.zones.clone() };
        let state = GuestState::new(self.limits, self.limits.handle_cpu_ms, services, grants, journal);
        let (mut store, guest) = self.task_guest(state).await?;
        let answer = guest.call_handle(&mut store, context).await;
        let output = answer.map_err(|error| self.trap("handle", &error))?.map_err(own_failure)?;
        let value = self.json(store.data(), "handle", &output)?;
        info.result_schema.check(&value).map_err(|errors| self.broken("handle", &errors.join("; ")))?;
        Ok(value)
    }

    /// The tasks of a stage.
    ///
    /// # Errors
    /// The planner's failure, or where the guest breaks the contract or a limit.
    pub async fn plan_stage(
        &self,
        context: &JobContext,
        stage: u32,
        services: Box<dyn HostServices>,
    ) -> Called<Vec<(TaskDefinition, Value)>> {
        let state = GuestState::new(self.limits, self.limits.cpu_ms, services, Grants::default(), Vec::new());
        let (mut store, guest) = self.job_guest(state).await?;
        let answer = guest.call_plan_stage(&mut store, context, stage).await;
        let tasks = answer.map_err(|error| self.trap("plan-stage", &error))?.map_err(own_failure)?;
        if tasks.len() > self.limits.stage_tasks {
            let message = format!("{} tasks in one stage; at most {}", tasks.len(), self.limits.stage_tasks);
            return Err(self.broken("plan-stage", &message));
        }
        let mut units = std::collections::HashSet::new();
        for task in &tasks {
            if task.unit.is_empty() || task.unit.len() > MAX_NAME || !units.insert(task.unit.as_str()) {
                let unit = cut(&task.unit, 60);
                return Err(
                    self.broken("plan-stage", &format!("unit '{unit}' is empty, too long or not unique"))
                );
            }
        }
        drop(units);
        tasks
            .into_iter()
            .map(|task| {
                let params = self.json(store.data(), "plan-stage", &task.params)?;
                Ok((task, params))
            })
            .collect()
    }

    /// The result of a job.
    ///
    /// # Errors
    /// The plugin's failure, or where the guest breaks the contract or a limit.
    pub async fn finalize(&self, context: &JobContext, services: Box<dyn HostServices>) -> Called<Value> {
        let state = GuestState::new(self.limits, self.limits.cpu_ms, services, Grants::default(), Vec::new());
        let (mut store, guest) = self.job_guest(state).await?;
        let answer = guest.call_finalize(&mut store, context).await;
        let output = answer.map_err(|error| self.trap("finalize", &error))?.map_err(own_failure)?;
        self.json(store.data(), "finalize", &output)
    }

    /// Mean time of a job validation on an instance that exists already, for benchmarks: the platform itself
    /// takes a fresh instance for every call.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn time_warm_validate(&self, name: &str, params: &Value, calls: usize) -> Called<Duration> {
        let (mut store, guest) = self.job_guest(thinking(&self.limits)).await?;
        let text = params.to_string();
        let started = Instant::now();
        for _ in 0..calls {
            let answer = guest.call_validate(&mut store, name, &text).await;
            answer
                .map_err(|error| self.trap("validate", &error))?
                .map_err(|_| self.broken("validate", "findings"))?;
        }
        Ok(started.elapsed() / u32::try_from(calls.max(1)).unwrap_or(u32::MAX))
    }

    pub(crate) async fn describe_tasks(&self) -> Called<Vec<task_types::TaskType>> {
        if self.exports.tasks.is_none() {
            return Ok(Vec::new());
        }
        let (mut store, guest) = self.task_guest(thinking(&self.limits)).await?;
        guest.call_describe(&mut store).await.map_err(|error| self.trap("describe", &error))
    }

    pub(crate) async fn describe_jobs(&self) -> Called<Vec<job_types::JobType>> {
        if self.exports.jobs.is_none() {
            return Ok(Vec::new());
        }
        let (mut store, guest) = self.job_guest(thinking(&self.limits)).await?;
        guest.call_describe(&mut store).await.map_err(|error| self.trap("describe", &error))
    }

    async fn task_guest(&self, state: GuestState) -> Called<(Store<GuestState>, task_types::Guest)> {
        let (mut store, instance) = self.instantiate(state).await?;
        let exports =
            self.exports.tasks.as_ref().ok_or_else(|| self.broken("task-types", "is not exported"))?;
        let guest = exports.load(&mut store, &instance).map_err(|error| self.trap("task-types", &error))?;
        Ok((store, guest))
    }

    async fn job_guest(&self, state: GuestState) -> Called<(Store<GuestState>, job_types::Guest)> {
        let (mut store, instance) = self.instantiate(state).await?;
        let exports =
            self.exports.jobs.as_ref().ok_or_else(|| self.broken("job-types", "is not exported"))?;
        let guest = exports.load(&mut store, &instance).map_err(|error| self.trap("job-types", &error))?;
        Ok((store, guest))
    }

    async fn instantiate(&self, state: GuestState) -> Called<(Store<GuestState>, Instance)> {
        let mut store = state.into_store(&self.engine);
        let instance = self.component.instantiate_async(&mut store).await;
        Ok((store, instance.map_err(|error| self.trap("start", &error))?))
    }

    fn validation(
        &self,
        state: &GuestState,
        answer: Result<String, Vec<types::Finding>>,
    ) -> Called<Validation> {
        match answer {
            Ok(text) => Ok(Ok(self.json(state, "validate", &text)?)),
            Err(findings) => Ok(Err(findings.into_iter().map(finding).collect())),
        }
    }

    /// The one way in which a guest's document gets in.
    fn json(&self, state: &GuestState, export: &str, text: &str) -> Called<Value> {
        let parsed = state.parse_json("the answer", text);
        parsed.map_err(|info| self.broken(export, &info.message))
    }

    fn trap(&self, export: &str, error: &wasmtime::Error) -> PluginError {
        from_trap(&self.name, export, error)
    }

    fn broken(&self, export: &str, reason: &str) -> PluginError {
        let message = format!("{}: {export}: {}", self.name, cut(reason, MAX_MESSAGE));
        PluginError::Failed(ErrorInfo::permanent(codes::PLUGIN_OUTPUT_INVALID, message))
    }
}

impl GuestState {
    /// Parses a guest's document within the limits.
    pub(crate) fn parse_json(&self, what: &str, text: &str) -> Result<Value, ErrorInfo> {
        let invalid =
            |reason: String| ErrorInfo::permanent(codes::PLUGIN_OUTPUT_INVALID, format!("{what} {reason}"));
        let value: Value =
            serde_json::from_str(text).map_err(|error| invalid(format!("is not JSON: {error}")))?;
        if depth(&value) > self.limits.json_depth {
            return Err(invalid(format!("is nested deeper than {}", self.limits.json_depth)));
        }
        Ok(value)
    }
}

fn thinking(limits: &Limits) -> GuestState {
    GuestState::new(*limits, limits.cpu_ms, Box::new(NoServices), Grants::default(), Vec::new())
}

fn cut(text: &str, limit: usize) -> String {
    crate::guest::clean_line(text, limit)
}

fn finding(found: types::Finding) -> Finding {
    Finding {
        code: cut(&found.code, MAX_NAME),
        severity: if matches!(found.severity.as_str(), "warning" | "info") {
            found.severity
        } else {
            "error".into()
        },
        path: cut(&found.path, MAX_NAME),
        message: cut(&found.message, MAX_MESSAGE),
    }
}

fn own_failure(failure: types::Failure) -> PluginError {
    PluginError::Failed(ErrorInfo {
        code: cut(&failure.code, MAX_NAME),
        message: cut(&failure.message, MAX_MESSAGE),
        class: RetryClass::from_name(&failure.class),
        hint: failure.hint.map(|hint| cut(&hint, MAX_MESSAGE)),
    })
}
