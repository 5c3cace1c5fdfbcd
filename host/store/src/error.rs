//! What can go wrong in the store, with the retry class kept.

use geoworker_machine::{ErrorInfo, RetryClass, codes};

/// A statement that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, was locked for too long, or lost the connection.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The disk under the database is full.
    #[error("the disk under the database is full")]
    DiskFull(#[source] sqlx::Error),
    /// The schema is not the one this version writes.
    #[error("the database has another version's schema: {0}")]
    Schema(#[source] sqlx::migrate::MigrateError),
    /// A row holds what this version cannot read.
    #[error("a row cannot be read: {0}")]
    Corrupt(String),
    /// The statement broke a constraint: a defect, not worth a retry.
    #[error("the database refused a statement: {0}")]
    Refused(#[source] sqlx::Error),
}

impl StoreError {
    /// What may be done about it.
    #[must_use]
    pub fn class(&self) -> RetryClass {
        match self {
            Self::Unavailable(_) | Self::DiskFull(_) => RetryClass::Transient,
            Self::Schema(_) | Self::Corrupt(_) | Self::Refused(_) => RetryClass::Permanent,
        }
    }

    /// The public form.
    #[must_use]
    pub fn info(&self) -> ErrorInfo {
        let code = match self {
            Self::DiskFull(_) => codes::DISK_FULL,
            Self::Schema(_) => codes::DATABASE_SCHEMA,
            _ => codes::DATABASE_UNAVAILABLE,
        };
        ErrorInfo::new(code, self.class(), self.to_string())
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        const SQLITE_FULL: &str = "13";
        let code = error.as_database_error().and_then(|e| e.code().map(std::borrow::Cow::into_owned));
        let constraint = error.as_database_error().is_some_and(|e| {
            e.is_unique_violation() || e.is_foreign_key_violation() || e.is_check_violation()
        });
        match code.as_deref() {
            Some(SQLITE_FULL) => Self::DiskFull(error),
            _ if constraint => Self::Refused(error),
            _ => Self::Unavailable(error),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(error.to_string())
    }
}
