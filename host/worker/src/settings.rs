//! What a worker is told.

use std::path::PathBuf;
use std::time::Duration;

use geoworker_machine::routing::Router;
use geoworker_machine::{AppMode, RetryPolicy};
use geoworker_store::decisions::Retention;

/// Share of the machine's memory that native operations get where nothing is set: the rest is for this process, the
/// plugins and the page cache.
const MEMORY_PERCENT: u64 = 80;

/// Settings of a worker; [`Default`] holds the documented defaults.
#[derive(Debug, Clone)]
pub struct WorkerSettings {
    /// `APP_NAME`: who signals and claims, in messages and logs.
    pub app_name: String,
    /// Name of this process, unique among those that share the database.
    pub worker_id: String,
    /// Which queues are served.
    pub mode: AppMode,
    /// Queues and routing.
    pub router: Router,
    /// Tasks at a time.
    pub slots: Slots,
    /// Length of a lease. Default 60 s.
    pub lease: Duration,
    /// How often it is renewed. Default 20 s.
    pub renew: Duration,
    /// How long a receive waits. Default 30 s.
    pub poll: Duration,
    /// How often the sweeper looks, how long work must be quiet before it is hinted at again, and how long work
    /// whose plugin is missing waits before it is looked at again, unless a reload brings it. Default 30 s.
    pub sweep: Duration,
    /// Stop after this many tasks, for scaling by jobs. Default: never.
    pub max_tasks: Option<u64>,
    /// Stop when no task came within `poll`, for scaling by jobs. Default: no.
    pub until_idle: bool,
    /// This process alone works on the database: what is held at its start is held by the dead. Default: no.
    pub exclusive: bool,
    /// How long running tasks may go on after a stop. Default 30 s.
    pub grace: Duration,
    /// First delay of retries, and retries where a task type says nothing.
    pub retry: RetryPolicy,
    /// Longest attempt of a task type that says nothing. Default 1 h.
    pub task_timeout: Duration,
    /// Inputs above this many bytes are refused at submission. Default 500 GB.
    pub max_input_bytes: u64,
    /// CRS that rasters are reprojected to where a job says nothing (`RASTER_TARGET_CRS`). Default: the source's.
    pub default_target_crs: Option<String>,
    /// Memory that all native operations of this process may have together. Default: 80 % of the smaller of the
    /// machine's memory and its cgroup's limit.
    pub memory_bytes: u64,
    /// Memory of one native operation. Default 4 GiB.
    pub native_memory_bytes: u64,
    /// Disk that one native operation may fill with its output and temporary files; 0 is no limit but the free
    /// space. Default 0.
    pub native_disk_bytes: u64,
    /// Compression threads of one native operation.
    pub native_threads: usize,
    /// Decisions of plugins that are kept, where they are recorded. Default: those of 30 days, at most a million.
    pub decisions: Retention,
    /// Program that runs native operations: geoworker itself.
    pub native_program: PathBuf,
    /// Folder for scratch folders, one per attempt.
    pub scratch: PathBuf,
}

/// Tasks that run at a time, per kind of queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots {
    /// On each short queue. Default: one per core.
    pub short: usize,
    /// On the long-running queue. Default 1.
    pub long: usize,
}

impl Default for WorkerSettings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            app_name: "geoworker".into(),
            worker_id: format!("geoworker-{}", std::process::id()),
            mode: AppMode::Standalone,
            router: Router {
                size_threshold_bytes: geoworker_machine::routing::DEFAULT_SIZE_THRESHOLD_MB * 1_000_000,
                ..Router::default()
            },
            slots: Slots { short: cores, long: 1 },
            lease: Duration::from_secs(60),
            renew: Duration::from_secs(20),
            poll: Duration::from_secs(30),
            sweep: Duration::from_secs(30),
            max_tasks: None,
            until_idle: false,
            exclusive: false,
            grace: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            task_timeout: Duration::from_secs(3600),
            max_input_bytes: 500_000_000_000,
            default_target_crs: None,
            memory_bytes: crate::cgroup::available_memory() / 100 * MEMORY_PERCENT,
            native_memory_bytes: 4 << 30,
            native_disk_bytes: 0,
            native_threads: cores,
            decisions: Retention { keep_ms: 30 * 24 * 3600 * 1000, rows: 1_000_000 },
            native_program: PathBuf::from("geoworker"),
            scratch: PathBuf::from("scratch"),
        }
    }
}

impl WorkerSettings {
    pub(crate) fn lease_ms(&self) -> i64 {
        millis(self.lease)
    }
}

/// A duration in whole milliseconds, as rows and messages have it.
pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
