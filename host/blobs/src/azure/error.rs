//! What the service's errors mean. Nothing of them is repeated but status, code and the reason of a broken connection.

use std::io;

use azure_core::error::ErrorKind;
use azure_core::http::StatusCode;
use geoworker_identity::IdentityError;

use crate::error::BlobError;
use crate::name::BlobRef;

/// The error of an operation on `blob`; with an empty name, on its container.
pub(super) fn failed(error: &azure_core::Error, blob: &BlobRef) -> BlobError {
    match error.kind() {
        ErrorKind::HttpResponse { status, error_code, .. } => {
            answered(*status, error_code.as_deref().unwrap_or_default(), blob)
        }
        ErrorKind::Io | ErrorKind::Connection => BlobError::Unavailable(innermost(error)),
        ErrorKind::Credential => match identity(error) {
            Some(error @ IdentityError::Unavailable(_)) => BlobError::Unavailable(error.to_string()),
            Some(error) => BlobError::Denied(error.to_string()),
            None => BlobError::Denied("no token".to_owned()),
        },
        kind => BlobError::Io(io::Error::other(format!("unexpected answer ({kind})"))),
    }
}

fn answered(status: StatusCode, code: &str, blob: &BlobRef) -> BlobError {
    let said = || if code.is_empty() { status.to_string() } else { format!("{} {code}", u16::from(status)) };
    match (u16::from(status), code) {
        (_, "ContainerNotFound" | "ContainerBeingDeleted") => BlobError::NotFound(container(blob)),
        (404, _) if blob.name.is_empty() => BlobError::NotFound(container(blob)),
        (404, _) => BlobError::NotFound(blob.to_string()),
        (412, _) => BlobError::Changed(blob.to_string()),
        (400, "InvalidBlockList") => BlobError::Busy,
        (400, "InvalidResourceName" | "InvalidUri" | "OutOfRangeInput") => BlobError::InvalidName(said()),
        (401 | 403, _) => BlobError::Denied(said()),
        (408 | 429 | 500 | 502..=504, _) => BlobError::Unavailable(said()),
        _ => BlobError::Io(io::Error::other(said())),
    }
}

fn container(blob: &BlobRef) -> String {
    format!("container {}:{}", blob.zone, blob.container)
}

/// The transport leaves no addresses in its errors; layers above it only say that something failed.
fn innermost(error: &azure_core::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(next) = inner.source() {
        inner = next;
    }
    inner.to_string()
}

fn identity(error: &azure_core::Error) -> Option<&IdentityError> {
    let mut inner: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = inner {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        inner = error.source();
    }
    None
}
