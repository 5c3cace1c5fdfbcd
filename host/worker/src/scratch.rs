//! Scratch folders: one per worker, in it one per attempt, removed with it. What a dead worker left is swept by those
//! that live.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use geoworker_blobs::OwnedFolder;

/// Scratch of this worker: created when it is needed first.
#[derive(Debug, Default)]
pub(crate) struct ScratchRoot(OnceLock<OwnedFolder>);

impl ScratchRoot {
    /// Creates `name` in this worker's folder below `root`.
    pub(crate) fn create(&self, root: &Path, name: &str) -> std::io::Result<Scratch> {
        if self.0.get().is_none() {
            // Of two that come first, one keeps its folder and the other removes it again.
            let _ = self.0.set(OwnedFolder::create(root)?);
        }
        let own = self.0.get().map_or(root, OwnedFolder::path);
        let path = own.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Scratch { path })
    }
}

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, "a scratch folder could not be removed; it goes with its worker");
        }
    }
}
