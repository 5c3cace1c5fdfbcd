//! The load pipeline: file → digest → world → compiled → described → schemas → published.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use geoworker_machine::{ErrorInfo, codes};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::bindings::{job_types, task_types};
use crate::cache;
use crate::component;
use crate::described;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::limits::{Limits, LimitsPolicy, PartialLimits};
use crate::metadata::PluginMetadata;
use crate::registry::{Exports, JobTypeInfo, LoadedPlugin, Registry, TaskTypeInfo};

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
    /// What holds for it, once its metadata was read.
    pub limits: Option<Limits>,
    /// What it says about itself.
    pub metadata: Option<PluginMetadata>,
}

/// Loads every `.wasm` file of a folder, by name. A file that fails disables its own types only.
///
/// # Errors
/// Where the folder cannot be read.
pub async fn load_directory(
    engine: &PluginEngine,
    folder: &Path,
    cache: Option<&Path>,
    limits: impl Into<LimitsPolicy>,
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
    let limits = limits.into();
    let mut registry = Registry::with_limits(limits.clone());
    for file in files {
        load_file(engine, &file, cache, limits.clone(), &mut registry).await;
    }
    Ok(registry)
}

/// Loads one file into a registry; the report says what became of it.
pub async fn load_file(
    engine: &PluginEngine,
    path: &Path,
    cache: Option<&Path>,
    limits: impl Into<LimitsPolicy>,
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
        limits: None,
        metadata: None,
    };
    let loaded = load(engine, path, cache, &limits.into(), registry, &mut report).await;
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
    limits: &LimitsPolicy,
    registry: &mut Registry,
    report: &mut LoadReport,
) -> Result<(), ErrorInfo> {
    let bytes = read(path, limits.effective(&report.file, &PartialLimits::default()))?;
    let digest = geoworker_machine::ids::hex(&Sha256::digest(&bytes));
    report.digest = Some(digest.clone());
    report.size_bytes = bytes.len() as u64;
    report.stage = LoadStage::World;
    report.metadata = PluginMetadata::read(&bytes)?;
    let requested = report.metadata.clone().unwrap_or_default().limits;
    let limits = limits.effective(&report.file, &requested);
    report.limits = Some(limits);
    let plugin =
        compile(engine, cache, limits, &report.file.clone(), digest, bytes, &mut report.stage).await?;
    report.stage = LoadStage::Describe;
    let (tasks, jobs) = describe(&plugin, &mut report.stage).await?;
    report.task_types = tasks.iter().map(|info| info.name.clone()).collect();
    report.job_types = jobs.iter().map(|info| info.name.clone()).collect();
    report.stage = LoadStage::Publish;
    registry.publish(&Arc::new(plugin), tasks, jobs)?;
    report.stage = LoadStage::Ready;
    Ok(())
}

/// What a plugin offers, within the time that loading may take.
async fn describe(
    plugin: &LoadedPlugin,
    stage: &mut LoadStage,
) -> Result<(Vec<TaskTypeInfo>, Vec<JobTypeInfo>), ErrorInfo> {
    let limit = plugin.limits.load_ms;
    let described = async {
        let tasks = plugin.describe_tasks().await.map_err(describe_error)?;
        let jobs = plugin.describe_jobs().await.map_err(describe_error)?;
        *stage = LoadStage::Schema;
        // Schemas are compiled on a thread of their own: one that takes long holds up nobody.
        let checked = tokio::task::spawn_blocking(move || described::check(tasks, jobs));
        checked.await.map_err(|error| ErrorInfo::permanent(codes::PLUGIN_SCHEMA, error.to_string()))?
    };
    let described = tokio::time::timeout(Duration::from_millis(limit), described).await;
    described.unwrap_or_else(|_| {
        let message = format!("the plugin was not described and checked within {limit} ms (load_ms)");
        Err(ErrorInfo::permanent(codes::PLUGIN_DESCRIBE, message))
    })
}

fn read(path: &Path, limits: Limits) -> Result<Vec<u8>, ErrorInfo> {
    let unreadable = |error: std::io::Error| {
        ErrorInfo::permanent(codes::PLUGIN_FILE, format!("the file cannot be read: {error}"))
    };
    refuse_foreign_link(path).map_err(unreadable)?;
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    let limit = limits.file_mib << 20;
    if !metadata.is_file() || metadata.len() == 0 || metadata.len() > limit {
        let message = format!("the file has {} bytes; a plugin has 1 to {limit}", metadata.len());
        return Err(ErrorInfo::permanent(codes::PLUGIN_FILE, message));
    }
    std::fs::read(path).map_err(unreadable)
}

/// A link may lead to another file of its folder, nowhere else.
fn refuse_foreign_link(path: &Path) -> std::io::Result<()> {
    if !std::fs::symlink_metadata(path)?.is_symlink() {
        return Ok(());
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if std::fs::canonicalize(path)?.starts_with(std::fs::canonicalize(folder)?) {
        return Ok(());
    }
    Err(std::io::Error::other("it is a link that leaves the plugin folder"))
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
