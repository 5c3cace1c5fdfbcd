//! What can go wrong in the store, with the retry class kept.

use std::sync::Arc;

use geoworker_machine::{ErrorInfo, RetryClass, codes};

/// A statement that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, was locked for too long, or lost the connection.
    #[error("the database is not available: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// Another transaction got in the way; tried again, it will succeed.
    #[error("the database is busy: {0}")]
    Conflict(#[source] sqlx::Error),
    /// The disk under the database is full.
    #[error("the disk under the database is full")]
    DiskFull(#[source] sqlx::Error),
    /// The server refuses the credentials.
    #[error("the database refuses the credentials: {0}")]
    Denied(#[source] sqlx::Error),
    /// There is no token to show the server.
    #[error("no credential for the database: {0}")]
    Identity(#[from] geoworker_identity::IdentityError),
    /// The schema is not the one this version writes.
    #[error("the database has another version's schema: {0}")]
    Schema(#[source] sqlx::migrate::MigrateError),
    /// A row holds what this version cannot read.
    #[error("a row cannot be read: {0}")]
    Corrupt(String),
    /// The statement broke a constraint: a defect, not worth a retry.
    #[error("the database refused a statement: {0}")]
    Refused(#[source] sqlx::Error),
    /// The batch that the call was in failed.
    #[error(transparent)]
    Batch(Arc<StoreError>),
}

impl StoreError {
    /// No answer came: whether the statement was committed is not known.
    #[must_use]
    pub fn no_answer() -> Self {
        Self::Unavailable(sqlx::Error::WorkerCrashed)
    }

    /// What may be done about it.
    #[must_use]
    pub fn class(&self) -> RetryClass {
        match self {
            Self::Unavailable(_)
            | Self::Conflict(_)
            | Self::DiskFull(_)
            | Self::Denied(_)
            | Self::Identity(_) => RetryClass::Transient,
            Self::Schema(_) | Self::Corrupt(_) | Self::Refused(_) => RetryClass::Permanent,
            Self::Batch(error) => error.class(),
        }
    }

    /// The public form.
    #[must_use]
    pub fn info(&self) -> ErrorInfo {
        let code = match self {
            Self::DiskFull(_) => codes::DISK_FULL,
            Self::Schema(_) => codes::DATABASE_SCHEMA,
            Self::Denied(_) | Self::Identity(_) => codes::DATABASE_DENIED,
            Self::Batch(error) => return error.info(),
            _ => codes::DATABASE_UNAVAILABLE,
        };
        ErrorInfo::new(code, self.class(), self.to_string())
    }
}

/// What a database says by its code: SQLite's primary result codes, PostgreSQL's classes of SQLSTATE.
fn by_code(code: &str) -> Option<fn(sqlx::Error) -> StoreError> {
    Some(match code {
        "13" | "53100" => StoreError::DiskFull,
        // Serialization failure, deadlock, a lock that was waited for too long.
        "40001" | "40P01" | "55P03" => StoreError::Conflict,
        "28000" | "28P01" => StoreError::Denied,
        // Connection lost, out of resources, operator's intervention, system error.
        _ if code.len() == 5 && ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class)) => {
            StoreError::Unavailable
        }
        // The rest of PostgreSQL's codes: the statement itself is wrong.
        _ if code.len() == 5 => StoreError::Refused,
        _ => return None,
    })
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let answer = error.as_database_error();
        let code = answer.and_then(|answer| answer.code().map(std::borrow::Cow::into_owned));
        let constraint = answer.is_some_and(|answer| {
            answer.is_unique_violation() || answer.is_foreign_key_violation() || answer.is_check_violation()
        });
        if constraint {
            return Self::Refused(error);
        }
        let corrupt = matches!(
            error,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) | sqlx::Error::Decode(_)
        );
        if corrupt {
            return Self::Corrupt(error.to_string());
        }
        match code.as_deref().and_then(by_code) {
            Some(kind) => kind(error),
            None => Self::Unavailable(error),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The retry decision hangs on these.
    #[test]
    fn codes_keep_their_class() {
        let class = |code: &str| by_code(code).map(|kind| kind(sqlx::Error::RowNotFound).class());
        for transient in
            ["13", "53100", "40001", "40P01", "55P03", "28P01", "08006", "57P01", "53300", "58030"]
        {
            assert_eq!(class(transient), Some(RetryClass::Transient), "{transient}");
        }
        for permanent in ["23505", "42P01", "22P02"] {
            assert_eq!(class(permanent), Some(RetryClass::Permanent), "{permanent}");
        }
        assert_eq!(class("5"), None, "SQLite's busy is no PostgreSQL code");
    }
}
