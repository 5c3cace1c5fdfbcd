//! Compiled artefacts, in a folder that belongs to the host alone.

#![expect(unsafe_code, reason = "artefacts are machine code; the one place that loads them says why it may")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use crate::engine::PluginEngine;

/// Bytes of the checksum in front of each artefact.
const CHECKSUM: usize = 32;

/// Loads the compiled form of a component, or compiles and keeps it. A folder that cannot be used only costs time.
///
/// # Errors
/// The compiler's own.
pub(crate) fn load_or_compile(
    engine: &PluginEngine,
    folder: Option<&Path>,
    digest: &str,
    bytes: &[u8],
) -> wasmtime::Result<Component> {
    let path = folder.map(|folder| folder.join(format!("{digest}-{}.cwasm", engine.compatibility())));
    if let Some(component) = path.as_ref().and_then(|path| load(engine, path)) {
        return Ok(component);
    }
    let component = Component::new(engine.engine(), bytes)?;
    if let (Some(path), Ok(artefact)) = (&path, component.serialize())
        && let Err(error) = keep(path, &artefact)
    {
        tracing::warn!(%error, "the compiled plugin cannot be kept; the next start compiles again");
    }
    Ok(component)
}

fn load(engine: &PluginEngine, path: &Path) -> Option<Component> {
    let folder = path.parent()?;
    if !private(folder) {
        return None;
    }
    let content = fs::read(path).ok()?;
    let (checksum, artefact) = content.split_at_checked(CHECKSUM)?;
    if Sha256::digest(artefact).as_slice() != checksum {
        return None;
    }
    // SAFETY: the artefact was written by `keep` into a folder that only this user can write (checked above),
    // and is complete (its checksum fits). Wasmtime itself refuses other versions and processors.
    unsafe { Component::deserialize(engine.engine(), artefact) }.ok()
}

/// Only the owner can write into the folder.
fn private(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o022 == 0)
}

fn keep(path: &Path, artefact: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().map(PathBuf::from).unwrap_or_default();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    file.write_all(&Sha256::digest(artefact))?;
    file.write_all(artefact)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
