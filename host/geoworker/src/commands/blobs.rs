//! `blobs`: put, get, list.

use std::path::Path;

use geoworker_blobs::{BlobError, BlobFacts, BlobRef, Object, Source};
use geoworker_machine::{ErrorInfo, codes};
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use crate::cli::BlobsCommand;
use crate::config::Config;
use crate::context::{create_data_dir, open_zones};
use crate::exit::{OK, Outcome};
use crate::output;

/// Blobs that are listed at most.
const LISTED: usize = 10_000;
/// Bytes that are read of an object at a time.
const PIECE: usize = 8 << 20;

pub(crate) async fn run(config: &Config, command: &BlobsCommand, json: bool) -> Outcome {
    create_data_dir(&config.data_dir)?;
    let zones = open_zones(config)?;
    match command {
        BlobsCommand::Put { file, blob } => {
            let blob = parse(blob)?;
            let mut source = File::open(file).await.map_err(|error| local(file, &error))?;
            if source.metadata().await.is_ok_and(|metadata| metadata.is_dir()) {
                return Err(ErrorInfo::permanent(codes::USAGE, format!("{} is a folder", file.display())));
            }
            let written = zones.write(&blob, &mut source, None).await;
            print(&[written.map_err(|error| failed(&error))?], json);
        }
        BlobsCommand::Get { blob, file } => {
            let blob = parse(blob)?;
            let source = zones.open(&blob).await.map_err(|error| failed(&error))?;
            let mut target = File::create_new(file).await.map_err(|error| local(file, &error))?;
            match source {
                Source::File(path) => {
                    let mut source = File::open(&path).await.map_err(|error| failed(&error.into()))?;
                    tokio::io::copy(&mut source, &mut target).await.map_err(|error| local(file, &error))?;
                }
                Source::Object(object) => download(&*object, &mut target, file).await?,
            }
            target.sync_all().await.map_err(|error| local(file, &error))?;
        }
        BlobsCommand::List { place } => {
            let mut parts = place.splitn(3, '/');
            let zone = parts.next().unwrap_or_default();
            let containers = match parts.next().filter(|name| !name.is_empty()) {
                Some(container) => vec![container.to_owned()],
                None => zones.containers(zone).await.map_err(|error| failed(&error))?,
            };
            let prefix = parts.next().unwrap_or_default();
            let mut found = Vec::new();
            for container in containers {
                let listed = zones.list(zone, &container, prefix, LISTED).await;
                found.extend(listed.map_err(|error| failed(&error))?);
            }
            print(&found, json);
        }
    }
    Ok(OK)
}

async fn download(object: &dyn Object, target: &mut File, file: &Path) -> Result<(), ErrorInfo> {
    let size = object.facts().size_bytes;
    let mut offset = 0;
    while offset < size {
        let bytes = object.read(offset, PIECE).await.map_err(|error| failed(&error))?;
        target.write_all(&bytes).await.map_err(|error| local(file, &error))?;
        offset += bytes.len() as u64;
    }
    Ok(())
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
