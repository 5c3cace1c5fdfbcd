//! Configuration: environment and flags to checked values. Everything that is wrong is named at once (R5).

mod backends;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use geoworker_api::HttpSettings;
use geoworker_identity::TokenSource;
use geoworker_machine::routing::{DEFAULT_SIZE_THRESHOLD_MB, QueueNames, Router};
use geoworker_machine::{AppMode, ErrorInfo, RetryPolicy, codes};
use geoworker_store::decisions::Retention;
use geoworker_worker::{Slots, WorkerSettings};
use serde_json::{Value, json};

pub(crate) use self::backends::{Backends, Blobs, Database, Transport, ZONES};
use crate::cli::Cli;
use crate::http_config;
use crate::logging::LogSettings;
use crate::plugin_config::{self, PluginSettings};

/// Memory of a native operation where nothing is set, in MiB.
const DEFAULT_NATIVE_MEMORY_MB: u64 = 4096;

/// Days that decisions of plugins are kept.
const DEFAULT_DECISIONS_DAYS: i64 = 30;
const DAY_MS: i64 = 24 * 3600 * 1000;

/// Effective configuration.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) plugins: PathBuf,
    pub(crate) plugin_settings: PluginSettings,
    pub(crate) limits_file: Option<PathBuf>,
    pub(crate) log: LogSettings,
    pub(crate) worker: WorkerSettings,
    pub(crate) backends: Backends,
    pub(crate) http: Option<HttpSettings>,
    /// Decisions of plugins are recorded.
    pub(crate) decisions: bool,
}

/// Where settings come from: the environment, or a table in tests.
pub(crate) trait Source {
    /// Value of a variable; an empty one counts as unset.
    fn get(&self, name: &str) -> Option<String>;
}

/// The process's environment.
pub(crate) struct Environment;

impl Source for Environment {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

impl Config {
    /// Reads flags and environment.
    ///
    /// # Errors
    /// One `CONFIG_INVALID` that names everything that is wrong.
    pub(crate) fn read(cli: &Cli, source: &dyn Source) -> Result<Self, ErrorInfo> {
        let mut reader = Reader { source, problems: Vec::new(), identity: None };
        let mode = reader.mode();
        let folder =
            |flag: &Option<PathBuf>, name: &str| flag.clone().or_else(|| source.get(name).map(PathBuf::from));
        let data_dir =
            folder(&cli.data_dir, "GEOWORKER_DATA_DIR").unwrap_or_else(|| PathBuf::from(".geoworker"));
        let plugins = folder(&cli.plugins, "GEOWORKER_PLUGINS").unwrap_or_else(default_plugins);
        let worker = reader.worker(mode, &data_dir);
        let log = LogSettings {
            level: source.get("LOG_LEVEL").unwrap_or_else(|| "info".into()).to_lowercase(),
            format: source.get("LOG_FORMAT").unwrap_or_default(),
            app_name: worker.app_name.clone(),
        };
        let backends = reader.backends(mode);
        let decisions = reader.decisions();
        let http = http_config::read(mode, source, &mut reader.problems);
        let plugin_settings = plugin_config::read(source, &mut reader.problems);
        if !reader.problems.is_empty() {
            return Err(ErrorInfo::permanent(codes::CONFIG_INVALID, reader.problems.join("; ")));
        }
        let limits_file = source.get("GEOWORKER_LIMITS").map(PathBuf::from);
        Ok(Self { data_dir, plugins, plugin_settings, limits_file, log, worker, backends, http, decisions })
    }

    /// For `config show`. There are no secrets in the embedded default; those of the environment are redacted.
    pub(crate) fn to_json(&self) -> Value {
        let worker = &self.worker;
        json!({
            "mode": worker.mode,
            "mode_properties": worker.mode.properties(),
            "app_name": worker.app_name,
            "data_dir": self.data_dir,
            "plugins": self.plugins,
            "plugin_settings": plugin_config::to_json(&self.plugin_settings),
            "limits_file": self.limits_file,
            "backends": self.backends.to_json(),
            "queues": worker.router.queues,
            "size_threshold_mb": worker.router.size_threshold_bytes / 1_000_000,
            "long_running_task_types": worker.router.long_running_types,
            "slots": {"short": worker.slots.short, "long": worker.slots.long},
            "lease_seconds": worker.lease.as_secs_f64(),
            "sweep_seconds": worker.sweep.as_secs_f64(),
            "grace_seconds": worker.grace.as_secs_f64(),
            "retry": worker.retry,
            "max_input_mb": worker.max_input_bytes / 1_000_000,
            "target_crs": worker.default_target_crs,
            "memory_mb": worker.memory_bytes >> 20,
            "native_memory_mb": worker.native_memory_bytes >> 20,
            "native_disk_mb": worker.native_disk_bytes >> 20,
            "native_threads": worker.native_threads,
            "log_level": self.log.level,
            "decisions": {
                "recorded": self.decisions,
                "days": worker.decisions.keep_ms / DAY_MS,
                "rows": worker.decisions.rows
            },
            "http": http_config::to_json(self.http.as_ref()),
            "secrets": SECRETS.iter().map(|name| (*name, redacted(name))).collect::<BTreeMap<_, _>>()
        })
    }
}

/// Variables whose values are never printed.
const SECRETS: [&str; 5] = [
    "POSTGRES_PASSWORD",
    "ServiceBusConnection",
    "BRONZE_STORAGE_CONNECTION",
    "SILVER_STORAGE_CONNECTION",
    "GEOWORKER_API_TOKEN",
];

fn redacted(name: &str) -> Option<&'static str> {
    Environment.get(name).map(|_| "(set, redacted)")
}

/// The first folder that exists: here, or beside the program.
fn default_plugins() -> PathBuf {
    let here = PathBuf::from("plugins/dist");
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(Path::parent);
    let beside = |relative: &str| folder.map(|folder| folder.join(relative));
    let candidates = [Some(here.clone()), beside("plugins"), beside("../plugins/dist")];
    candidates.into_iter().flatten().find(|path| path.is_dir()).unwrap_or(here)
}

struct Reader<'a> {
    source: &'a dyn Source,
    problems: Vec<String>,
    identity: Option<Arc<dyn TokenSource>>,
}

impl Reader<'_> {
    fn mode(&mut self) -> AppMode {
        let mode = match self.source.get("APP_MODE").map(|name| name.parse::<AppMode>()) {
            None => AppMode::Standalone,
            Some(Ok(mode)) => mode,
            Some(Err(error)) => {
                self.problems.push(error.to_string());
                AppMode::Standalone
            }
        };
        if mode == AppMode::WorkerDocker && self.source.get("FUNCTIONS_WORKER_RUNTIME").is_some() {
            self.problems.push(
                "APP_MODE=worker_docker in a cloud function (FUNCTIONS_WORKER_RUNTIME is set): functions end after \
                 minutes; run it in a container"
                    .into(),
            );
        }
        mode
    }

    fn worker(&mut self, mode: AppMode, data_dir: &Path) -> WorkerSettings {
        let defaults = WorkerSettings::default();
        let app_name = self.source.get("APP_NAME").unwrap_or(defaults.app_name);
        let threshold: u64 = self.number("RASTER_SIZE_THRESHOLD_MB", DEFAULT_SIZE_THRESHOLD_MB);
        let memory: u64 = self.number("GEOWORKER_NATIVE_MEMORY_MB", DEFAULT_NATIVE_MEMORY_MB);
        let types = self.source.get("LONG_RUNNING_TASK_TYPES").unwrap_or_default();
        let lease = self.seconds("GEOWORKER_LEASE_SECONDS", defaults.lease);
        WorkerSettings {
            worker_id: worker_id(&app_name),
            app_name,
            mode,
            router: Router {
                queues: self.queues(),
                long_running_types: types
                    .split(',')
                    .map(str::trim)
                    .filter(|t| !t.is_empty())
                    .map(str::to_owned)
                    .collect(),
                size_threshold_bytes: threshold.saturating_mul(1_000_000),
            },
            slots: Slots {
                short: self.number("GEOWORKER_SLOTS", defaults.slots.short).max(1),
                long: self.number("GEOWORKER_LONG_SLOTS", defaults.slots.long).max(1),
            },
            renew: lease / 3,
            lease,
            poll: defaults.poll,
            max_tasks: None,
            until_idle: false,
            exclusive: false,
            sweep: self.seconds("GEOWORKER_SWEEP_SECONDS", defaults.sweep),
            grace: self.seconds("GEOWORKER_GRACE_SECONDS", defaults.grace),
            retry: RetryPolicy {
                base_delay_ms: self.number("GEOWORKER_RETRY_BASE_MS", defaults.retry.base_delay_ms).max(0),
                ..defaults.retry
            },
            task_timeout: defaults.task_timeout,
            max_input_bytes: self
                .number("GEOWORKER_MAX_INPUT_MB", defaults.max_input_bytes / 1_000_000)
                .saturating_mul(1_000_000),
            default_target_crs: self.source.get("RASTER_TARGET_CRS"),
            memory_bytes: self
                .number("GEOWORKER_MEMORY_MB", defaults.memory_bytes >> 20)
                .saturating_mul(1 << 20),
            native_memory_bytes: memory.saturating_mul(1 << 20),
            native_disk_bytes: self
                .number("GEOWORKER_NATIVE_DISK_MB", defaults.native_disk_bytes)
                .saturating_mul(1 << 20),
            native_threads: self.number("GEOWORKER_NATIVE_THREADS", defaults.native_threads).max(1),
            decisions: Retention {
                keep_ms: self
                    .number("GEOWORKER_DECISIONS_DAYS", DEFAULT_DECISIONS_DAYS)
                    .saturating_mul(DAY_MS),
                rows: self.number("GEOWORKER_DECISIONS_ROWS", defaults.decisions.rows).max(0),
            },
            native_program: std::env::current_exe().unwrap_or(defaults.native_program),
            scratch: data_dir.join("scratch"),
        }
    }

    fn decisions(&mut self) -> bool {
        match self.source.get("GEOWORKER_DECISIONS").as_deref() {
            None | Some("on") => true,
            Some("off") => false,
            Some(other) => {
                self.problems.push(format!("GEOWORKER_DECISIONS is '{other}', neither on nor off"));
                true
            }
        }
    }

    fn queues(&self) -> QueueNames {
        let defaults = QueueNames::default();
        let name = |variable: &str, default: String| self.source.get(variable).unwrap_or(default);
        QueueNames {
            jobs: name("SERVICE_BUS_JOBS_QUEUE", defaults.jobs),
            raster: name("SERVICE_BUS_RASTER_TASKS_QUEUE", defaults.raster),
            vector: name("SERVICE_BUS_VECTOR_TASKS_QUEUE", defaults.vector),
            long: name("SERVICE_BUS_LONG_RUNNING_TASKS_QUEUE", defaults.long),
        }
    }

    fn number<T: std::str::FromStr + Copy>(&mut self, name: &str, default: T) -> T {
        let Some(text) = self.source.get(name) else { return default };
        text.trim().parse().unwrap_or_else(|_| {
            self.problems.push(format!("{name} is '{text}', not a whole number in range"));
            default
        })
    }

    fn seconds(&mut self, name: &str, default: Duration) -> Duration {
        let seconds: f64 = self.number(name, default.as_secs_f64());
        Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero()).unwrap_or_else(
            || {
                self.problems.push(format!("{name} is not a positive number of seconds"));
                default
            },
        )
    }
}

/// Unique among the workers of a database: number and start of the process tell those of one machine apart.
fn worker_id(app_name: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let started = chrono::Utc::now().timestamp_millis();
    format!("{app_name}-{}-{}-{started:x}", host.trim(), std::process::id())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use clap::Parser;

    use super::*;

    impl Source for HashMap<&str, &str> {
        fn get(&self, name: &str) -> Option<String> {
            HashMap::get(self, name).map(|value| (*value).to_owned())
        }
    }

    fn read(variables: &[(&'static str, &'static str)]) -> Result<Config, ErrorInfo> {
        let cli = Cli::try_parse_from(["geoworker", "serve"]).expect("parses");
        Config::read(&cli, &variables.iter().copied().collect::<HashMap<_, _>>())
    }

    /// R5: nothing set is the embedded default.
    #[test]
    fn nothing_set_is_the_embedded_default() {
        let config = read(&[]).expect("is valid");
        assert_eq!(config.worker.mode, AppMode::Standalone);
        assert_eq!(config.worker.lease, Duration::from_secs(60));
        assert_eq!(config.data_dir, Path::new(".geoworker"));
        assert!(config.decisions && config.worker.decisions == WorkerSettings::default().decisions);
        assert!(!read(&[("GEOWORKER_DECISIONS", "off")]).expect("is valid").decisions);
        assert!(read(&[("GEOWORKER_DECISIONS", "maybe")]).is_err());
    }

    /// Secrets are not printed.
    #[test]
    fn postgres_settings_make_a_shared_backend() {
        let config = read(&[
            ("POSTGRES_HOST", "db"),
            ("POSTGRES_USER", "geo"),
            ("POSTGRES_DATABASE", "geo"),
            ("POSTGRES_PASSWORD", "hunter2"),
            ("APP_MODE", "worker_docker"),
        ]);
        let config = config.expect("is valid");
        let shown = config.to_json().to_string();
        assert!(shown.contains("geo@db:5432/geo"), "{shown}");
        assert!(!shown.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
    }

    /// R1, R3, R5: one error that names everything.
    #[test]
    fn one_error_names_everything_that_is_wrong() {
        let error = read(&[
            ("APP_MODE", "worker_docker"),
            ("FUNCTIONS_WORKER_RUNTIME", "python"),
            ("GEOWORKER_SLOTS", "x"),
        ]);
        let error = error.expect_err("is refused");
        assert_eq!(error.code, codes::CONFIG_INVALID);
        for part in [
            "FUNCTIONS_WORKER_RUNTIME",
            "GEOWORKER_SLOTS",
            "POSTGRES_HOST",
            "POSTGRES_USER",
            "POSTGRES_DATABASE",
        ] {
            assert!(error.message.contains(part), "{part} is not in: {}", error.message);
        }
        let unknown = read(&[("APP_MODE", "dokcer")]).expect_err("is refused");
        assert!(unknown.message.contains("worker_docker"), "{}", unknown.message);
    }

    /// Asks for something that is not there or contradicts itself; every problem is named.
    fn problems(variables: &[(&'static str, &'static str)]) -> String {
        let error = read(variables).expect_err("is refused");
        assert_eq!(error.code, codes::CONFIG_INVALID);
        error.message
    }

    const SHARED: [(&str, &str); 4] = [
        ("POSTGRES_HOST", "db"),
        ("POSTGRES_USER", "geo"),
        ("POSTGRES_DATABASE", "geo"),
        ("POSTGRES_PASSWORD", "hunter2"),
    ];
    const BUS: &str =
        "Endpoint=sb://bus.servicebus.windows.net/;SharedAccessKeyName=geo;SharedAccessKey=aHVudGVyMw==";
    const BRONZE: &str = "AccountName=bronze;AccountKey=aHVudGVyNA==;BlobEndpoint=https://bronze.example/";
    const SILVER: &str = "AccountName=silver;AccountKey=aHVudGVyNQ==;BlobEndpoint=https://silver.example/";

    /// R5: what is incomplete or contradictory is named, all of it.
    #[test]
    fn backends_are_checked_together() {
        let incomplete = problems(&[("POSTGRES_HOST", "db")]);
        assert!(incomplete.contains("POSTGRES_USER, POSTGRES_DATABASE"), "{incomplete}");
        let alone = problems(&[("ServiceBusConnection", BUS), ("BRONZE_STORAGE_CONNECTION", BRONZE)]);
        for part in ["POSTGRES_HOST", "SILVER_STORAGE_ACCOUNT or SILVER_STORAGE_CONNECTION"] {
            assert!(alone.contains(part), "{part} is not in: {alone}");
        }
        let twice = [
            ("ServiceBusConnection", BUS),
            ("SERVICE_BUS_NAMESPACE", "bus"),
            ("BRONZE_STORAGE_CONNECTION", BRONZE),
            ("BRONZE_STORAGE_ACCOUNT", "bronze"),
            ("SILVER_STORAGE_CONNECTION", "AccountName=silver"),
        ];
        let twice = problems(&[&SHARED[..], &twice].concat());
        for part in
            ["SERVICE_BUS_NAMESPACE are both set", "BRONZE_STORAGE_CONNECTION are both set", "AccountKey"]
        {
            assert!(twice.contains(part), "{part} is not in: {twice}");
        }
        assert!(read(&[("GEOWORKER_LEASE_SECONDS", "0")]).is_err());
        let short = read(&[("GEOWORKER_LEASE_SECONDS", "0.5")]).expect("is valid");
        assert_eq!(short.worker.lease, Duration::from_millis(500));
    }

    /// A token is shown in clear: only a server that proved itself may see it.
    #[test]
    fn tokens_need_a_proven_server() {
        let weak = problems(&[&SHARED[..3], &[("POSTGRES_SSLMODE", "require")]].concat());
        assert!(weak.contains("verify-full"), "{weak}");
        let config = read(&SHARED[..3]).expect("is valid");
        let shown = config.to_json().to_string();
        assert!(shown.contains("(token, TLS verify-full)"), "{shown}");
        assert!(problems(&[&SHARED[..], &[("POSTGRES_SSLMODE", "on")]].concat()).contains("verify-ca"));
    }

    /// R6: nothing that opens a door is printed.
    #[test]
    fn no_secret_is_shown() {
        let cloud = [
            ("ServiceBusConnection", BUS),
            ("BRONZE_STORAGE_CONNECTION", BRONZE),
            ("SILVER_STORAGE_CONNECTION", SILVER),
        ];
        let config = read(&[&SHARED[..], &cloud].concat()).expect("is valid");
        let shown = format!("{} {config:?}", config.to_json());
        for place in ["bus.servicebus.windows.net", "bronze.example", "silver.example"] {
            assert!(shown.contains(place), "{place} is not in: {shown}");
        }
        for secret in ["hunter2", "aHVudGVy", "hunter3"] {
            assert!(!shown.contains(secret), "{secret} is in: {shown}");
        }
        let plain = [(
            "ServiceBusConnection",
            "Endpoint=sb://elsewhere;SharedAccessKeyName=geo;SharedAccessKey=aHVudGVyMw==;UseDevelopmentEmulator=true",
        )];
        let refused = problems(&[&SHARED[..], &plain].concat());
        assert!(refused.contains("elsewhere") && !refused.contains("aHVudGVy"), "{refused}");
    }
}
