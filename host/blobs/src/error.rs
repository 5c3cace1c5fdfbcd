//! What can go wrong with blobs. Public: no paths of the host.

use std::io;

/// A blob operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The name would leave its zone or is not portable.
    #[error("the blob name is not valid: {0}")]
    InvalidName(String),
    /// There is no such zone.
    #[error("there is no zone '{0}'; zones are {1}")]
    UnknownZone(String, String),
    /// There is no such blob.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The disk is full.
    #[error("no space is left in the zone")]
    Full,
    /// A later attempt of the same task has published the blob.
    #[error("a later attempt has published this blob")]
    Fenced,
    /// Somebody else is publishing the blob and does not get on.
    #[error("another process is publishing this blob")]
    Busy,
    /// The storage refuses its credentials, or they do not reach so far.
    #[error("blob storage refuses access: {0}")]
    Denied(String),
    /// The blob was written while it was being read.
    #[error("{0} changed while it was read")]
    Changed(String),
    /// The storage does not answer, or is overloaded.
    #[error("blob storage does not answer: {0}")]
    Unavailable(String),
    /// The file system failed.
    #[error("blob storage failed: {0}")]
    Io(io::Error),
}

impl From<io::Error> for BlobError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io(error),
        }
    }
}
