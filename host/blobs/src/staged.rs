//! Files that will become blobs.

use std::path::PathBuf;

use crate::name::BlobRef;

/// Name of the file within its staging folder.
const STAGED_FILE: &str = "blob";

/// A file in a staging folder of its own, invisible until it is published. What is dropped unpublished is removed, with
/// whatever was written beside it.
#[derive(Debug)]
pub struct Staged {
    /// Where a native process writes it.
    pub path: PathBuf,
    folder: PathBuf,
    target: BlobRef,
}

impl Staged {
    /// `folder` exists and belongs to this file alone.
    pub(crate) fn new(folder: PathBuf, target: BlobRef) -> Self {
        Self { path: folder.join(STAGED_FILE), folder, target }
    }

    /// What it will become.
    #[must_use]
    pub fn target(&self) -> &BlobRef {
        &self.target
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // What cannot be removed now is swept at the next start.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
