//! The host against real guests: hostile ones are bounded, decent ones are answered from the journal.
//!
//! The guests come from `tools/build-plugins`, which `make test` runs first.

#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use geoworker_machine::{ErrorInfo, codes};
use geoworker_plugins::{
    HostServices, JournaledOperation, Limits, OperationError, PluginEngine, PluginError, Registry,
    TaskContext, UnitResult, load_directory,
};
use serde_json::{Value, json};

const TIGHT: Limits = Limits {
    cpu_ms: 150,
    handle_cpu_ms: 200,
    memory_mib: 16,
    table_elements: 20_000,
    transfer_kib: 1024,
    string_kib: 4096,
    list_items: 50_000,
    json_depth: 64,
    json_kib: 4096,
    host_calls: 500,
    log_lines: 20,
    log_line_bytes: 100,
    log_kib: 1024,
    stage_tasks: 100,
    file_mib: 8,
    load_ms: 10_000,
};

fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../plugins").join(name);
    assert!(path.is_dir(), "{} is missing: run tools/build-plugins", path.display());
    path
}

async fn registry(name: &str, limits: Limits) -> Registry {
    let engine = PluginEngine::new().expect("an engine");
    let registry = load_directory(&engine, &folder(name), None, limits).await.expect("loads");
    assert!(registry.reports().iter().all(|report| report.error.is_none()), "{:?}", registry.reports());
    registry
}

/// What a guest asked for and wrote.
#[derive(Debug, Default)]
struct Seen {
    performed: Vec<String>,
    recorded: Vec<JournaledOperation>,
    lines: Vec<String>,
}

#[derive(Clone, Default)]
struct Services(Arc<Mutex<Seen>>);

#[async_trait]
impl HostServices for Services {
    async fn perform(&mut self, operation: &str, _: Value) -> Result<Value, OperationError> {
        self.0.lock().expect("no panic").performed.push(operation.to_owned());
        match operation {
            "raster.inspect" => Ok(raster_info()),
            "raster.statistics" => Ok(json!([statistics()])),
            other => Err(OperationError::Failed(ErrorInfo::transient("TEST", other))),
        }
    }
    async fn record(&mut self, entry: JournaledOperation) -> Result<(), OperationError> {
        self.0.lock().expect("no panic").recorded.push(entry);
        Ok(())
    }
    fn log(&mut self, _: &str, message: &str) {
        self.0.lock().expect("no panic").lines.push(message.to_owned());
    }
    fn progress(&mut self, fraction: f32, _: &str) {
        assert!((0.0..=1.0).contains(&fraction));
    }
    async fn result_count(&mut self, _: u32) -> Result<u32, OperationError> {
        Ok(0)
    }
    async fn result_page(&mut self, _: u32, _: u32, _: u32) -> Result<Vec<UnitResult>, OperationError> {
        Ok(Vec::new())
    }
}

fn raster_info() -> Value {
    json!({
        "size_bytes": 1, "last_modified": "2026-01-01T00:00:00Z", "driver": "GTiff", "width": 10, "height": 10,
        "bands": [{"index": 1, "data_type": "int16", "color_interpretation": "gray", "nodata": "-32768", "scale": null,
                   "offset": null, "unit": null, "description": null, "color_table_entries": 0}],
        "crs": {"code": "EPSG:4326", "name": "WGS 84", "wkt": "", "projjson": null, "geographic": true},
        "geotransform": [0.0, 1.0, 0.0, 0.0, 0.0, -1.0], "gcp_count": 0, "has_rpc": false,
        "bounds_native": null, "bounds_wgs84": null, "footprint": "{}", "compression": null, "block_width": 10,
        "block_height": 10, "overview_count": 0, "mask": "nodata", "declares_cog": false, "datetime": null,
        "sampling": "area", "uncompressed_bytes": 200
    })
}

fn statistics() -> Value {
    json!({
        "index": 1, "sampled": 100, "valid": 100, "minimum": 0.0, "maximum": 90.0, "mean": 4.0, "stddev": 1.0,
        "distinct": 60, "roughness": 0.01, "integral": true, "extreme": 0, "undeclared_nodata": 0
    })
}

fn context(task_type: &str, params: &Value) -> TaskContext {
    TaskContext {
        task_id: "t".into(),
        job_id: "j".into(),
        job_type: "test".into(),
        task_type: task_type.into(),
        stage: 1,
        unit: "u".into(),
        attempt: 1,
        submitted_at: "2026-01-01T00:00:00Z".into(),
        params: params.to_string(),
    }
}

async fn handle(
    registry: &Registry,
    task_type: &str,
    params: &Value,
    journal: Vec<JournaledOperation>,
) -> (Result<Value, PluginError>, Services) {
    let services = Services::default();
    let (plugin, info) = registry.task_type(task_type).expect("is offered");
    let answer = plugin.handle(&info, &context(task_type, params), Box::new(services.clone()), journal).await;
    (answer, services)
}

fn code(answer: Result<Value, PluginError>) -> String {
    match answer {
        Err(PluginError::Failed(info)) => info.code,
        other => format!("{other:?}"),
    }
}

/// Bytes of one return are bounded whatever they are made of.
#[tokio::test]
async fn what_a_guest_returns_is_bounded() {
    let registry = registry("dist-hostile", Limits { transfer_kib: 512, handle_cpu_ms: 5000, ..TIGHT }).await;
    let (answer, _) = handle(&registry, "evil_string", &json!({}), Vec::new()).await;
    assert_eq!(code(answer), codes::PLUGIN_OUTPUT_LIMIT);
}

#[tokio::test]
async fn a_log_flood_is_cut_and_cleaned() {
    let limits = Limits { host_calls: 100_000, handle_cpu_ms: 5000, ..TIGHT };
    let registry = registry("dist-hostile", limits).await;
    let (answer, services) = handle(&registry, "evil_log", &json!({}), Vec::new()).await;
    assert!(answer.is_ok(), "{answer:?}");
    let seen = services.0.lock().expect("no panic");
    assert_eq!(seen.lines.len(), 21, "the budget, and one line that says so");
    assert!(seen.lines.iter().all(|line| line.len() <= 120 && !line.chars().any(char::is_control)));
}

/// A spinning guest gives its thread away at every tick.
#[tokio::test(flavor = "current_thread")]
async fn a_spinning_guest_does_not_hold_up_others() {
    let registry = registry("dist-hostile", Limits { handle_cpu_ms: 1000, ..TIGHT }).await;
    let params = json!({});
    let (spin, longest) = tokio::join!(handle(&registry, "evil_spin", &params, Vec::new()), async {
        let mut longest = Duration::ZERO;
        for _ in 0..20 {
            let started = Instant::now();
            tokio::time::sleep(Duration::from_millis(1)).await;
            longest = longest.max(started.elapsed());
        }
        longest
    });
    assert_eq!(code(spin.0), codes::PLUGIN_CPU_LIMIT);
    assert!(longest < Duration::from_millis(500), "another task waited {longest:?}");
}

/// B1: finished operations are not asked for again, as long as the guest asks for the same.
#[tokio::test]
async fn a_replayed_handler_is_answered_from_the_journal() {
    let registry = registry("dist", Limits::default()).await;
    let params = json!({"container_name": "c", "blob_name": "n.tif"});
    let (first, services) = handle(&registry, "validate_raster", &params, Vec::new()).await;
    let first = first.expect("succeeds");
    assert_eq!(first["resolved_type"], "dem");
    let (performed, recorded) = {
        let seen = services.0.lock().expect("no panic");
        (seen.performed.clone(), seen.recorded.clone())
    };
    assert_eq!(performed, ["raster.inspect", "raster.statistics"]);
    assert_eq!(recorded.len(), 2);

    let (second, services) = handle(&registry, "validate_raster", &params, recorded[..1].to_vec()).await;
    assert_eq!(second.expect("succeeds"), first);
    assert_eq!(services.0.lock().expect("no panic").performed, ["raster.statistics"]);

    let other = json!({"container_name": "c", "blob_name": "other.tif"});
    let (third, services) = handle(&registry, "validate_raster", &other, recorded).await;
    assert!(third.is_ok());
    let seen = services.0.lock().expect("no panic");
    assert_eq!(
        seen.performed,
        ["raster.inspect", "raster.statistics"],
        "another request is another operation"
    );
}

#[tokio::test]
async fn the_cache_serves_whole_artefacts_only() {
    let cache = tempfile::tempdir().expect("a folder");
    let engine = PluginEngine::new().expect("an engine");
    let load =
        || load_directory(&engine, std::path::Path::new("../../plugins/dist"), Some(cache.path()), TIGHT);
    load().await.expect("loads");
    let artefacts: Vec<PathBuf> = std::fs::read_dir(cache.path())
        .expect("lists")
        .map(|entry| entry.expect("is there").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .collect();
    assert_eq!(artefacts.len(), 2);
    for path in &artefacts {
        let mut bytes = std::fs::read(path).expect("reads");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        std::fs::write(path, bytes).expect("writes");
    }
    let registry = load().await.expect("loads");
    assert!(registry.reports().iter().all(|report| report.error.is_none()), "compiled again");
}
