//! `plugin precompile`: compiled forms for machines that need not, or may not, compile.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use geoworker_machine::{ErrorInfo, codes};
use geoworker_plugins::Registry;

use super::plugin;
use crate::config::Config;
use crate::context::{engine, loader};
use crate::exit::Outcome;

/// Fills a cache folder with the artefacts of all plugins; exit status 1 where a file failed.
pub(crate) async fn run(config: &Config, out: Option<&Path>, json: bool) -> Outcome {
    let mut loader = loader(config, engine()?)?;
    // What lies in another folder must come into this one, too; and nothing of an image may be left out for its size.
    loader.cache.prepared = None;
    loader.cache.compile = true;
    if let Some(out) = out {
        fs::create_dir_all(out)
            .and_then(|()| tempfile::tempfile_in(out))
            .map_err(|error| unusable(out, &error))?;
        loader.cache.own = Some(out.to_owned());
        loader.cache.limit_bytes = u64::MAX;
    }
    let registry = loader.load(&Registry::default()).await?;
    if let Some(out) = out {
        open_to_readers(out).map_err(|error| unusable(out, &error))?;
    }
    Ok(plugin::list(&registry, json))
}

/// An image is often made by another user than the one who runs it: everybody may read, only the owner may write.
fn open_to_readers(folder: &Path) -> std::io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "cwasm") {
            fs::set_permissions(path, Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

fn unusable(folder: &Path, error: &std::io::Error) -> ErrorInfo {
    let message = format!("{} cannot be written: {error}", folder.display());
    ErrorInfo::permanent(codes::DATA_DIR_UNUSABLE, message)
}
