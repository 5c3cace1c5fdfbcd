//! Connections: the pools, the schema, and how they come back after a failure.

use std::fmt;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{Postgres, SqlSafeStr, Transaction};

use crate::error::StoreError;

/// Longest wait for a connection: longer than a restart of the server, shorter than a lease.
const ACQUIRE: Duration = Duration::from_secs(15);
/// Connections are renewed after this time, so that changed credentials and addresses are noticed.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// A statement that waits longer for a lock fails and is tried again.
const LOCK_TIMEOUT: &str = "10s";
/// Every statement that runs often has its index. The tables of messages fill and empty faster than their statistics are
/// taken, and a planner that was told of an empty table would read all of it.
const INDEXES: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("enable_hashjoin", "off")];
/// Connections for truth; the lease keepers must never wait for the work's.
const CONNECTIONS: u32 = 8;
/// Connections for messages.
const TRANSPORT_CONNECTIONS: u32 = 4;

/// Where the database is.
#[derive(Clone)]
pub struct PostgresSettings {
    /// Host name, or the folder of a Unix socket.
    pub host: String,
    /// Default 5432.
    pub port: u16,
    /// Role.
    pub user: String,
    /// None where the server asks for none.
    pub password: Option<String>,
    /// Database.
    pub database: String,
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, .. } = self;
        write!(f, "{user}@{host}:{port}/{database}")
    }
}

/// An open database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct PostgresDatabase {
    truth: PgPool,
    transport: PgPool,
}

impl PostgresDatabase {
    /// Connects and brings the schema up to date. Several processes may do so at once: an advisory lock of the database
    /// lets one of them migrate.
    ///
    /// # Errors
    /// When the server does not answer, refuses the credentials, or holds a newer version's schema.
    pub async fn open(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&settings.host)
            .port(settings.port)
            .username(&settings.user)
            .database(&settings.database)
            .ssl_mode(PgSslMode::Disable)
            .application_name("geoworker")
            .options([("lock_timeout", LOCK_TIMEOUT)])
            .options(INDEXES);
        if settings.host.starts_with('/') {
            options = options.socket(&settings.host);
        }
        if let Some(password) = &settings.password {
            options = options.password(password);
        }
        let pool =
            |size| PgPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE).max_lifetime(LIFETIME);
        let truth = pool(CONNECTIONS).connect_with(options.clone()).await?;
        let migrations = [
            ("initial", include_str!("../../../../migrations/postgres/0001_initial.sql")),
            ("order of messages", include_str!("../../../../migrations/postgres/0002_order_of_messages.sql")),
        ];
        let migrations = (1..).zip(migrations).map(|(version, (name, text))| {
            Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
        });
        let migrations = migrations.collect();
        Migrator::with_migrations(migrations).run(&truth).await.map_err(StoreError::Schema)?;
        // A message is a hint: its commit need not wait for the disk. What a crash of the server takes, the sweeper sends
        // again; and whatever commits later, in the truth, takes the messages before it along to the disk.
        let lazy = options.options([("synchronous_commit", "off")]);
        let transport = pool(TRANSPORT_CONNECTIONS).connect_lazy_with(lazy);
        Ok(Self { truth, transport })
    }

    /// Begins a transaction of the truth.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn write(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        Ok(self.truth.begin().await?)
    }

    /// A connection for reading the truth.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn read(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        Ok(self.truth.acquire().await?)
    }

    /// A connection for messages.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn transport(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        Ok(self.transport.acquire().await?)
    }

    /// Listens on a channel; the listener reconnects by itself.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn listen(&self, channel: &str) -> Result<PgListener, StoreError> {
        let mut listener = PgListener::connect_with(&self.transport).await?;
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// Closes the connections, after the statements that run.
    pub async fn close(&self) {
        self.transport.close().await;
        self.truth.close().await;
    }
}
