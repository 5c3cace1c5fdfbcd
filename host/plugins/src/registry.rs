//! What was loaded: task and job types by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use geoworker_machine::stage::StageSpec;
use geoworker_machine::{ErrorInfo, codes};
use wasmtime::component::InstancePre;

use crate::bindings::{job_types, task_types};
use crate::engine::PluginEngine;
use crate::guest::GuestState;
use crate::limits::{Limits, LimitsPolicy};
use crate::load::LoadReport;
use crate::schema::Schema;

/// A task type that can be run.
#[derive(Debug)]
pub struct TaskTypeInfo {
    /// Unique name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// `raster` or `vector`.
    pub class: String,
    /// Schema of the parameters.
    pub parameters: Schema,
    /// Schema of the result.
    pub result_schema: Schema,
    /// Operations that the handler may ask for.
    pub operations: Vec<String>,
    /// Zones that it may use.
    pub zones: Vec<String>,
    /// Retries after the first attempt.
    pub max_retries: Option<u32>,
    /// Longest time of one attempt.
    pub timeout_seconds: Option<u32>,
}

/// A job type that can be submitted.
#[derive(Debug)]
pub struct JobTypeInfo {
    /// Unique name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One line for people.
    pub summary: String,
    /// Schema of the parameters.
    pub parameters: Schema,
    /// Stages in order.
    pub stages: Vec<StageSpec>,
    /// Task types that the stages use.
    pub task_types: Vec<String>,
}

/// Which interfaces a component exports.
pub(crate) struct Exports {
    pub(crate) tasks: Option<task_types::GuestIndices>,
    pub(crate) jobs: Option<job_types::GuestIndices>,
}

/// A plugin that can be called.
pub struct LoadedPlugin {
    /// File name.
    pub name: String,
    /// SHA-256 of the file.
    pub digest: String,
    pub(crate) engine: PluginEngine,
    pub(crate) limits: Limits,
    pub(crate) component: InstancePre<GuestState>,
    pub(crate) exports: Exports,
}

impl std::fmt::Debug for LoadedPlugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadedPlugin")
            .field("name", &self.name)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

type Offered<T> = BTreeMap<String, (Arc<LoadedPlugin>, Arc<T>)>;

/// All types that loaded plugins offer.
#[derive(Debug, Default)]
pub struct Registry {
    tasks: Offered<TaskTypeInfo>,
    jobs: Offered<JobTypeInfo>,
    reports: Vec<LoadReport>,
    limits: LimitsPolicy,
}

impl Registry {
    /// A task type and its plugin.
    ///
    /// # Errors
    /// `TASK_TYPE_UNKNOWN`, naming plugins that failed to load.
    pub fn task_type(&self, name: &str) -> Result<(Arc<LoadedPlugin>, Arc<TaskTypeInfo>), ErrorInfo> {
        self.tasks
            .get(name)
            .cloned()
            .ok_or_else(|| self.unknown(codes::TASK_TYPE_UNKNOWN, "task", name, &self.tasks))
    }

    /// A job type and its plugin.
    ///
    /// # Errors
    /// `JOB_TYPE_UNKNOWN`, naming what there is.
    pub fn job_type(&self, name: &str) -> Result<(Arc<LoadedPlugin>, Arc<JobTypeInfo>), ErrorInfo> {
        self.jobs
            .get(name)
            .cloned()
            .ok_or_else(|| self.unknown(codes::JOB_TYPE_UNKNOWN, "job", name, &self.jobs))
    }

    /// All task types, by name.
    pub fn task_types(&self) -> impl Iterator<Item = (&LoadedPlugin, &TaskTypeInfo)> {
        self.tasks.values().map(|(plugin, info)| (plugin.as_ref(), info.as_ref()))
    }

    /// All job types, by name.
    pub fn job_types(&self) -> impl Iterator<Item = (&LoadedPlugin, &JobTypeInfo)> {
        self.jobs.values().map(|(plugin, info)| (plugin.as_ref(), info.as_ref()))
    }

    /// What every plugin is held to that is not granted more; reports tell what holds for each file.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits.default
    }

    /// An empty registry whose plugins are held to `limits`.
    #[must_use]
    pub fn with_limits(limits: impl Into<LimitsPolicy>) -> Self {
        Self { limits: limits.into(), ..Self::default() }
    }

    /// What became of each file.
    #[must_use]
    pub fn reports(&self) -> &[LoadReport] {
        &self.reports
    }

    pub(crate) fn report(&mut self, report: LoadReport) {
        self.reports.push(report);
    }

    /// Adds a plugin's types, all or none.
    pub(crate) fn publish(
        &mut self,
        plugin: &Arc<LoadedPlugin>,
        tasks: Vec<TaskTypeInfo>,
        jobs: Vec<JobTypeInfo>,
    ) -> Result<(), ErrorInfo> {
        let taken = tasks
            .iter()
            .filter_map(|info| self.tasks.get(&info.name).map(|(owner, _)| (&info.name, owner)))
            .chain(
                jobs.iter()
                    .filter_map(|info| self.jobs.get(&info.name).map(|(owner, _)| (&info.name, owner))),
            )
            .next();
        if let Some((name, owner)) = taken {
            let message = format!("'{name}' is already offered by {}", owner.name);
            return Err(ErrorInfo::permanent(codes::PLUGIN_CONFLICT, message));
        }
        let pair = |info| (Arc::clone(plugin), info);
        self.tasks.extend(tasks.into_iter().map(|info| (info.name.clone(), pair(Arc::new(info)))));
        let pair = |info| (Arc::clone(plugin), info);
        self.jobs.extend(jobs.into_iter().map(|info| (info.name.clone(), pair(Arc::new(info)))));
        Ok(())
    }

    fn unknown<T>(&self, code: &str, what: &str, name: &str, known: &Offered<T>) -> ErrorInfo {
        let names = known.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let names = if names.is_empty() { "none".to_owned() } else { names };
        let failed: Vec<&str> = self
            .reports
            .iter()
            .filter(|report| report.error.is_some())
            .map(|report| report.file.as_str())
            .collect();
        let message = format!("there is no {what} type '{}'; there are: {names}", name.escape_debug());
        let error = ErrorInfo::permanent(code, message);
        if failed.is_empty() {
            return error;
        }
        error.with_hint(format!("failed to load: {}; see `geoworker plugin list`", failed.join(", ")))
    }
}
