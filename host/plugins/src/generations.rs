//! Generations: the plugins that serve now can be replaced while work goes on. What took a generation ends on it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use geoworker_machine::ErrorInfo;
use serde::Serialize;
use tokio::sync::{Mutex, watch};

use crate::load::{LoadReport, Loader};
use crate::registry::Registry;

/// What a reload changed; file names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// Generation that serves now.
    pub generation: u64,
    /// Files that serve and did not.
    pub added: Vec<String>,
    /// Files that serve another version.
    pub replaced: Vec<String>,
    /// Files that served and do not any more.
    pub removed: Vec<String>,
    /// Files that failed, if not in the same way before.
    pub failed: Vec<String>,
    /// Files that failed before, and are again what serves.
    pub restored: Vec<String>,
}

/// The plugins that serve. Clones share everything.
#[derive(Debug, Clone, Default)]
pub struct Plugins(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    current: RwLock<Arc<Registry>>,
    loader: Option<Loader>,
    /// One reload at a time.
    reloading: Mutex<()>,
    generation: watch::Sender<u64>,
}

impl From<Arc<Registry>> for Plugins {
    /// Plugins that stay as they are.
    fn from(registry: Arc<Registry>) -> Self {
        let generation = watch::Sender::new(registry.generation());
        Self(Arc::new(Shared { current: RwLock::new(registry), generation, ..Shared::default() }))
    }
}

impl Plugins {
    /// Loads the first generation.
    ///
    /// # Errors
    /// As [`Loader::load`].
    pub async fn load(loader: Loader) -> Result<Self, ErrorInfo> {
        let mut registry = loader.load(&Registry::default()).await?;
        registry.set_generation(1);
        let (current, generation) = (RwLock::new(Arc::new(registry)), watch::Sender::new(1));
        Ok(Self(Arc::new(Shared { current, loader: Some(loader), generation, ..Shared::default() })))
    }

    /// The generation that serves now. Whoever needs several answers that fit each other takes it once.
    #[must_use]
    pub fn current(&self) -> Arc<Registry> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the number of each new generation.
    #[must_use]
    pub fn generations(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// The folder that a reload reads; none where plugins stay as they are.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        self.0.loader.as_ref().map(|loader| loader.folder.as_path())
    }

    /// Loads the folder again and serves what it holds now; answers nothing where that is the same. New work takes the new
    /// generation, work in flight ends on its own.
    ///
    /// # Errors
    /// As [`Loader::load`]; the generation before goes on serving.
    pub async fn reload(&self) -> Result<Option<Changes>, ErrorInfo> {
        let Some(loader) = &self.0.loader else { return Ok(None) };
        let _one = self.0.reloading.lock().await;
        let before = self.current();
        let mut next = loader.load(&before).await?;
        let Some(mut changes) = changes(before.reports(), next.reports()) else { return Ok(None) };
        changes.generation = before.generation() + 1;
        next.set_generation(changes.generation);
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        self.0.generation.send_replace(changes.generation);
        tracing::info!(
            generation = changes.generation,
            added = changes.added.join(", "),
            replaced = changes.replaced.join(", "),
            removed = changes.removed.join(", "),
            failed = changes.failed.join(", "),
            restored = changes.restored.join(", "),
            "plugins reloaded"
        );
        Ok(Some(changes))
    }
}

fn changes(before: &[LoadReport], next: &[LoadReport]) -> Option<Changes> {
    let mut gone: BTreeMap<&str, &LoadReport> =
        before.iter().map(|report| (report.file.as_str(), report)).collect();
    let mut changes = Changes::default();
    for report in next {
        let known = gone.remove(report.file.as_str());
        if known.is_some_and(|known| report.is_same(known)) {
            continue;
        }
        let file = report.file.clone();
        if report.error.is_some() {
            changes.failed.push(file.clone());
        }
        match (known.and_then(|known| known.serving.as_ref()), &report.serving) {
            (None, Some(_)) => changes.added.push(file),
            (Some(_), None) => changes.removed.push(file),
            (Some(old), Some(new)) if old != new => changes.replaced.push(file),
            _ if report.error.is_none() => changes.restored.push(file),
            _ => {}
        }
    }
    changes.removed.extend(gone.into_keys().map(str::to_owned));
    (changes != Changes::default()).then_some(changes)
}
