//! The load pipeline: file → digest → trust → world → compiled → described → schemas → published.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use geoworker_machine::{ErrorInfo, codes};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::bindings::{job_types, task_types};
use crate::cache::ArtefactCache;
use crate::component;
use crate::described;
use crate::engine::PluginEngine;
use crate::error::PluginError;
use crate::limits::{Limits, LimitsPolicy, PartialLimits};
use crate::metadata::PluginMetadata;
use crate::registry::{Exports, LoadedPlugin, Offer, Registry};
use crate::trust::{Trust, TrustPolicy};

/// How far a file got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadStage {
    /// Reading the file.
    Read,
    /// Checking the lock file and signature.
    Trust,
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
    /// SHA-256 of the version whose types are served: the file's own, the one before where the file failed, or none.
    pub serving: Option<String>,
    /// Types that are served.
    pub task_types: Vec<String>,
    /// Types that are served.
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

impl LoadReport {
    fn new(file: String) -> Self {
        Self {
            file,
            digest: None,
            stage: LoadStage::Read,
            error: None,
            serving: None,
            task_types: Vec::new(),
            job_types: Vec::new(),
            size_bytes: 0,
            load_ms: 0.0,
            limits: None,
            metadata: None,
        }
    }

    fn serves(&mut self, offer: &Offer) {
        self.serving = Some(offer.plugin.digest.clone());
        self.task_types = offer.tasks.iter().map(|info| info.name.clone()).collect();
        self.job_types = offer.jobs.iter().map(|info| info.name.clone()).collect();
    }

    /// Whether this is what became of the same content before.
    pub(crate) fn is_same(&self, before: &Self) -> bool {
        let code = |report: &Self| report.error.as_ref().map(|error| error.code.clone());
        self.digest == before.digest && self.serving == before.serving && code(self) == code(before)
    }
}

/// From where and how plugins are loaded; the same for every generation.
#[derive(Debug, Clone)]
pub struct Loader {
    /// What compiles and runs them.
    pub engine: PluginEngine,
    /// Their folder.
    pub folder: PathBuf,
    /// What they may use.
    pub limits: LimitsPolicy,
    /// Their compiled forms.
    pub cache: ArtefactCache,
    /// What a file must show.
    pub trust: TrustPolicy,
}

impl Loader {
    /// A loader that keeps no artefacts and asks for no proof.
    #[must_use]
    pub fn new(engine: PluginEngine, folder: &Path, limits: impl Into<LimitsPolicy>) -> Self {
        let (cache, trust) = (ArtefactCache::default(), TrustPolicy::default());
        Self { engine, folder: folder.to_owned(), limits: limits.into(), cache, trust }
    }

    /// Loads every `.wasm` file of the folder, by name. Content that `before` has is shared, not loaded again. A file that
    /// fails disables its own types only, and where `before` has another version of it, that one goes on serving.
    ///
    /// # Errors
    /// Where the folder, or the lock file or keys that are asked for, cannot be read.
    pub async fn load(&self, before: &Registry) -> Result<Registry, ErrorInfo> {
        let files = plugin_files(&self.folder)?;
        let trust = Trust::read(&self.trust, &self.folder)?;
        let mut registry = Registry::with_limits(self.limits.clone());
        for file in files {
            self.load_file(&file, &trust, before, &mut registry).await;
        }
        Ok(registry)
    }

    async fn load_file(&self, path: &Path, trust: &Trust, before: &Registry, registry: &mut Registry) {
        let started = Instant::now();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut report = LoadReport::new(name);
        match self.offer(path, trust, before, registry, &mut report).await {
            Ok(offer) => {
                report.stage = LoadStage::Ready;
                report.serves(&offer);
            }
            Err(error) => {
                report.error = Some(error);
                fall_back(before, registry, &mut report);
            }
        }
        report.load_ms = started.elapsed().as_secs_f64() * 1000.0;
        let known = before.reports().iter().find(|known| known.file == report.file);
        if !known.is_some_and(|known| report.is_same(known)) {
            log(&report);
        }
        registry.report(report);
    }

    async fn offer(
        &self,
        path: &Path,
        trust: &Trust,
        before: &Registry,
        registry: &mut Registry,
        report: &mut LoadReport,
    ) -> Result<Arc<Offer>, ErrorInfo> {
        let bytes = read(path, self.limits.effective(&report.file, &PartialLimits::default()))?;
        let sha256 = Sha256::digest(&bytes);
        let digest = geoworker_machine::ids::hex(&sha256);
        report.digest = Some(digest.clone());
        report.size_bytes = bytes.len() as u64;
        report.stage = LoadStage::Trust;
        trust.check(path, &report.file, &sha256)?;
        report.stage = LoadStage::World;
        report.metadata = PluginMetadata::read(&bytes)?;
        let requested = report.metadata.clone().unwrap_or_default().limits;
        let limits = self.limits.effective(&report.file, &requested);
        report.limits = Some(limits);
        let unchanged = before.offer(&report.file).filter(|offer| offer.plugin.digest == digest);
        let offer = if let Some(offer) = unchanged {
            Arc::clone(offer)
        } else {
            let twin = before.by_digest(&digest).or_else(|| registry.by_digest(&digest));
            let plugin = match twin {
                Some(twin) => twin.renamed(&report.file, limits),
                None => self.compile(&report.file, limits, digest, bytes, &mut report.stage).await?,
            };
            Arc::new(describe(plugin, &mut report.stage).await?)
        };
        report.stage = LoadStage::Publish;
        registry.publish(&report.file, &offer)?;
        Ok(offer)
    }

    async fn compile(
        &self,
        name: &str,
        limits: Limits,
        digest: String,
        bytes: Vec<u8>,
        stage: &mut LoadStage,
    ) -> Result<LoadedPlugin, ErrorInfo> {
        let engine = &self.engine;
        let prepared = prepare(engine, bytes).await?;
        *stage = LoadStage::Compile;
        let component = engine.compiler().load_or_compile(engine, &self.cache, &digest, prepared).await?;
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
        let (name, engine) = (name.to_owned(), engine.clone());
        Ok(LoadedPlugin { name, digest, engine, limits, component: linked, exports })
    }
}

/// Loads a folder once, without proof of origin; see [`Loader`].
///
/// # Errors
/// Where the folder cannot be read.
pub async fn load_directory(
    engine: &PluginEngine,
    folder: &Path,
    cache: Option<&Path>,
    limits: impl Into<LimitsPolicy>,
) -> Result<Registry, ErrorInfo> {
    let mut loader = Loader::new(engine.clone(), folder, limits);
    loader.cache.own = cache.map(Path::to_owned);
    loader.load(&Registry::default()).await
}

/// Loads one file into a registry, without proof of origin; the report says what became of it.
pub async fn load_file(engine: &PluginEngine, path: &Path, cache: Option<&Path>, registry: &mut Registry) {
    let mut loader = Loader::new(engine.clone(), path, registry.policy().clone());
    loader.cache.own = cache.map(Path::to_owned);
    loader.load_file(path, &Trust::default(), &Registry::default(), registry).await;
}

/// The plugin files of a folder, by name; hidden ones are left out.
///
/// # Errors
/// `CONFIG_INVALID` where it cannot be read.
pub(crate) fn plugin_files(folder: &Path) -> Result<Vec<PathBuf>, ErrorInfo> {
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
    Ok(files)
}

/// Lets the version before go on serving. The same content does not: it was refused, or gave way to another plugin.
fn fall_back(before: &Registry, registry: &mut Registry, report: &mut LoadReport) {
    let Some(offer) = before.offer(&report.file) else { return };
    let refused = report.digest.as_ref() == Some(&offer.plugin.digest);
    if !refused && registry.publish(&report.file, offer).is_ok() {
        report.serves(offer);
    }
}

fn log(report: &LoadReport) {
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
            tracing::error!(plugin = report.file, stage = ?report.stage, code = error.code, serving = report.serving, "plugin failed to load: {}", error.message);
        }
    }
}

/// Parses what a stranger wrote, off the runtime's threads; a parser that panics refuses the file.
async fn prepare(engine: &PluginEngine, bytes: Vec<u8>) -> Result<Vec<u8>, ErrorInfo> {
    let engine = engine.clone();
    let work = move || component::prepare(engine.engine(), &bytes).map(Cow::into_owned);
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let message = format!("the file cannot be parsed: {error}");
        Err(ErrorInfo::permanent(codes::PLUGIN_NOT_WASM, message))
    })
}

/// What a plugin offers, within the time that loading may take.
async fn describe(plugin: LoadedPlugin, stage: &mut LoadStage) -> Result<Offer, ErrorInfo> {
    *stage = LoadStage::Describe;
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
    let (tasks, jobs) = described.unwrap_or_else(|_| {
        let message = format!("the plugin was not described and checked within {limit} ms (load_ms)");
        Err(ErrorInfo::permanent(codes::PLUGIN_DESCRIBE, message))
    })?;
    let (tasks, jobs) = (tasks.into_iter().map(Arc::new).collect(), jobs.into_iter().map(Arc::new).collect());
    Ok(Offer { plugin: Arc::new(plugin), tasks, jobs })
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

fn describe_error(error: PluginError) -> ErrorInfo {
    let reason = match error {
        PluginError::Failed(info) => info.to_string(),
        PluginError::Stopped(reason) => reason,
    };
    ErrorInfo::permanent(codes::PLUGIN_DESCRIBE, reason)
}
