//! Calls into a loaded plugin: a fresh store each, and one checked conversion for everything that comes out.

use std::collections::HashSet;
use std::time::{Duration, Instant};

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
use crate::lifted::Lifted;
use crate::registry::{LoadedPlugin, TaskTypeInfo};
use crate::services::{HostServices, JournaledOperation, NoServices};
use crate::usage::{CallReport, Usage, outcome_name};

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
        let mut call = self.think("validate", name);
        let outcome = async {
            let guest = call.task_guest().await?;
            let answer = guest.call_validate(&mut call.store, name, &params.to_string()).await;
            call.validation(answer)
        };
        let outcome = outcome.await;
        call.end(outcome)
    }

    /// Checks and normalises parameters of a job type.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn validate_job(&self, name: &str, params: &Value) -> Called<Validation> {
        let mut call = self.think("validate", name);
        let outcome = async {
            let guest = call.job_guest().await?;
            let answer = guest.call_validate(&mut call.store, name, &params.to_string()).await;
            call.validation(answer)
        };
        let outcome = outcome.await;
        call.end(outcome)
    }

    /// Blobs that a task will read.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn task_inputs(&self, name: &str, params: &Value) -> Called<Vec<types::BlobRef>> {
        let mut call = self.think("inputs", name);
        let outcome = async {
            let guest = call.task_guest().await?;
            let answer = guest.call_inputs(&mut call.store, name, &params.to_string()).await;
            call.answer(answer)
        };
        let outcome = outcome.await;
        call.end(outcome)
    }

    /// Blobs that a job will read.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn job_inputs(&self, name: &str, params: &Value) -> Called<Vec<types::BlobRef>> {
        let mut call = self.think("inputs", name);
        let outcome = async {
            let guest = call.job_guest().await?;
            let answer = guest.call_inputs(&mut call.store, name, &params.to_string()).await;
            call.answer(answer)
        };
        let outcome = outcome.await;
        call.end(outcome)
    }

    /// The plugin's own routing decision.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn route(&self, name: &str, params: &Value, inputs: &[FileFacts]) -> Called<TaskRoute> {
        let mut call = self.think("route", name);
        let outcome = async {
            let guest = call.task_guest().await?;
            let answer = guest.call_route(&mut call.store, name, &params.to_string(), inputs).await;
            let route = call.answer(answer)?;
            Ok(TaskRoute { target: cut(&route.target, MAX_NAME), reason: cut(&route.reason, MAX_MESSAGE) })
        };
        let outcome = outcome.await;
        call.end(outcome)
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
        let mut call = self.begin("handle", &info.name, state);
        let outcome = async {
            let guest = call.task_guest().await?;
            let answer = guest.call_handle(&mut call.store, context).await;
            let output = call.answer(answer)?.map_err(own_failure)?;
            let value = call.json(&output)?;
            info.result_schema.check(&value).map_err(|errors| call.broken(&errors.join("; ")))?;
            Ok(value)
        };
        let outcome = outcome.await;
        call.end(outcome)
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
        let mut call = self.begin("plan-stage", &context.job_type, state);
        let outcome = async {
            let guest = call.job_guest().await?;
            let answer = guest.call_plan_stage(&mut call.store, context, stage).await;
            let tasks = call.answer(answer)?.map_err(own_failure)?;
            call.planned(tasks)
        };
        let outcome = outcome.await;
        call.end(outcome)
    }

    /// The result of a job.
    ///
    /// # Errors
    /// The plugin's failure, or where the guest breaks the contract or a limit.
    pub async fn finalize(&self, context: &JobContext, services: Box<dyn HostServices>) -> Called<Value> {
        let state = GuestState::new(self.limits, self.limits.cpu_ms, services, Grants::default(), Vec::new());
        let mut call = self.begin("finalize", &context.job_type, state);
        let outcome = async {
            let guest = call.job_guest().await?;
            let answer = guest.call_finalize(&mut call.store, context).await;
            let output = call.answer(answer)?.map_err(own_failure)?;
            call.json(&output)
        };
        let outcome = outcome.await;
        call.end(outcome)
    }

    /// Mean time of a job validation on an instance that exists already, for benchmarks: the platform itself
    /// takes a fresh instance for every call.
    ///
    /// # Errors
    /// Where the guest breaks the contract or a limit.
    pub async fn time_warm_validate(&self, name: &str, params: &Value, calls: usize) -> Called<Duration> {
        let mut call = self.think("validate", name);
        let guest = call.job_guest().await?;
        let text = params.to_string();
        let started = Instant::now();
        for _ in 0..calls {
            let answer = guest.call_validate(&mut call.store, name, &text).await;
            call.answer(answer)?.map_err(|_| call.broken("findings"))?;
        }
        Ok(started.elapsed() / u32::try_from(calls.max(1)).unwrap_or(u32::MAX))
    }

    pub(crate) async fn describe_tasks(&self) -> Called<Vec<task_types::TaskType>> {
        if self.exports.tasks.is_none() {
            return Ok(Vec::new());
        }
        let mut call = self.think("describe", "");
        let outcome = async {
            let guest = call.task_guest().await?;
            let answer = guest.call_describe(&mut call.store).await;
            call.answer(answer)
        };
        let outcome = outcome.await;
        call.end(outcome)
    }

    pub(crate) async fn describe_jobs(&self) -> Called<Vec<job_types::JobType>> {
        if self.exports.jobs.is_none() {
            return Ok(Vec::new());
        }
        let mut call = self.think("describe", "");
        let outcome = async {
            let guest = call.job_guest().await?;
            let answer = guest.call_describe(&mut call.store).await;
            call.answer(answer)
        };
        let outcome = outcome.await;
        call.end(outcome)
    }

    /// A call in which the guest may only think.
    fn think<'a>(&'a self, export: &'static str, type_name: &'a str) -> Call<'a> {
        let state = GuestState::new(
            self.limits,
            self.limits.cpu_ms,
            Box::new(NoServices),
            Grants::default(),
            Vec::new(),
        );
        self.begin(export, type_name, state)
    }

    fn begin<'a>(&'a self, export: &'static str, type_name: &'a str, state: GuestState) -> Call<'a> {
        let store = state.into_store(&self.engine);
        Call { plugin: self, export, type_name, store, started: Instant::now() }
    }
}

/// One invocation: a store of its own, and the way out for everything that the guest answers.
struct Call<'a> {
    plugin: &'a LoadedPlugin,
    export: &'static str,
    type_name: &'a str,
    store: Store<GuestState>,
    started: Instant,
}

impl Call<'_> {
    async fn task_guest(&mut self) -> Called<task_types::Guest> {
        let instance = self.instantiate().await?;
        let exports = self.plugin.exports.tasks.as_ref();
        let exports = exports.ok_or_else(|| self.broken("task-types is not exported"))?;
        exports.load(&mut self.store, &instance).map_err(|error| self.trap(&error))
    }

    async fn job_guest(&mut self) -> Called<job_types::Guest> {
        let instance = self.instantiate().await?;
        let exports = self.plugin.exports.jobs.as_ref();
        let exports = exports.ok_or_else(|| self.broken("job-types is not exported"))?;
        exports.load(&mut self.store, &instance).map_err(|error| self.trap(&error))
    }

    async fn instantiate(&mut self) -> Called<Instance> {
        let instance = self.plugin.component.instantiate_async(&mut self.store).await;
        instance.map_err(|error| from_trap(&self.plugin.name, "start", &error))
    }

    /// The one way out of a guest: no value passes unchecked.
    fn answer<T: Lifted>(&self, answer: wasmtime::Result<T>) -> Called<T> {
        let value = answer.map_err(|error| self.trap(&error))?;
        value.check(&self.plugin.limits).map_err(|stop| self.trap(&stop.into()))?;
        Ok(value)
    }

    fn validation(
        &self,
        answer: wasmtime::Result<Result<String, Vec<types::Finding>>>,
    ) -> Called<Validation> {
        match self.answer(answer)? {
            Ok(text) => Ok(Ok(self.json(&text)?)),
            Err(findings) => Ok(Err(findings.into_iter().map(finding).collect())),
        }
    }

    fn planned(&self, tasks: Vec<TaskDefinition>) -> Called<Vec<(TaskDefinition, Value)>> {
        let limit = self.plugin.limits.stage_tasks;
        if tasks.len() as u64 > limit {
            return Err(self.broken(&format!("{} tasks in one stage; at most {limit}", tasks.len())));
        }
        let mut units = HashSet::new();
        for task in &tasks {
            if task.unit.is_empty() || task.unit.len() > MAX_NAME || !units.insert(task.unit.as_str()) {
                let unit = cut(&task.unit, 60);
                return Err(self.broken(&format!("unit '{unit}' is empty, too long or not unique")));
            }
        }
        drop(units);
        tasks
            .into_iter()
            .map(|task| {
                let params = self.json(&task.params)?;
                Ok((task, params))
            })
            .collect()
    }

    /// The one way in which a guest's document gets in.
    fn json(&self, text: &str) -> Called<Value> {
        self.store.data().parse_json("the answer", text).map_err(|info| self.broken(&info.message))
    }

    fn trap(&self, error: &wasmtime::Error) -> PluginError {
        from_trap(&self.plugin.name, self.export, error)
    }

    fn broken(&self, reason: &str) -> PluginError {
        let message = format!("{}: {}: {}", self.plugin.name, self.export, cut(reason, MAX_MESSAGE));
        PluginError::Failed(ErrorInfo::permanent(codes::PLUGIN_OUTPUT_INVALID, message))
    }

    /// Tells the engine's observer what became of the call.
    fn end<T>(self, outcome: Called<T>) -> Called<T> {
        if let Some(observer) = self.plugin.engine.observer() {
            let left = self.store.get_fuel().ok();
            observer.called(&CallReport {
                plugin: &self.plugin.name,
                digest: &self.plugin.digest,
                export: self.export,
                type_name: self.type_name,
                outcome: outcome_name(&outcome),
                duration: self.started.elapsed(),
                usage: Usage { fuel: left.map(|left| u64::MAX - left), ..self.store.data().usage() },
            });
        }
        outcome
    }
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
