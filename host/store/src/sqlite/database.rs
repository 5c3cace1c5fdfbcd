//! The file: opening, migrating and the one writer.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{SqlSafeStr, Sqlite, Transaction};

use crate::error::StoreError;

/// How long a statement waits for another process's write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(15);
/// Connections for reading; writing has one of its own, so that writers of a process queue up without spinning.
const READERS: u32 = 4;

/// Takes the write lock at once: a lock that is taken later may fail.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// An open SQLite file.
#[derive(Debug, Clone)]
pub struct SqliteDatabase {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl SqliteDatabase {
    /// Opens or creates the file and brings its schema up to date.
    ///
    /// Write-ahead log with `synchronous = NORMAL`: a killed process loses nothing; a power failure may lose the
    /// last commits and leaves the file consistent.
    ///
    /// # Errors
    /// When the file cannot be opened or was written by a newer version.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
        migrate(&writer).await?;
        let readers = SqlitePoolOptions::new().max_connections(READERS).connect_with(options).await?;
        Ok(Self { writer, readers })
    }

    /// Begins a transaction that may write.
    ///
    /// # Errors
    /// When another process keeps the file locked.
    pub async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        match self.writer.begin_with(BEGIN).await {
            // Without space SQLite ends a transaction by itself, and the connection goes on counting it.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.writer.acquire().await?.close().await?;
                Ok(self.writer.begin_with(BEGIN).await?)
            }
            begun => Ok(begun?),
        }
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// When none can be opened.
    pub async fn read(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// A connection for messages: the writer's, since taking and settling them writes.
    ///
    /// # Errors
    /// When another process keeps the file locked.
    pub async fn transport(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.writer.acquire().await?)
    }

    /// Closes the file, after the statements that run.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let migration = |version, name: &'static str, text: &'static str| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    let migrations = vec![
        migration(1, "initial", include_str!("../../../../migrations/sqlite/0001_initial.sql")),
        migration(2, "many workers", include_str!("../../../../migrations/sqlite/0002_many_workers.sql")),
        migration(3, "decisions", include_str!("../../../../migrations/sqlite/0003_decisions.sql")),
    ];
    // Two processes may open a new file at once: the second finds the migration done when it tries again.
    let migrator = Migrator::with_migrations(migrations);
    if migrator.run(pool).await.is_ok() {
        return Ok(());
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    migrator.run(pool).await.map_err(StoreError::Schema)
}
