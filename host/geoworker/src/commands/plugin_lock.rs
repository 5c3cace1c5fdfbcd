//! `plugin lock`: what the plugin folder may hold.

use std::path::Path;

use geoworker_plugins::{LOCK_FILE, LockFile};
use serde_json::json;

use crate::exit::{NEGATIVE, OK, Outcome};
use crate::output;

/// Writes the lock file of a folder, or compares with it: exit status 1 where they differ.
pub(crate) fn run(folder: &Path, check: bool, json: bool) -> Outcome {
    let found = LockFile::of_folder(folder)?;
    if check {
        return compare(folder, &found, json);
    }
    found.write(folder)?;
    if json {
        output::json(&json!({"file": folder.join(LOCK_FILE), "plugins": found.plugins()}));
    } else {
        output::line(&format!("{}: {} plugins", folder.join(LOCK_FILE).display(), found.plugins().len()));
    }
    Ok(OK)
}

fn compare(folder: &Path, found: &LockFile, json: bool) -> Outcome {
    let difference = LockFile::read(folder)?.difference(found);
    if json {
        output::json(&difference);
    } else {
        let kinds = [
            ("not locked", &difference.unlocked),
            ("changed", &difference.changed),
            ("missing", &difference.missing),
        ];
        for (what, files) in kinds {
            files.iter().for_each(|file| output::line(&format!("{what:10}  {file}")));
        }
    }
    Ok(if difference.is_empty() { OK } else { NEGATIVE })
}
