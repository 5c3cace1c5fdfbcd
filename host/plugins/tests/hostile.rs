//! Hostile guests: each behaviour in each export ends in its code, and the host stays as it was (B4).
//!
//! `make hostile` prints the table; `docs/plugins/security.md` shows the same.

#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

#[path = "hostile/files.rs"]
mod files;
#[path = "hostile/table.rs"]
mod table;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use geoworker_machine::codes;
use geoworker_plugins::{
    JobContext, Limits, NoServices, PluginEngine, PluginError, Registry, TaskContext, load_directory,
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use table::{EXPORTS, ROWS};

/// Tests that measure memory or time run alone.
static ALONE: Mutex<()> = Mutex::const_new(());

fn tight() -> Limits {
    Limits {
        cpu_ms: 150,
        handle_cpu_ms: 150,
        memory_mib: 32,
        transfer_kib: 1024,
        string_kib: 512,
        json_kib: 256,
        host_calls: 500,
        log_lines: 20,
        stage_tasks: 100,
        ..Limits::default()
    }
}

fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../plugins").join(name);
    assert!(path.is_dir(), "{} is missing: run tools/build-plugins", path.display());
    path
}

async fn hostile(limits: Limits) -> Registry {
    let engine = PluginEngine::new().expect("an engine");
    let registry = load_directory(&engine, &folder("dist-hostile"), None, limits).await.expect("loads");
    assert!(registry.reports().iter().all(|report| report.error.is_none()), "{:?}", registry.reports());
    registry
}

/// `ok`, or the code of the failure.
fn outcome<T>(answer: Result<T, PluginError>) -> String {
    match answer {
        Ok(_) => "ok".into(),
        Err(PluginError::Failed(info)) => info.code,
        Err(PluginError::Stopped(reason)) => reason,
    }
}

async fn handle(registry: &Registry, task_type: &str) -> Result<Value, PluginError> {
    let (plugin, info) = registry.task_type(task_type).expect("is offered");
    let context = TaskContext {
        task_id: "t".into(),
        job_id: "j".into(),
        job_type: "test".into(),
        task_type: task_type.into(),
        stage: 1,
        unit: "u".into(),
        attempt: 1,
        submitted_at: "2026-01-01T00:00:00Z".into(),
        params: "{}".into(),
    };
    plugin.handle(&info, &context, Box::new(NoServices), Vec::new()).await
}

async fn call(registry: &Registry, behaviour: &str, export: &str) -> String {
    let params = json!({"how": behaviour, "where": export});
    let (jobs, _) = registry.job_type("evil_job").expect("is offered");
    let context = JobContext {
        job_id: "j".into(),
        job_type: "evil_job".into(),
        params: params.to_string(),
        submitted_at: "2026-01-01T00:00:00Z".into(),
    };
    let tasks = || registry.task_type(behaviour).expect("is offered").0;
    match export {
        "validate" => outcome(tasks().validate_task(behaviour, &params).await),
        "inputs" => outcome(tasks().task_inputs(behaviour, &params).await),
        "route" => outcome(tasks().route(behaviour, &params, &[]).await),
        "handle" => outcome(handle(registry, behaviour).await),
        "plan-stage" => outcome(jobs.plan_stage(&context, 1, Box::new(NoServices)).await),
        _ => outcome(jobs.finalize(&context, Box::new(NoServices)).await),
    }
}

#[tokio::test]
async fn every_behaviour_ends_in_its_code_in_every_export() {
    let _alone = ALONE.lock().await;
    let registry = hostile(tight()).await;
    println!("{}", table::markdown());
    let mut wrong = Vec::new();
    for (behaviour, expected) in ROWS {
        for (export, expected) in EXPORTS.iter().zip(expected).filter(|(_, code)| !code.is_empty()) {
            let found = call(&registry, behaviour, export).await;
            if found != *expected {
                wrong.push(format!("{behaviour} in {export}: {found}, expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_document_shows_the_table() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/plugins/security.md");
    let text = std::fs::read_to_string(path).expect("reads");
    assert!(text.contains(&table::markdown()), "docs/plugins/security.md needs:\n{}", table::markdown());
}

#[tokio::test]
async fn what_a_guest_says_is_cut_and_cleaned() {
    let _alone = ALONE.lock().await;
    let registry = hostile(tight()).await;
    let Err(PluginError::Failed(info)) = handle(&registry, "evil_control").await else {
        unreachable!("it fails")
    };
    assert!(info.message.len() <= 2000 && !info.to_string().chars().any(char::is_control), "{info}");
    let (plugin, _) = registry.task_type("evil_control").expect("is offered");
    let findings = plugin.validate_task("evil_control", &json!({"where": "validate"})).await;
    let finding = findings.expect("answers").expect_err("findings").remove(0);
    let said = [finding.code, finding.path, finding.message].concat();
    assert!(said.len() <= 4000 && !said.chars().any(char::is_control), "{said}");
}

/// Neither statics nor memory that nobody wrote tell one call from another.
#[tokio::test]
async fn nothing_survives_a_call() {
    let _alone = ALONE.lock().await;
    let registry = hostile(tight()).await;
    for behaviour in ["evil_state", "evil_memory_content"] {
        let first = handle(&registry, behaviour).await.expect("answers");
        handle(&registry, "evil_memory").await.expect_err("is stopped");
        assert_eq!(handle(&registry, behaviour).await.expect("answers"), first, "{behaviour}");
    }
}

/// A loop over calls that cost the host time ends by CPU time, and not long after it.
#[tokio::test]
async fn a_loop_over_host_calls_is_bounded_in_time() {
    let _alone = ALONE.lock().await;
    let registry = hostile(Limits { host_calls: u64::MAX, ..tight() }).await;
    let started = Instant::now();
    assert_eq!(outcome(handle(&registry, "evil_calls").await), codes::PLUGIN_CPU_LIMIT);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn ten_thousand_hostile_calls_leave_nothing_behind() {
    let _alone = ALONE.lock().await;
    let registry = hostile(tight()).await;
    let mixed = ["evil_recursion", "evil_panic", "evil_deep", "evil_result", "evil_memory", "evil_string"];
    for behaviour in mixed.iter().cycle().take(300) {
        call(&registry, behaviour, "handle").await;
    }
    let before = resident_mib();
    for behaviour in mixed.iter().cycle().take(10_000) {
        assert_ne!(call(&registry, behaviour, "handle").await, "ok");
    }
    let after = resident_mib();
    assert!(after <= before + 32, "{before} MiB before, {after} MiB after");
}

fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("reads");
    let pages: u64 = statm.split(' ').nth(1).expect("is there").parse().expect("is a number");
    (pages * 4096) >> 20
}
