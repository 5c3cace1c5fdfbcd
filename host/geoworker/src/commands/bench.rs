//! `bench`: plugins and throughput on this machine, on a temporary data directory.

use std::time::{Duration, Instant};

use geoworker_machine::{ErrorInfo, JobState, codes};
use geoworker_plugins::{Limits, load_directory};
use geoworker_worker::{Shutdown, Submission};
use serde_json::{Value, json};

use super::wait::wait;
use crate::config::{Backends, Config};
use crate::context::{Context, engine};
use crate::exit::{OK, Outcome};
use crate::output;

/// Calls that are timed.
const CALLS: usize = 500;

pub(crate) async fn run(config: &Config, tasks: u32, json: bool) -> Outcome {
    let folder = tempfile::tempdir().map_err(|error| fault(&error))?;
    let mut config = config.clone();
    config.data_dir = folder.path().to_owned();
    config.worker.scratch = folder.path().join("scratch");
    let plugins = plugins(&config).await?;
    let throughput = throughput(&config, tasks).await?;
    let report = json!({"plugins": plugins, "throughput": throughput});
    if json {
        output::json(&report);
    } else {
        print(&report);
    }
    Ok(OK)
}

fn fault(error: &dyn std::error::Error) -> ErrorInfo {
    ErrorInfo::permanent(codes::WORKER_FAULT, error.to_string())
}

async fn plugins(config: &Config) -> Result<Value, ErrorInfo> {
    let cache = config.data_dir.join("cache");
    let cold = load_directory(&engine()?, &config.plugins, Some(&cache), Limits::default()).await?;
    let cached = load_directory(&engine()?, &config.plugins, Some(&cache), Limits::default()).await?;
    let times = cold.reports().iter().zip(cached.reports()).map(|(first, second)| {
        json!({"file": first.file, "kib": first.size_bytes / 1024, "compile_ms": first.load_ms, "cached_ms": second.load_ms})
    });
    let loads: Vec<Value> = times.collect();
    let (plugin, info) = cached.job_type("process_raster")?;
    let parameters = document();
    let mut fresh = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let started = Instant::now();
        let validated = plugin.validate_job(&info.name, &parameters).await;
        fresh.push(started.elapsed());
        validated
            .map_err(|error| fault(&error))?
            .map_err(|_| ErrorInfo::permanent(codes::PARAM_INVALID, "bench"))?;
    }
    fresh.sort_unstable();
    let warm =
        plugin.time_warm_validate(&info.name, &parameters, CALLS).await.map_err(|error| fault(&error))?;
    Ok(json!({
        "load": loads,
        "document_bytes": parameters.to_string().len(),
        "instantiate_and_validate_us": {"p50": micros(fresh[CALLS / 2]), "p99": micros(fresh[CALLS * 99 / 100])},
        "warm_validate_us": micros(warm)
    }))
}

/// Parameters of about 4 KB, as the longest real ones are.
fn document() -> Value {
    json!({
        "container_name": "uploads",
        "blob_name": format!("{}/scene.tif", "a".repeat(900)),
        "output_folder": "b".repeat(500),
        "item_id": "c".repeat(250),
        "collection_id": "d".repeat(120),
        "raster_type": "auto",
        "output_tier": "analysis"
    })
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

async fn throughput(config: &Config, tasks: u32) -> Result<Value, ErrorInfo> {
    let mut config = config.clone();
    config.backends = Backends::embedded();
    config.worker.exclusive = true;
    let context = Context::open(&config).await?;
    let shutdown = Shutdown::default();
    let server = tokio::spawn(geoworker_worker::run(context.platform.clone(), shutdown.clone()));
    let mut parameters = serde_json::Map::new();
    parameters.insert("n".into(), json!(tasks));
    let submission =
        Submission { job_type: "hello_world".into(), parameters, force: true, correlation_id: None };
    let started = Instant::now();
    let submitted = context.platform.submit(submission).await?;
    let job = wait(&context.platform, &submitted.job_id).await?;
    let elapsed = started.elapsed();
    shutdown.stop.cancel();
    // Its end says nothing about the time that was measured.
    let _ = server.await;
    context.close().await;
    if job.state != JobState::Completed {
        return Err(ErrorInfo::permanent(codes::STAGE_FAILED, format!("the job ended {}", job.state)));
    }
    let total = f64::from(tasks * 2);
    Ok(json!({
        "tasks": tasks * 2,
        "seconds": elapsed.as_secs_f64(),
        "tasks_per_second": total / elapsed.as_secs_f64(),
        "ms_per_task": elapsed.as_secs_f64() * 1000.0 / total
    }))
}

fn print(report: &Value) {
    for load in report["plugins"]["load"].as_array().into_iter().flatten() {
        output::line(&format!(
            "load {}: {} KiB, compiled in {:.0} ms, from cache in {:.2} ms",
            load["file"].as_str().unwrap_or_default(),
            load["kib"],
            load["compile_ms"].as_f64().unwrap_or_default(),
            load["cached_ms"].as_f64().unwrap_or_default()
        ));
    }
    let number = |pointer: &str| report.pointer(pointer).and_then(Value::as_f64).unwrap_or_default();
    output::line(&format!(
        "instantiate + validate ({} bytes): p50 {:.0} µs, p99 {:.0} µs; warm call {:.1} µs",
        report["plugins"]["document_bytes"],
        number("/plugins/instantiate_and_validate_us/p50"),
        number("/plugins/instantiate_and_validate_us/p99"),
        number("/plugins/warm_validate_us")
    ));
    output::line(&format!(
        "hello_world: {} tasks in {:.2} s: {:.0} tasks/s, {:.2} ms per task",
        number("/throughput/tasks"),
        number("/throughput/seconds"),
        number("/throughput/tasks_per_second"),
        number("/throughput/ms_per_task")
    ));
}
