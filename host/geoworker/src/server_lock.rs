//! One server per data directory: a lock that the kernel drops with the process.

use std::fs::{File, OpenOptions};
use std::path::Path;

use geoworker_machine::{ErrorInfo, codes};
use rustix::fs::{FlockOperation, flock};

/// Held as long as the server runs.
#[derive(Debug)]
pub(crate) struct ServerLock {
    _file: File,
}

impl ServerLock {
    /// Takes the lock of a data directory; none where a server holds it.
    ///
    /// # Errors
    /// `DATA_DIR_UNUSABLE` where the lock file cannot be written.
    pub(crate) fn try_take(data_dir: &Path) -> Result<Option<Self>, ErrorInfo> {
        let path = data_dir.join("server.lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let file = file.map_err(|error| {
            let message = format!("{} cannot be written: {error}", data_dir.display());
            ErrorInfo::permanent(codes::DATA_DIR_UNUSABLE, message)
        })?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(_) => Ok(None),
        }
    }

    /// As [`Self::try_take`], for a command that must be the server.
    ///
    /// # Errors
    /// `DATA_DIR_IN_USE` where another server holds it.
    pub(crate) fn take(data_dir: &Path) -> Result<Self, ErrorInfo> {
        Self::try_take(data_dir)?.ok_or_else(|| {
            let message = format!("another server runs on {}", data_dir.display());
            ErrorInfo::permanent(codes::DATA_DIR_IN_USE, message)
        })
    }
}
