//! Decisions of a real plugin, recorded by a worker and asked once more of candidates.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use geoworker_blobs::FolderZones;
use geoworker_machine::JobState;
use geoworker_plugins::{Limits, PluginEngine, Registry, load_file};
use geoworker_queue::{EmbeddedQueue, QueueSettings};
use geoworker_store::decisions::{DecisionKind, DecisionLog, DecisionsPage};
use geoworker_store::{SqliteDatabase, SqliteStore, Store};
use geoworker_worker::replay::{Counts, Replay, ReplayQuery, ReplayReport};
use geoworker_worker::{Platform, Shutdown, Submission, WorkerSettings, run};
use serde_json::json;

const GREETINGS: u64 = 14;

fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins")
}

async fn loaded(file: &str) -> Registry {
    let mut registry = Registry::with_limits(Limits::default());
    let engine = PluginEngine::new().expect("an engine");
    load_file(&engine, &plugins().join(file), None, &mut registry).await;
    assert!(
        registry.reports()[0].error.is_none(),
        "`make plugins` builds {file}: {:?}",
        registry.reports()[0]
    );
    registry
}

/// Runs a job of 14 greetings to its end and stops the worker in order.
async fn recorded(folder: &Path) -> Arc<SqliteStore> {
    let db = SqliteDatabase::open(&folder.join("t.db")).await.expect("opens");
    let store = Arc::new(SqliteStore::new(db.clone()));
    let zones = ["bronze", "silver"].map(|zone| (zone.to_owned(), folder.join(zone)));
    let zones = FolderZones::open(&BTreeMap::from(zones)).expect("opens");
    let queue = EmbeddedQueue::new(db, QueueSettings::default());
    let settings = WorkerSettings { scratch: folder.join("scratch"), ..WorkerSettings::default() };
    let registry = Arc::new(loaded("dist/hello.wasm").await);
    let platform = Platform::new(store.clone(), Arc::new(queue), Arc::new(zones), registry.into(), settings)
        .recording(store.clone());
    let shutdown = Shutdown::default();
    let server = tokio::spawn(run(platform.clone(), shutdown.clone()));
    let parameters = json!({"n": GREETINGS}).as_object().cloned().unwrap_or_default();
    let submission =
        Submission { job_type: "hello_world".into(), parameters, force: false, correlation_id: None };
    let job = platform.submit(submission).await.expect("accepts").job_id;
    let ended = async {
        loop {
            let job = store.job(&job).await.expect("answers").expect("is there");
            if job.state.is_final() {
                return job.state;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let state = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the job ends");
    assert_eq!(state, JobState::Completed);
    shutdown.stop.cancel();
    server.await.expect("ends").expect("ends in order");
    store
}

async fn replayed(store: &Arc<SqliteStore>, file: &str) -> ReplayReport {
    let candidate = loaded(file).await;
    let replay = Replay { store: store.clone(), log: store.clone(), candidate };
    replay.run(&ReplayQuery::default(), |_| {}).await.expect("replays")
}

/// B4: the same file decides everything the same; another rule shows as what it is, and nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_finds_what_changed_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = recorded(folder.path()).await;
    let tasks = 2 * GREETINGS;
    let page = DecisionsPage { kind: Some(DecisionKind::Handle), limit: 1, ..DecisionsPage::default() };
    let newest = store.decisions(page).await.expect("lists").remove(0);
    assert_eq!((newest.attempt, newest.contract.as_str()), (Some(1), "geoworker:plugin@1.0.0"));

    let same = replayed(&store, "dist/hello.wasm").await;
    let all = |same| Counts { same, ..Counts::default() };
    let kinds = [
        (DecisionKind::Validate, all(tasks + 1)),
        (DecisionKind::Route, all(tasks)),
        (DecisionKind::PlanStage, all(2)),
        (DecisionKind::Handle, all(tasks)),
        (DecisionKind::Finalize, all(1)),
    ];
    assert_eq!(same.kinds, BTreeMap::from(kinds), "{:?} {:?}", same.changes, same.reasons);

    let changed = replayed(&store, "dist-planted/hello.wasm").await;
    assert_eq!(changed.replayed(), same.replayed());
    let greetings: Vec<_> =
        changed.changes.iter().map(|change| change.new["ok"]["greeting"].clone()).collect();
    assert_eq!(greetings.len(), 2, "{:?}", changed.changes);
    assert!(
        greetings.contains(&json!("good day, number 7")) && greetings.contains(&json!("good day, number 14"))
    );

    let other = replayed(&store, "dist/raster.wasm").await;
    assert_eq!((other.replayed(), other.not_offered), (0, same.replayed()));
}
