//! Which files are loaded at all: decided by their bytes, before anything in them is parsed.

use std::path::{Path, PathBuf};

use geoworker_machine::ErrorInfo;

use crate::lockfile::LockFile;
use crate::signature::PublicKeys;

/// What a plugin file must show. By default nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    /// It must be in the folder's `plugins.lock`, with the same content.
    pub locked: bool,
    /// It must be signed by one of the keys in this file.
    pub keys: Option<PathBuf>,
}

/// The policy with the lock file and keys of one load.
#[derive(Default)]
pub(crate) struct Trust {
    lock: Option<LockFile>,
    keys: Option<PublicKeys>,
}

impl Trust {
    /// Reads lock file and keys. They are read at each load, so that they can be replaced with the plugins.
    ///
    /// # Errors
    /// `PLUGIN_NOT_LOCKED` or `PLUGIN_SIGNATURE` where one of them cannot be used.
    pub(crate) fn read(policy: &TrustPolicy, folder: &Path) -> Result<Self, ErrorInfo> {
        let lock = policy.locked.then(|| LockFile::read(folder)).transpose()?;
        let keys = policy.keys.as_deref().map(PublicKeys::read).transpose()?;
        Ok(Self { lock, keys })
    }

    /// Checks one file: its name in the folder and the SHA-256 of what was read.
    ///
    /// # Errors
    /// `PLUGIN_NOT_LOCKED`, `PLUGIN_SIGNATURE`.
    pub(crate) fn check(&self, path: &Path, name: &str, sha256: &[u8]) -> Result<(), ErrorInfo> {
        if let Some(lock) = &self.lock {
            lock.check(name, &geoworker_machine::ids::hex(sha256))?;
        }
        self.keys.as_ref().map_or(Ok(()), |keys| keys.check(path, sha256))
    }
}
