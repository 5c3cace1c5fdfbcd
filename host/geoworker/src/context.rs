//! Wiring: the parts of a platform on one data directory.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use geoworker_blobs::{AzureZones, FolderZones, Zones};
use geoworker_machine::{ErrorInfo, codes};
use geoworker_plugins::{LimitsPolicy, Loader, PluginEngine, Plugins, Registry};
use geoworker_queue::{EmbeddedQueue, PostgresQueue, Queue, QueueSettings, ServiceBusQueue};
use geoworker_servicebus::Client;
use geoworker_store::decisions::DecisionLog;
use geoworker_store::{PostgresDatabase, PostgresStore, SqliteDatabase, SqliteStore, Store};
use geoworker_worker::{Platform, PluginCalls};

use crate::config::{Blobs, Config, Database as Backend, Transport, ZONES};

/// Longest goodbye to the broker.
const GOODBYE: Duration = Duration::from_secs(5);

/// Everything that a command works on.
pub(crate) struct Context {
    pub(crate) platform: Platform,
    /// What plugins decided, beside the truth.
    pub(crate) decisions: Arc<dyn DecisionLog>,
    database: Database,
    /// Connection to the broker, where it is another one than the database.
    bus: Option<Client>,
}

enum Database {
    Sqlite(SqliteDatabase),
    Postgres(PostgresDatabase),
}

impl Context {
    /// Opens everything that a server or a submission needs.
    ///
    /// # Errors
    /// `DATA_DIR_UNUSABLE`, `DATABASE_SCHEMA`, `CONFIG_INVALID`.
    pub(crate) async fn open(config: &Config) -> Result<Self, ErrorInfo> {
        let calls = PluginCalls::default();
        let plugins = open_plugins(config, engine()?.observed_by(Arc::new(calls.clone()))).await?;
        Self::open_with(config, plugins, calls).await
    }

    /// As [`Self::open`], without plugins: for commands that only look.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_to_look(config: &Config) -> Result<Self, ErrorInfo> {
        Self::open_with(config, Plugins::default(), PluginCalls::default()).await
    }

    /// As [`Self::open_to_look`], with the plugins where they can be loaded: to tell what work waits for.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_to_explain(config: &Config) -> Result<Self, ErrorInfo> {
        let plugins = open_plugins(config, engine()?).await.unwrap_or_default();
        Self::open_with(config, plugins, PluginCalls::default()).await
    }

    async fn open_with(config: &Config, plugins: Plugins, calls: PluginCalls) -> Result<Self, ErrorInfo> {
        create_data_dir(&config.data_dir)?;
        let settings = QueueSettings { lock: config.worker.lease, ..QueueSettings::default() };
        let (database, store, decisions): (_, Arc<dyn Store>, Arc<dyn DecisionLog>) =
            match &config.backends.database {
                Backend::Sqlite => {
                    let file = config.data_dir.join("geoworker.db");
                    let db = SqliteDatabase::open(&file).await.map_err(|error| error.info())?;
                    let store = Arc::new(SqliteStore::new(db.clone()));
                    (Database::Sqlite(db), store.clone(), store)
                }
                Backend::Postgres(postgres) => {
                    let db = PostgresDatabase::open(postgres).await.map_err(|error| error.info())?;
                    let store = Arc::new(PostgresStore::new(db.clone()));
                    (Database::Postgres(db), store.clone(), store)
                }
            };
        let (queue, bus): (Arc<dyn Queue>, _) = match (&config.backends.transport, &database) {
            (Transport::ServiceBus(settings), _) => {
                let client = Client::new(settings.clone());
                (Arc::new(ServiceBusQueue::new(client.clone())), Some(client))
            }
            (Transport::Database, Database::Sqlite(db)) => {
                (Arc::new(EmbeddedQueue::new(db.clone(), settings)), None)
            }
            (Transport::Database, Database::Postgres(db)) => {
                (Arc::new(PostgresQueue::new(db.clone(), settings)), None)
            }
        };
        let platform = Platform::new(store, queue, open_zones(config)?, plugins, config.worker.clone());
        let platform = platform.counting(calls);
        let platform = if config.decisions { platform.recording(Arc::clone(&decisions)) } else { platform };
        Ok(Self { platform, decisions, database, bus })
    }

    /// Closes the connections after what runs; messages that nobody took are given back.
    pub(crate) async fn close(self) {
        self.platform.flush_decisions().await;
        if let Some(bus) = self.bus {
            // A broker that is away gets its messages back when their locks end.
            let _ = tokio::time::timeout(GOODBYE, bus.close()).await;
        }
        match self.database {
            Database::Sqlite(db) => db.close().await,
            Database::Postgres(db) => db.close().await,
        }
    }
}

/// Loads the plugin directory once.
///
/// # Errors
/// As [`loader`], or where the directory, the lock file or the keys cannot be read.
pub(crate) async fn load_plugins(config: &Config) -> Result<Arc<Registry>, ErrorInfo> {
    Ok(open_plugins(config, engine()?).await?.current())
}

/// Loads the plugin directory, so that it can be reloaded.
///
/// # Errors
/// As [`load_plugins`].
async fn open_plugins(config: &Config, engine: PluginEngine) -> Result<Plugins, ErrorInfo> {
    Plugins::load(loader(config, engine)?).await
}

/// Loads the plugin directory with the operator's limits and rules, and the data directory's cache.
///
/// # Errors
/// `CONFIG_INVALID` where the limits file cannot be read, `DATA_DIR_UNUSABLE`.
pub(crate) fn loader(config: &Config, engine: PluginEngine) -> Result<Loader, ErrorInfo> {
    create_data_dir(&config.data_dir)?;
    Ok(Loader {
        engine,
        folder: config.plugins.clone(),
        limits: limits(config)?,
        cache: config.plugin_settings.cache_in(&config.data_dir),
        trust: config.plugin_settings.trust.clone(),
    })
}

/// The operator's limits.
///
/// # Errors
/// `CONFIG_INVALID` where the limits file cannot be read.
pub(crate) fn limits(config: &Config) -> Result<LimitsPolicy, ErrorInfo> {
    config.limits_file.as_deref().map_or_else(|| Ok(LimitsPolicy::default()), LimitsPolicy::read)
}

/// A plugin engine for this machine.
///
/// # Errors
/// `PLUGIN_COMPILE` where this processor cannot be compiled for.
pub(crate) fn engine() -> Result<PluginEngine, ErrorInfo> {
    PluginEngine::new().map_err(|error| ErrorInfo::permanent(codes::PLUGIN_COMPILE, error.to_string()))
}

/// The zones: storage accounts, or folders of the data directory.
///
/// # Errors
/// `DATA_DIR_UNUSABLE` where a folder cannot be created.
pub(crate) fn open_zones(config: &Config) -> Result<Arc<dyn Zones>, ErrorInfo> {
    let data_dir = &config.data_dir;
    if let Blobs::Azure(accounts) = &config.backends.blobs {
        let zones = AzureZones::open(accounts.clone());
        return Ok(Arc::new(zones.map_err(|error| geoworker_worker::blob_error(&error))?));
    }
    let roots: BTreeMap<_, _> =
        ZONES.iter().map(|zone| ((*zone).to_owned(), data_dir.join("zones").join(zone))).collect();
    let zones = FolderZones::open(&roots).map_err(|error| unusable(data_dir, &error))?;
    Ok(Arc::new(zones))
}

/// Creates the data directory for this user alone.
///
/// # Errors
/// `DATA_DIR_UNUSABLE`.
pub(crate) fn create_data_dir(data_dir: &Path) -> Result<(), ErrorInfo> {
    let created = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    created.map_err(|error| unusable(data_dir, &error))
}

fn unusable(data_dir: &Path, error: &dyn std::error::Error) -> ErrorInfo {
    ErrorInfo::permanent(codes::DATA_DIR_UNUSABLE, format!("{} cannot be used: {error}", data_dir.display()))
}
