//! `plugin keygen` and `plugin sign`: who vouches for a plugin file.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use geoworker_machine::{ErrorInfo, codes};
use geoworker_plugins::{SigningKey, signature_path};
use serde_json::json;

use crate::exit::{OK, Outcome};
use crate::output;

/// Makes a key: the private one into a new file that only this user can read, the public one onto standard output.
pub(crate) fn keygen(out: &Path, json: bool) -> Outcome {
    let key = SigningKey::generate()?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(out);
    file.and_then(|mut file| writeln!(file, "{}", key.secret_text())).map_err(|error| failed(out, &error))?;
    if json {
        output::json(&json!({"key": out, "public_key": key.public_text()}));
    } else {
        output::line(&key.public_text());
    }
    Ok(OK)
}

/// Signs a plugin file.
pub(crate) fn sign(plugin: &Path, key: &Path, json: bool) -> Outcome {
    let text = std::fs::read_to_string(key).map_err(|error| failed(key, &error))?;
    let key = SigningKey::from_text(&text)?;
    let content = std::fs::read(plugin).map_err(|error| failed(plugin, &error))?;
    let signature = signature_path(plugin);
    std::fs::write(&signature, key.sign(&content)).map_err(|error| failed(&signature, &error))?;
    if json {
        output::json(&json!({"file": plugin, "signature": signature, "public_key": key.public_text()}));
    } else {
        output::line(&format!("{}", signature.display()));
    }
    Ok(OK)
}

fn failed(path: &Path, error: &std::io::Error) -> ErrorInfo {
    ErrorInfo::permanent(codes::PLUGIN_SIGNATURE, format!("{}: {error}", path.display()))
}
