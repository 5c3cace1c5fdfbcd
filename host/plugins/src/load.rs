//! The load pipeline: file → digest → world → compiled → described → schemas → published.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use geoworker_machine::stage::{FailurePolicy, StageSpec};
use geoworker_machine::{ErrorInfo, codes};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::bindings::{job_types, task_types};
use crate::cache;
use crate::component;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::limits::Limits;
use crate::registry::{Exports, JobTypeInfo, LoadedPlugin, Registry, TaskTypeInfo};
use crate::schema::Schema;

/// How far a file got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadStage {
    /// Reading the file.
    Read,
    /// Checking imports and exports.
    World,
    /// Compiling, or loading the compiled form.
    Compile,
    /// Asking it what it offers.
    Describe,
    /// Checking names and schemas.
    Schema,
    /// Adding its types.
    Publish,
    /// All done.
    Ready,
}

/// What became of one file.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// File name.
    pub file: String,
    /// SHA-256, once the file was read.
    pub digest: Option<String>,
    /// `ready`, or the stage that failed.
    pub stage: LoadStage,
    /// Why it failed.
    pub error: Option<ErrorInfo>,
    /// Types it offers.
    pub task_types: Vec<String>,
    /// Types it offers.
    pub job_types: Vec<String>,
    /// Bytes of the file.
    pub size_bytes: u64,
    /// How long it took.
    pub load_ms: f64,
}

/// Loads every `.wasm` file of a folder, by name. A file that fails disables its own types only.
///
/// # Errors
/// Where the folder cannot be read.
pub async fn load_directory(
    engine: &PluginEngine,
    folder: &Path,
    cache: Option<&Path>,
    limits: Limits,
) -> Result<Registry, ErrorInfo> {
    let unreadable = |error: std::io::Error| {
        let message = format!("the plugin directory {} cannot be read: {error}", folder.display());
        ErrorInfo::permanent(codes::CONFIG_INVALID, message)
            .with_hint("name it with --plugins or GEOWORKER_PLUGINS")
    };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "wasm") {
            files.push(path);
        }
    }
    files.sort();
    let mut registry = Registry::with_limits(limits);
    for file in files {
        load_file(engine, &file, cache, limits, &mut registry).await;
    }
    Ok(registry)
}

/// Loads one file into a registry; the report says what became of it.
pub async fn load_file(
    engine: &PluginEngine,
    path: &Path,
    cache: Option<&Path>,
    limits: Limits,
    registry: &mut Registry,
) {
    let started = Instant::now();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut report = LoadReport {
        file: name,
        digest: None,
        stage: LoadStage::Read,
        error: None,
        task_types: Vec::new(),
        job_types: Vec::new(),
        size_bytes: 0,
        load_ms: 0.0,
    };
    let loaded = load(engine, path, cache, limits, registry, &mut report).await;
    report.error = loaded.err();
    report.load_ms = started.elapsed().as_secs_f64() * 1000.0;
    match &report.error {
        None => {
            tracing::info!(
                plugin = report.file,
                digest = report.digest,
                ms = report.load_ms,
                "plugin loaded"
            );
        }
        Some(error) => {
            tracing::error!(plugin = report.file, stage = ?report.stage, code = error.code, "plugin failed to load: {}", error.message);
        }
    }
    registry.report(report);
}

async fn load(
    engine: &PluginEngine,
    path: &Path,
    cache: Option<&Path>,
    limits: Limits,
    registry: &mut Registry,
    report: &mut LoadReport,
) -> Result<(), ErrorInfo> {
    let bytes = read(path, limits)?;
    let digest = geoworker_machine::ids::hex(&Sha256::digest(&bytes));
    report.digest = Some(digest.clone());
    report.size_bytes = bytes.len() as u64;
    let plugin =
        compile(engine, cache, limits, &report.file.clone(), digest, bytes, &mut report.stage).await?;
    report.stage = LoadStage::Describe;
    let tasks = plugin.describe_tasks().await.map_err(describe_error)?;
    let jobs = plugin.describe_jobs().await.map_err(describe_error)?;
    report.stage = LoadStage::Schema;
    let tasks = tasks.into_iter().map(task_type).collect::<Result<Vec<_>, _>>()?;
    let jobs = jobs.into_iter().map(job_type).collect::<Result<Vec<_>, _>>()?;
    if tasks.is_empty() && jobs.is_empty() {
        return Err(ErrorInfo::permanent(
            codes::PLUGIN_SCHEMA,
            "the plugin describes no task and no job type",
        ));
    }
    report.task_types = tasks.iter().map(|info| info.name.clone()).collect();
    report.job_types = jobs.iter().map(|info| info.name.clone()).collect();
    report.stage = LoadStage::Publish;
    registry.publish(&Arc::new(plugin), tasks, jobs)?;
    report.stage = LoadStage::Ready;
    Ok(())
}

fn read(path: &Path, limits: Limits) -> Result<Vec<u8>, ErrorInfo> {
    let unreadable = |error: std::io::Error| {
        ErrorInfo::permanent(codes::PLUGIN_FILE, format!("the file cannot be read: {error}"))
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let limit = limits.file_mib << 20;
    if !metadata.is_file() || metadata.len() == 0 || metadata.len() > limit {
        let message = format!("the file has {} bytes; a plugin has 1 to {limit}", metadata.len());
        return Err(ErrorInfo::permanent(codes::PLUGIN_FILE, message));
    }
    std::fs::read(path).map_err(unreadable)
}

async fn compile(
    engine: &PluginEngine,
    cache: Option<&Path>,
    limits: Limits,
    name: &str,
    digest: String,
    bytes: Vec<u8>,
    stage: &mut LoadStage,
) -> Result<LoadedPlugin, ErrorInfo> {
    *stage = LoadStage::World;
    let prepared = component::prepare(&bytes)?.into_owned();
    *stage = LoadStage::Compile;
    let (worker, key) = (engine.clone(), digest.clone());
    let cache = cache.map(Path::to_owned);
    let compiled = tokio::task::spawn_blocking(move || {
        cache::load_or_compile(&worker, cache.as_deref(), &key, &prepared)
    });
    let component = match compiled.await {
        Ok(result) => result.map_err(|error| compile_error(&error.root_cause().to_string()))?,
        Err(error) => return Err(compile_error(&error.to_string())),
    };
    let mismatch = |error: wasmtime::Error| {
        ErrorInfo::permanent(
            codes::PLUGIN_WORLD_MISMATCH,
            format!("the component does not fit the contract: {error:#}"),
        )
    };
    let linked = engine.linker().instantiate_pre(&component).map_err(mismatch)?;
    let exports = Exports {
        tasks: task_types::GuestIndices::new(&linked).ok(),
        jobs: job_types::GuestIndices::new(&linked).ok(),
    };
    if exports.tasks.is_none() && exports.jobs.is_none() {
        let message = "task-types and job-types have other functions than the contract's";
        return Err(ErrorInfo::permanent(codes::PLUGIN_WORLD_MISMATCH, message));
    }
    Ok(LoadedPlugin {
        name: name.to_owned(),
        digest,
        engine: engine.clone(),
        limits,
        component: linked,
        exports,
    })
}

fn compile_error(reason: &str) -> ErrorInfo {
    ErrorInfo::permanent(codes::PLUGIN_COMPILE, format!("the component does not compile: {reason}"))
}

fn describe_error(error: PluginError) -> ErrorInfo {
    let reason = match error {
        PluginError::Failed(info) => info.to_string(),
        PluginError::Stopped(reason) => reason,
    };
    ErrorInfo::permanent(codes::PLUGIN_DESCRIBE, reason)
}

fn task_type(described: task_types::TaskType) -> Result<TaskTypeInfo, ErrorInfo> {
    check_name(&described.name)?;
    Ok(TaskTypeInfo {
        parameters: schema(&described.name, "parameters-schema", &described.parameters_schema)?,
        result_schema: schema(&described.name, "result-schema", &described.result_schema)?,
        name: described.name,
        version: described.version,
        summary: described.summary,
        class: described.class,
        operations: described.operations,
        zones: described.zones,
        max_retries: described.max_retries,
        timeout_seconds: described.timeout_seconds,
    })
}

fn job_type(described: job_types::JobType) -> Result<JobTypeInfo, ErrorInfo> {
    check_name(&described.name)?;
    if described.stages.is_empty() {
        let message = format!("job type '{}' has no stage", described.name);
        return Err(ErrorInfo::permanent(codes::PLUGIN_SCHEMA, message));
    }
    let stage = |stage: job_types::Stage| StageSpec {
        on_failure: FailurePolicy::from_name(&stage.on_failure),
        name: stage.name,
    };
    Ok(JobTypeInfo {
        parameters: schema(&described.name, "parameters-schema", &described.parameters_schema)?,
        name: described.name,
        version: described.version,
        summary: described.summary,
        stages: described.stages.into_iter().map(stage).collect(),
        task_types: described.task_types,
    })
}

fn check_name(name: &str) -> Result<(), ErrorInfo> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if first && rest && name.len() <= 64 {
        return Ok(());
    }
    let message = format!("'{}' is not a name in lower-case snake case", name.escape_debug());
    Err(ErrorInfo::permanent(codes::PLUGIN_SCHEMA, message))
}

fn schema(name: &str, what: &str, text: &str) -> Result<Schema, ErrorInfo> {
    Schema::new(text).map_err(|reason| {
        ErrorInfo::permanent(codes::PLUGIN_SCHEMA, format!("{what} of '{name}' is not valid: {reason}"))
    })
}
