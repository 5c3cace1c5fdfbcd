//! Connections: the pools, the schema, and how they come back after a failure.

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use sqlx::{Postgres, SqlSafeStr, Transaction};
use tokio::sync::Notify;

use super::credential::{self, with_credential};
use super::settings::{PostgresCredential, PostgresSettings};
use crate::error::StoreError;

/// Longest wait for a connection: longer than a restart of the server, shorter than a lease.
const ACQUIRE: Duration = Duration::from_secs(15);
/// Connections are renewed after this time, so that changed credentials and addresses are noticed.
const LIFETIME: Duration = Duration::from_secs(30 * 60);
/// Connections for truth; the lease keepers must never wait for the work's.
const CONNECTIONS: u32 = 8;
/// Connections for messages.
const TRANSPORT_CONNECTIONS: u32 = 4;

/// An open database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct PostgresDatabase {
    truth: PgPool,
    transport: PgPool,
    /// The server refused the credential.
    denied: Arc<Notify>,
}

impl PostgresDatabase {
    /// Connects and brings the schema up to date. Several processes may do so at once: an advisory lock of the database
    /// lets one of them migrate.
    ///
    /// # Errors
    /// When the server does not answer, refuses the credentials, or holds a newer version's schema.
    pub async fn open(settings: &PostgresSettings) -> Result<Self, StoreError> {
        let (options, due) = with_credential(settings.options(), &settings.credential).await?;
        let pool =
            |size| PgPoolOptions::new().max_connections(size).acquire_timeout(ACQUIRE).max_lifetime(LIFETIME);
        let truth = pool(CONNECTIONS).connect_with(options.clone()).await?;
        let migrations = [
            ("initial", include_str!("../../../../migrations/postgres/0001_initial.sql")),
            ("order of messages", include_str!("../../../../migrations/postgres/0002_order_of_messages.sql")),
            ("decisions", include_str!("../../../../migrations/postgres/0003_decisions.sql")),
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
        let denied = Arc::new(Notify::new());
        if let (PostgresCredential::Token(source), Some(due)) = (&settings.credential, due) {
            let pools = vec![truth.clone(), transport.clone()];
            credential::keep(Arc::clone(source), pools, due, Arc::clone(&denied));
        }
        Ok(Self { truth, transport, denied })
    }

    /// Begins a transaction of the truth.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn write(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        self.truth.begin().await.map_err(|error| self.failed(error))
    }

    /// A connection for reading the truth.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn read(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.truth.acquire().await.map_err(|error| self.failed(error))
    }

    /// A connection for messages.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn transport(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.transport.acquire().await.map_err(|error| self.failed(error))
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

    fn failed(&self, error: sqlx::Error) -> StoreError {
        let error = StoreError::from(error);
        if matches!(error, StoreError::Denied(_)) {
            self.denied.notify_one();
        }
        error
    }

    /// Closes the connections, after the statements that run.
    pub async fn close(&self) {
        self.transport.close().await;
        self.truth.close().await;
    }
}
