//! Scratch folders: one per attempt, removed with it; what a dead process left is swept at the next start.

use std::path::{Path, PathBuf};

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Creates `name` below `root`.
    pub(crate) fn create(root: &Path, name: &str) -> std::io::Result<Self> {
        let path = root.join(name);
        std::fs::create_dir_all(&path)?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, "a scratch folder could not be removed; the next start sweeps it");
        }
    }
}

/// Removes everything below `root`. Only for its exclusive owner, at start.
pub(crate) fn sweep(root: &Path) -> std::io::Result<()> {
    if root.exists() {
        std::fs::remove_dir_all(root)?;
    }
    std::fs::create_dir_all(root)
}
