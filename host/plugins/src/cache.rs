//! Compiled artefacts, in folders that others cannot write.

#![expect(unsafe_code, reason = "artefacts are machine code; the one place that loads them says why it may")]

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use geoworker_machine::{ErrorInfo, codes};
use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::engine::PluginEngine;

/// Bytes of the checksum in front of each artefact.
const CHECKSUM: usize = 32;
/// What an artefact's name ends with.
const ENDING: &str = "cwasm";

/// Where compiled plugins are kept, and whether there may be new ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtefactCache {
    /// Folder that this process writes; none keeps nothing. Default none.
    pub own: Option<PathBuf>,
    /// Folder that was filled before (`geoworker plugin precompile`), looked at first, never written. Default none.
    pub prepared: Option<PathBuf>,
    /// Bytes of all artefacts in `own`; the ones that were not used for longest go first. Default 1 GiB.
    pub limit_bytes: u64,
    /// Whether plugins without an artefact are compiled, else refused. Default true.
    pub compile: bool,
}

impl Default for ArtefactCache {
    fn default() -> Self {
        Self { own: None, prepared: None, limit_bytes: 1 << 30, compile: true }
    }
}

impl ArtefactCache {
    /// The default with a folder of its own.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        Self { own: Some(folder.to_owned()), ..Self::default() }
    }

    /// Loads the compiled form of a component, or compiles and keeps it. A folder that cannot be used only costs time.
    ///
    /// # Errors
    /// `PLUGIN_COMPILE`, or `PLUGIN_NOT_PRECOMPILED` where nothing may be compiled.
    pub(crate) fn load_or_compile(
        &self,
        engine: &PluginEngine,
        digest: &str,
        bytes: &[u8],
    ) -> Result<Component, ErrorInfo> {
        let name = format!("{digest}-{}.{ENDING}", engine.compatibility());
        let find = || {
            let prepared = self.prepared.as_ref().and_then(|folder| load(engine, &folder.join(&name), false));
            prepared.or_else(|| load(engine, &self.own.as_ref()?.join(&name), true))
        };
        if let Some(component) = find() {
            return Ok(component);
        }
        if !self.compile {
            let message =
                "there is no compiled form of this file for this program, and compiling is switched off";
            return Err(ErrorInfo::permanent(codes::PLUGIN_NOT_PRECOMPILED, message));
        }
        let lock = self.own.as_deref().and_then(|folder| lock(folder, digest));
        // Whoever had the lock before has probably compiled it.
        if lock.is_some()
            && let Some(component) = find()
        {
            return Ok(component);
        }
        let component = engine.compile(bytes)?;
        if let (Some(folder), Ok(artefact)) = (&self.own, component.serialize())
            && let Err(error) = self.keep(folder, &name, &artefact)
        {
            tracing::warn!(%error, "the compiled plugin cannot be kept; the next start compiles again");
        }
        Ok(component)
    }

    fn keep(&self, folder: &Path, name: &str, artefact: &[u8]) -> std::io::Result<()> {
        create(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&Sha256::digest(artefact))?;
        file.write_all(artefact)?;
        file.persist(folder.join(name)).map_err(|error| error.error)?;
        bound(folder, name, self.limit_bytes)
    }
}

fn create(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Held while a digest is compiled, so that of several processes one does it. The files stay: removing a lock file
/// would let two processes hold it. They are shared by digests, so that there are at most 256.
fn lock(folder: &Path, digest: &str) -> Option<File> {
    create(folder).ok()?;
    let path = folder.join(format!("lock-{}", digest.get(..2)?));
    let file = File::options().create(true).truncate(false).write(true).open(path).ok()?;
    file.lock().ok()?;
    Some(file)
}

fn load(engine: &PluginEngine, path: &Path, touch: bool) -> Option<Component> {
    if !fs::metadata(path.parent()?).is_ok_and(|folder| trusted(&folder)) {
        return None;
    }
    let mut file = File::open(path).ok()?;
    if !file.metadata().is_ok_and(|file| trusted(&file)) {
        return None;
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content).ok()?;
    let (checksum, artefact) = content.split_at_checked(CHECKSUM)?;
    if Sha256::digest(artefact).as_slice() != checksum {
        return None;
    }
    if touch {
        // The time only decides what is removed first.
        let _ = file.set_modified(SystemTime::now());
    }
    // SAFETY: the artefact lies in a folder and file that only root or this user can write (checked above), was written
    // there by `keep`, and is complete (its checksum fits). Wasmtime itself refuses other versions and processors.
    unsafe { Component::deserialize(engine.engine(), artefact) }.ok()
}

/// Only root or this user can have written it.
fn trusted(metadata: &fs::Metadata) -> bool {
    let owner = metadata.uid();
    let ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    ours && metadata.mode() & 0o022 == 0
}

/// Removes what was not used for longest until the rest fits; `newest` stays in any case.
fn bound(folder: &Path, newest: &str, limit_bytes: u64) -> std::io::Result<()> {
    let mut artefacts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        // Another process may have removed it meanwhile.
        if let (true, Ok(metadata)) = (path.extension().is_some_and(|it| it == ENDING), fs::metadata(&path)) {
            artefacts.push((metadata.modified()?, metadata.len(), path));
        }
    }
    artefacts.sort();
    let mut total: u64 = artefacts.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, path) in artefacts {
        if total <= limit_bytes {
            break;
        }
        if !path.ends_with(newest) {
            match fs::remove_file(&path) {
                // Another process was faster.
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            total -= bytes;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first_and_the_newest_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let now = SystemTime::now();
        for (name, age) in [("old.cwasm", 30), ("used.cwasm", 20), ("new.cwasm", 40), ("lock-00", 50)] {
            let file = File::create(folder.path().join(name)).expect("creates");
            file.set_len(100).expect("grows");
            file.set_modified(now - Duration::from_secs(age)).expect("ages");
        }
        let left = || {
            let names =
                fs::read_dir(folder.path()).expect("lists").map(|entry| entry.expect("is there").file_name());
            let mut names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        bound(folder.path(), "new.cwasm", 300).expect("looks");
        assert_eq!(left(), ["lock-00", "new.cwasm", "old.cwasm", "used.cwasm"]);
        bound(folder.path(), "new.cwasm", 200).expect("removes");
        assert_eq!(left(), ["lock-00", "new.cwasm", "used.cwasm"]);
        bound(folder.path(), "new.cwasm", 10).expect("removes");
        assert_eq!(left(), ["lock-00", "new.cwasm"]);
    }
}
