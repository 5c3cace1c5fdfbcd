//! A worker whose plugin is taken away, broken and put back while it serves.
//!
//! The guests come from `tools/build-plugins`, which `make test` runs first.

#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use geoworker_blobs::FolderZones;
use geoworker_machine::{JobId, JobState, codes};
use geoworker_plugins::{Limits, Loader, PluginEngine, Plugins};
use geoworker_queue::{EmbeddedQueue, QueueSettings};
use geoworker_store::{SqliteDatabase, SqliteStore};
use geoworker_worker::{Platform, Shutdown, Submission, WorkerSettings};
use serde_json::{Map, Value};
use tempfile::TempDir;

/// So long that nothing here is waited for until it comes by itself.
const SWEEP: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);

struct World {
    folder: TempDir,
    /// Of the server, whose plugins change.
    server: Platform,
    /// Of whoever submits, whose plugins do not.
    submitter: Platform,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("plugins")).expect("creates");
        let (server, submitter) = Self::platforms(&folder).await;
        Self { folder, server, submitter }
    }

    async fn platforms(folder: &TempDir) -> (Platform, Platform) {
        std::fs::write(folder.path().join("plugins/hello.wasm"), hello()).expect("writes");
        let db = SqliteDatabase::open(&folder.path().join("test.db")).await.expect("opens");
        let zones = ["bronze", "silver"].map(|zone| (zone.to_owned(), folder.path().join(zone)));
        let zones = Arc::new(FolderZones::open(&BTreeMap::from(zones)).expect("opens"));
        let engine = PluginEngine::new().expect("an engine");
        let loader = Loader::new(engine, &folder.path().join("plugins"), Limits::default());
        let plugins = Plugins::load(loader).await.expect("loads");
        let settings = WorkerSettings {
            sweep: SWEEP,
            scratch: folder.path().join("scratch"),
            grace: Duration::from_secs(5),
            ..WorkerSettings::default()
        };
        let platform = |plugins| {
            let queue = Arc::new(EmbeddedQueue::new(db.clone(), QueueSettings::default()));
            let store = Arc::new(SqliteStore::new(db.clone()));
            Platform::new(store, queue, zones.clone(), plugins, settings.clone())
        };
        (platform(plugins.clone()), platform(plugins.current().into()))
    }

    fn put(&self, content: &[u8]) {
        let new = self.folder.path().join("plugins/.new");
        std::fs::write(&new, content).expect("writes");
        std::fs::rename(new, self.folder.path().join("plugins/hello.wasm")).expect("renames");
    }

    fn remove(&self) {
        std::fs::remove_file(self.folder.path().join("plugins/hello.wasm")).expect("removes");
    }

    async fn submit(&self) -> JobId {
        let parameters = Map::from_iter([("n".to_owned(), Value::from(3))]);
        let submission =
            Submission { job_type: "hello_world".into(), parameters, force: true, correlation_id: None };
        let job = self.submitter.submit(submission).await.expect("is accepted").job_id;
        self.submitter.relay_once().await.expect("sends");
        job
    }

    /// Until one message of the jobs queue is put off, and none is to be looked at.
    async fn put_off(&self) {
        let queue = &self.server.settings.router.queues.jobs;
        until(async || {
            let depth = self.server.queue.depth(queue).await.expect("tells");
            (depth.active, depth.locked, depth.scheduled) == (0, 0, 1)
        })
        .await;
    }

    async fn state(&self, job: &JobId) -> JobState {
        self.server.store.job(job).await.expect("reads").expect("is there").state
    }

    async fn waiting(&self, job: &JobId) -> String {
        let store = &self.server.store;
        let (job, stages) =
            (store.job(job).await.expect("reads").expect("is there"), store.stages(job).await);
        let waiting = self.server.job_waits_for(&job, &stages.expect("reads")).await;
        waiting.expect("tells").expect("it waits")
    }
}

fn hello() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist/hello.wasm");
    std::fs::read(path).expect("run tools/build-plugins")
}

/// Looks at the database until something is so: what another process does has no signal here.
async fn until(condition: impl AsyncFn() -> bool) {
    let looking = async {
        while !condition().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.expect("happens in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_its_plugin_waits_and_goes_on_with_the_reload() {
    let world = World::new().await;
    let plugins = &world.server.plugins;
    let shutdown = Shutdown::default();
    let server = tokio::spawn(geoworker_worker::run(world.server.clone(), shutdown.clone()));

    world.remove();
    plugins.reload().await.expect("reloads").expect("changed");
    let job = world.submit().await;
    world.put_off().await;
    let waiting = world.waiting(&job).await;
    assert!(waiting.contains("a plugin") && waiting.contains("hello_world"), "{waiting}");

    // A version that is broken brings nothing; the message that it calls is dropped again.
    world.put(b"broken");
    plugins.reload().await.expect("reloads").expect("changed");
    let refused = plugins.current();
    let error = refused.reports()[0].error.as_ref().expect("is refused");
    assert_eq!(error.code, codes::PLUGIN_NOT_WASM);
    world.put_off().await;
    let waiting = world.waiting(&job).await;
    assert!(waiting.contains("failed to load: hello.wasm"), "{waiting}");
    assert_eq!(world.state(&job).await, JobState::Queued);

    world.put(&hello());
    plugins.reload().await.expect("reloads").expect("changed");
    until(async || world.state(&job).await == JobState::Completed).await;

    shutdown.stop.cancel();
    server.await.expect("no panic").expect("ends in order");
}
