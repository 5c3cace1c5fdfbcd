//! One seed from beginning to end.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use geoworker_blobs::FolderZones;
use geoworker_machine::{AppMode, ErrorInfo, RetryPolicy};
use geoworker_plugins::{Limits, PluginEngine, Registry, load_directory};
use geoworker_worker::{Platform, Shutdown, Slots, WorkerSettings};

use crate::invariants;
use crate::mutation::Mutation;
use crate::people::act;
use crate::queue::SimQueue;
use crate::store::SimStore;
use crate::world::{PEOPLE, World};

/// Worker processes at a time.
const WORKERS: u64 = 3;
/// Length of a lease.
const LEASE: Duration = Duration::from_secs(60);
/// Simulated time within which everything must have ended.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// Simulated time after that in which what still sleeps wakes up and tries to do harm.
const AFTERMATH: Duration = Duration::from_secs(400);
/// How often a dead process is looked for.
const WATCH: Duration = Duration::from_secs(1);

/// What a seed showed.
#[derive(Debug)]
pub struct Outcome {
    /// Invariants that do not hold; none is good.
    pub broken: Vec<String>,
    /// What happened, where it was asked for.
    pub trace: Vec<String>,
    /// Attempts that were claimed.
    pub claims: usize,
    /// Processes that died.
    pub deaths: usize,
}

/// Loaded plugins; runs any number of seeds.
#[derive(Debug)]
pub struct Simulation {
    registry: Arc<Registry>,
}

impl Simulation {
    /// Loads the guests `hello` and `probe` from a folder.
    ///
    /// # Errors
    /// Where they cannot be loaded.
    pub fn load(plugins: &Path) -> Result<Self, ErrorInfo> {
        let fault = |error: &dyn std::fmt::Display| ErrorInfo::permanent("SIMULATION", error.to_string());
        let engine = PluginEngine::without_clock().map_err(|error| fault(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let loading = load_directory(&engine, plugins, None, Limits::default());
        let registry = Arc::new(runtime.map_err(|error| fault(&error))?.block_on(loading)?);
        registry.job_type("probe")?;
        registry.job_type("hello_world")?;
        Ok(Self { registry })
    }

    /// Plays a seed, with one rule broken where `mutation` says so.
    ///
    /// # Errors
    /// Where no folder or runtime can be had.
    pub fn play(&self, seed: u64, mutation: Option<Mutation>, keep_trace: bool) -> std::io::Result<Outcome> {
        let folder = tempfile::Builder::new().prefix("simulation").tempdir_in(memory_folder())?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let outcome = runtime.block_on(self.play_in(folder.path(), seed, mutation, keep_trace));
        // What still sleeps is dropped with the runtime.
        drop(runtime);
        Ok(outcome)
    }

    async fn play_in(
        &self,
        folder: &Path,
        seed: u64,
        mutation: Option<Mutation>,
        keep_trace: bool,
    ) -> Outcome {
        let fences = folder.join("silver/.fences");
        let world = World::new(seed, mutation, LEASE, fences, keep_trace);
        let numbers = Arc::new(AtomicU64::new(PEOPLE + 1));
        for _ in 0..WORKERS {
            tokio::spawn(supervise(
                self.platform_maker(folder, &world),
                Arc::clone(&world),
                Arc::clone(&numbers),
            ));
        }
        let people = self.platform_maker(folder, &world)(PEOPLE);
        let all_done = act(&people, &world, PATIENCE).await;
        if all_done {
            tokio::time::sleep(AFTERMATH).await;
        }
        let mut tables = world.lock();
        let broken = invariants::check(&tables, &zones_in(folder));
        let claims = tables.events.iter().filter(|(_, event)| event.kind == "task_claimed").count();
        Outcome { broken, trace: std::mem::take(&mut tables.trace), claims, deaths: tables.dead.len() }
    }

    /// Makes the platform of a process: its own connection to the shared world.
    fn platform_maker(&self, folder: &Path, world: &Arc<World>) -> impl Fn(u64) -> Platform + Send + 'static {
        let (registry, world, folder) = (Arc::clone(&self.registry), Arc::clone(world), folder.to_owned());
        move |process| {
            Platform::new(
                Arc::new(SimStore { world: Arc::clone(&world), process }),
                Arc::new(SimQueue { world: Arc::clone(&world), process }),
                Arc::new(zones_in(&folder)),
                Arc::clone(&registry).into(),
                settings(&folder, process),
            )
        }
    }
}

fn zones_in(folder: &Path) -> FolderZones {
    let zones = ["bronze", "silver"].map(|zone| (zone.to_owned(), folder.join(zone)));
    #[expect(clippy::expect_used, reason = "without its folders there is nothing to simulate")]
    FolderZones::open(&BTreeMap::from(zones)).expect("opens the zones")
}

fn settings(folder: &Path, process: u64) -> WorkerSettings {
    WorkerSettings {
        worker_id: format!("worker-{process}"),
        mode: AppMode::Standalone,
        slots: Slots { short: 1, long: 1 },
        lease: LEASE,
        renew: LEASE / 3,
        grace: Duration::from_secs(5),
        retry: RetryPolicy { base_delay_ms: 2000, ..RetryPolicy::default() },
        scratch: folder.join("scratch"),
        ..WorkerSettings::default()
    }
}

/// Keeps one worker process running: a new one follows when it dies, and when it was stopped in order.
async fn supervise(make: impl Fn(u64) -> Platform, world: Arc<World>, numbers: Arc<AtomicU64>) {
    loop {
        let process = numbers.fetch_add(1, Ordering::Relaxed);
        let shutdown = Shutdown::default();
        let worker = tokio::spawn(geoworker_worker::run(make(process), shutdown.clone()));
        let until_stop = Duration::from_secs(world.lock().dice.between(30, 2000));
        let stop_at = tokio::time::Instant::now() + until_stop;
        while !world.is_dead(process) && !worker.is_finished() {
            tokio::time::sleep(WATCH).await;
            if tokio::time::Instant::now() >= stop_at && !shutdown.stop.is_cancelled() {
                world.trace(process, || "is asked to stop".into());
                shutdown.stop.cancel();
            }
        }
        // Whatever a dead process still holds never gets an answer.
        worker.abort();
        world.trace(process, || "is gone".into());
        let pause = Duration::from_millis(world.lock().dice.between(0, 30_000));
        tokio::time::sleep(pause).await;
    }
}

/// A folder in memory where there is one: a simulation writes many small files.
fn memory_folder() -> std::path::PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}
