//! Figures for Prometheus.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use geoworker_worker::Platform;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

/// How old the figures of the queues may be.
const DEPTH_AGE: Duration = Duration::from_secs(10);
/// How long a queue may take to tell them; where it does not, the last ones stay.
const DEPTH_TIME: Duration = Duration::from_secs(2);

/// By method, route and status.
type Requests = Family<[(&'static str, String); 3], Counter>;
/// By queue and state.
type Depths = Family<[(&'static str, String); 2], Gauge>;

/// Plugin files by state.
type Files = Family<[(&'static str, &'static str); 1], Gauge>;

/// What `/metrics` shows.
pub(crate) struct HttpMetrics {
    registry: Mutex<Registry>,
    requests: Requests,
    running: Gauge,
    depth: Depths,
    memory: Gauge,
    generation: Gauge,
    files: Files,
    depth_asked: Mutex<Option<Instant>>,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("geoworker_build", "Version of the program", build);
        let requests = Requests::default();
        registry.register(
            "geoworker_http_requests",
            "Requests by method, route and status",
            requests.clone(),
        );
        let running = Gauge::default();
        registry.register("geoworker_attempts_running", "Tasks that run in this process", running.clone());
        let depth = Depths::default();
        let help = "Messages by queue and state, as last told by the queue";
        registry.register("geoworker_queue_messages", help, depth.clone());
        let memory = Gauge::default();
        let help = "Resident memory of this process, without native operations";
        registry.register("process_resident_memory_bytes", help, memory.clone());
        let generation = Gauge::default();
        let help = "Generation of the plugins: how many loads differed from the one before";
        registry.register("geoworker_plugin_generation", help, generation.clone());
        let files = Files::default();
        let help = "Plugin files: ready, stale (failed, and the version before serves) or failed";
        registry.register("geoworker_plugin_files", help, files.clone());
        let (registry, depth_asked) = (Mutex::new(registry), Mutex::new(None));
        Self { registry, requests, running, depth, memory, generation, files, depth_asked }
    }
}

impl HttpMetrics {
    /// Adds what the platform counts.
    pub(crate) fn add(&self, platform: &Platform) {
        platform.metrics.register(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, method: &str, route: &str, status: StatusCode) {
        let labels = [
            ("method", method.to_owned()),
            ("route", route.to_owned()),
            ("status", status.as_u16().to_string()),
        ];
        self.requests.get_or_create(&labels).inc();
    }

    /// The text of `/metrics`.
    pub(crate) async fn text(&self, platform: Option<&Platform>) -> String {
        if let Some(platform) = platform {
            self.running.set(i64::from(platform.busy()));
            self.look_at_plugins(platform);
            self.ask_depth(platform).await;
        }
        if let Some(bytes) = resident_bytes() {
            self.memory.set(bytes);
        }
        let mut text = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a string does not fail.
        let _ = prometheus_text::encode(&mut text, &registry);
        text
    }

    fn look_at_plugins(&self, platform: &Platform) {
        let registry = platform.registry();
        self.generation.set(i64::try_from(registry.generation()).unwrap_or(i64::MAX));
        let (mut ready, mut stale, mut failed) = (0, 0, 0);
        for report in registry.reports() {
            match (&report.error, &report.serving) {
                (None, _) => ready += 1,
                (Some(_), Some(_)) => stale += 1,
                (Some(_), None) => failed += 1,
            }
        }
        for (state, files) in [("ready", ready), ("stale", stale), ("failed", failed)] {
            self.files.get_or_create(&[("state", state)]).set(files);
        }
    }

    async fn ask_depth(&self, platform: &Platform) {
        {
            let mut asked = self.depth_asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.is_some_and(|at| at.elapsed() < DEPTH_AGE) {
                return;
            }
            *asked = Some(Instant::now());
        }
        let (serves, queues) = (platform.settings.mode.properties(), &platform.settings.router.queues);
        // Others may be closed to this process.
        let served = [
            (serves.jobs_queue, &queues.jobs),
            (serves.raster_queue, &queues.raster),
            (serves.vector_queue, &queues.vector),
            (serves.long_queue, &queues.long),
        ];
        for (_, queue) in served.into_iter().filter(|(served, _)| *served) {
            // A queue that this process may not look at is left out.
            let Ok(Ok(depth)) = tokio::time::timeout(DEPTH_TIME, platform.queue.depth(queue)).await else {
                continue;
            };
            for (state, messages) in [
                ("active", depth.active),
                ("locked", depth.locked),
                ("scheduled", depth.scheduled),
                ("dead", depth.dead),
            ] {
                let labels = [("queue", queue.clone()), ("state", state.to_owned())];
                self.depth.get_or_create(&labels).set(i64::try_from(messages).unwrap_or(i64::MAX));
            }
        }
    }
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
