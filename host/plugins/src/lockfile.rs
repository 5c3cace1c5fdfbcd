//! `plugins.lock`: which file has which content. Made by `geoworker plugin lock`, kept with the plugins.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use geoworker_machine::{ErrorInfo, codes};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::load::plugin_files;

/// Name of the lock file, in the plugin folder.
pub const LOCK_FILE: &str = "plugins.lock";

/// SHA-256 of each plugin file, by file name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockFile {
    #[serde(default)]
    plugins: BTreeMap<String, String>,
}

/// How a folder differs from its lock file; empty where it does not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LockDifference {
    /// Files that are not in the lock file.
    pub unlocked: Vec<String>,
    /// Files whose content is another one.
    pub changed: Vec<String>,
    /// Files of the lock file that are not there.
    pub missing: Vec<String>,
}

impl LockDifference {
    /// Whether folder and lock file agree.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unlocked.is_empty() && self.changed.is_empty() && self.missing.is_empty()
    }
}

impl LockFile {
    /// Hashes the plugin files of a folder.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where the folder, `PLUGIN_FILE` where a file cannot be read.
    pub fn of_folder(folder: &Path) -> Result<Self, ErrorInfo> {
        let mut plugins = BTreeMap::new();
        for path in plugin_files(folder)? {
            let content = std::fs::read(&path).map_err(|error| {
                let message = format!("{} cannot be read: {error}", path.display());
                ErrorInfo::permanent(codes::PLUGIN_FILE, message)
            })?;
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            plugins.insert(name, geoworker_machine::ids::hex(&Sha256::digest(&content)));
        }
        Ok(Self { plugins })
    }

    /// Reads the lock file of a folder.
    ///
    /// # Errors
    /// `PLUGIN_NOT_LOCKED` where it is not there or cannot be read as one.
    pub fn read(folder: &Path) -> Result<Self, ErrorInfo> {
        let path = folder.join(LOCK_FILE);
        let invalid = |reason: String| {
            let message = format!("{} is not usable: {reason}", path.display());
            ErrorInfo::permanent(codes::PLUGIN_NOT_LOCKED, message)
        };
        let text = std::fs::read_to_string(&path).map_err(|error| invalid(error.to_string()))?;
        toml::from_str(&text).map_err(|error| invalid(error.message().to_owned()))
    }

    /// Writes it into a folder, in one step.
    ///
    /// # Errors
    /// `PLUGIN_FILE` where the folder cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ErrorInfo> {
        let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
            file.write_all(self.to_toml().as_bytes())?;
            file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.persist(folder.join(LOCK_FILE)).map_err(|error| error.error)
        });
        written.map(drop).map_err(|error| {
            let message = format!("{} cannot be written: {error}", folder.join(LOCK_FILE).display());
            ErrorInfo::permanent(codes::PLUGIN_FILE, message)
        })
    }

    /// Compares it with what a folder holds.
    #[must_use]
    pub fn difference(&self, found: &Self) -> LockDifference {
        let mut difference = LockDifference::default();
        for (name, digest) in &found.plugins {
            match self.plugins.get(name) {
                None => difference.unlocked.push(name.clone()),
                Some(locked) if locked != digest => difference.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        let missing = self.plugins.keys().filter(|name| !found.plugins.contains_key(*name));
        difference.missing = missing.cloned().collect();
        difference
    }

    /// Files and digests, by file name.
    #[must_use]
    pub fn plugins(&self) -> &BTreeMap<String, String> {
        &self.plugins
    }

    pub(crate) fn check(&self, name: &str, digest: &str) -> Result<(), ErrorInfo> {
        let message = match self.plugins.get(name) {
            Some(locked) if locked == digest => return Ok(()),
            Some(_) => format!("the content of the file is not the one that {LOCK_FILE} names"),
            None => format!("{LOCK_FILE} does not name the file"),
        };
        Err(ErrorInfo::permanent(codes::PLUGIN_NOT_LOCKED, message))
    }

    fn to_toml(&self) -> String {
        let mut text =
            String::from("# SHA-256 of each plugin; written by `geoworker plugin lock`.\n[plugins]\n");
        for (name, digest) in &self.plugins {
            // JSON's escapes are among those of TOML.
            text.push_str(&format!("{} = \"{digest}\"\n", serde_json::Value::from(name.as_str())));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_every_difference_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let put =
            |name: &str, content: &str| std::fs::write(folder.path().join(name), content).expect("writes");
        put("a \"quoted\".wasm", "a");
        put("b.wasm", "b");
        put("c.wasm", "c");
        let locked = LockFile::of_folder(folder.path()).expect("hashes");
        locked.write(folder.path()).expect("writes");
        assert_eq!(LockFile::read(folder.path()), Ok(locked.clone()));
        assert!(locked.difference(&LockFile::of_folder(folder.path()).expect("hashes")).is_empty());
        put("b.wasm", "other");
        put("d.wasm", "d");
        std::fs::remove_file(folder.path().join("c.wasm")).expect("removes");
        let found = LockFile::of_folder(folder.path()).expect("hashes");
        let expected = LockDifference {
            unlocked: vec!["d.wasm".into()],
            changed: vec!["b.wasm".into()],
            missing: vec!["c.wasm".into()],
        };
        assert_eq!(locked.difference(&found), expected);
    }

    #[test]
    fn a_lock_file_that_is_missing_or_broken_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        let code = || LockFile::read(folder.path()).expect_err("is refused").code;
        assert_eq!(code(), codes::PLUGIN_NOT_LOCKED);
        std::fs::write(folder.path().join(LOCK_FILE), "[plugins\n").expect("writes");
        assert_eq!(code(), codes::PLUGIN_NOT_LOCKED);
    }
}
