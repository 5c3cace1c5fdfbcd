//! `blobs`: put, get, list.

use std::fs::File;
use std::path::Path;

use geoworker_blobs::{BlobError, BlobFacts, BlobRef};
use geoworker_machine::{ErrorInfo, codes};
use serde_json::{Value, json};

use crate::cli::BlobsCommand;
use crate::config::Config;
use crate::context::{create_data_dir, open_zones};
use crate::exit::{OK, Outcome};
use crate::output;

/// Blobs that are listed at most.
const LISTED: usize = 10_000;

pub(crate) fn run(config: &Config, command: &BlobsCommand, json: bool) -> Outcome {
    create_data_dir(&config.data_dir)?;
    let zones = open_zones(&config.data_dir)?;
    match command {
        BlobsCommand::Put { file, blob } => {
            let blob = parse(blob)?;
            let mut source = File::open(file).map_err(|error| local(file, &error))?;
            if source.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                return Err(ErrorInfo::permanent(codes::USAGE, format!("{} is a folder", file.display())));
            }
            print(&[zones.write(&blob, &mut source, None).map_err(|error| failed(&error))?], json);
        }
        BlobsCommand::Get { blob, file } => {
            let blob = parse(blob)?;
            let mut source = zones.read(&blob).map_err(|error| failed(&error))?;
            let mut target = File::create_new(file).map_err(|error| local(file, &error))?;
            std::io::copy(&mut source, &mut target).map_err(|error| local(file, &error))?;
        }
        BlobsCommand::List { place } => {
            let mut parts = place.splitn(3, '/');
            let zone = parts.next().unwrap_or_default();
            let containers = match parts.next().filter(|name| !name.is_empty()) {
                Some(container) => vec![container.to_owned()],
                None => zones.containers(zone).map_err(|error| failed(&error))?,
            };
            let prefix = parts.next().unwrap_or_default();
            let mut found = Vec::new();
            for container in containers {
                found.extend(zones.list(zone, &container, prefix, LISTED).map_err(|error| failed(&error))?);
            }
            print(&found, json);
        }
    }
    Ok(OK)
}

fn parse(text: &str) -> Result<BlobRef, ErrorInfo> {
    let mut parts = text.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(zone), Some(container), Some(name)) => Ok(BlobRef::new(zone, container, name)),
        _ => Err(ErrorInfo::permanent(
            codes::USAGE,
            format!("'{}' is not ZONE/CONTAINER/NAME", text.escape_debug()),
        )),
    }
}

fn local(file: &Path, error: &std::io::Error) -> ErrorInfo {
    ErrorInfo::permanent(codes::USAGE, format!("{}: {error}", file.display()))
}

fn failed(error: &BlobError) -> ErrorInfo {
    geoworker_worker::blob_error(error)
}

fn value(facts: &BlobFacts) -> Value {
    json!({
        "zone": facts.blob.zone,
        "container": facts.blob.container,
        "name": facts.blob.name,
        "size_bytes": facts.size_bytes,
        "last_modified": facts.last_modified
    })
}

fn print(found: &[BlobFacts], json: bool) {
    if json {
        output::json(&found.iter().map(value).collect::<Vec<_>>());
        return;
    }
    let row = |facts: &BlobFacts| {
        let place = format!("{}/{}/{}", facts.blob.zone, facts.blob.container, facts.blob.name);
        let modified = output::time(Some(facts.last_modified.timestamp_millis()));
        vec![place, facts.size_bytes.to_string(), modified]
    };
    output::table(&found.iter().map(row).collect::<Vec<_>>());
}
