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
#[derive(Clone)]
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

impl LoadedPlugin {
    /// The same content under another file name, or with other limits.
    pub(crate) fn renamed(&self, name: &str, limits: Limits) -> Self {
        Self {
            name: name.to_owned(),
            digest: self.digest.clone(),
            engine: self.engine.clone(),
            limits,
            component: self.component.clone(),
            exports: self.exports.clone(),
        }
    }
}

/// A plugin with everything that it offers.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) plugin: Arc<LoadedPlugin>,
    pub(crate) tasks: Vec<Arc<TaskTypeInfo>>,
    pub(crate) jobs: Vec<Arc<JobTypeInfo>>,
}

type Offered<T> = BTreeMap<String, (Arc<LoadedPlugin>, Arc<T>)>;

/// All types that loaded plugins offer.
#[derive(Debug, Default)]
pub struct Registry {
    tasks: Offered<TaskTypeInfo>,
    jobs: Offered<JobTypeInfo>,
    offers: BTreeMap<String, Arc<Offer>>,
    reports: Vec<LoadReport>,
    limits: LimitsPolicy,
    generation: u64,
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

    /// What holds for every plugin, and for single ones.
    pub(crate) fn policy(&self) -> &LimitsPolicy {
        &self.limits
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

    /// Which load this is of those that differed, from 1; 0 where nothing was loaded.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    pub(crate) fn report(&mut self, report: LoadReport) {
        self.reports.push(report);
    }

    /// What the file of this name offers.
    pub(crate) fn offer(&self, file: &str) -> Option<&Arc<Offer>> {
        self.offers.get(file)
    }

    /// A plugin of this content, under whatever name.
    pub(crate) fn by_digest(&self, digest: &str) -> Option<&Arc<LoadedPlugin>> {
        self.offers.values().map(|offer| &offer.plugin).find(|plugin| plugin.digest == digest)
    }

    /// Adds what a file offers, all or nothing. The same content under two names is one plugin, served under the first.
    ///
    /// # Errors
    /// `PLUGIN_CONFLICT` where another plugin has a type of the same name.
    pub(crate) fn publish(&mut self, file: &str, offer: &Arc<Offer>) -> Result<(), ErrorInfo> {
        let digest = &offer.plugin.digest;
        let task_owners = offer.tasks.iter().filter_map(|info| owner(&self.tasks, &info.name));
        let job_owners = offer.jobs.iter().filter_map(|info| owner(&self.jobs, &info.name));
        if let Some((name, owner)) = task_owners.chain(job_owners).find(|(_, owner)| owner.digest != *digest)
        {
            let message = format!("'{name}' is already offered by {}", owner.name);
            return Err(ErrorInfo::permanent(codes::PLUGIN_CONFLICT, message));
        }
        let pair = |info| (Arc::clone(&offer.plugin), info);
        for info in &offer.tasks {
            self.tasks.entry(info.name.clone()).or_insert_with(|| pair(Arc::clone(info)));
        }
        let pair = |info| (Arc::clone(&offer.plugin), info);
        for info in &offer.jobs {
            self.jobs.entry(info.name.clone()).or_insert_with(|| pair(Arc::clone(info)));
        }
        self.offers.insert(file.to_owned(), Arc::clone(offer));
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

fn owner<'a, T>(offered: &'a Offered<T>, name: &str) -> Option<(&'a str, &'a LoadedPlugin)> {
    offered.get_key_value(name).map(|(name, (plugin, _))| (name.as_str(), plugin.as_ref()))
}
