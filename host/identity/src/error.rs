//! What can go wrong with identities. Public: no secrets, no tokens.

use azure_core::error::ErrorKind;
use azure_core::http::StatusCode;

/// A token that could not be had.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IdentityError {
    /// The environment describes an identity only in part, or wrongly.
    #[error("the Azure identity is not set up: {0}")]
    Settings(String),
    /// The identity service answered no. Asking again does not help.
    #[error("the Azure identity was refused: {0}")]
    Refused(String),
    /// The identity service does not answer, or not now. Transient.
    #[error("the Azure identity service does not answer: {0}")]
    Unavailable(String),
}

impl IdentityError {
    /// Of the error that a credential answered.
    pub(crate) fn of(error: &azure_core::Error) -> Self {
        let text = first_line(error);
        match kind(error) {
            ErrorKind::HttpResponse { status, .. } if is_final(*status) => Self::Refused(text),
            ErrorKind::HttpResponse { .. } | ErrorKind::Io | ErrorKind::Connection => Self::Unavailable(text),
            _ => Self::Refused(text),
        }
    }
}

/// The credentials wrap what the service said as "credential failed".
fn kind(error: &azure_core::Error) -> &ErrorKind {
    let inner = error.downcast_ref::<azure_core::Error>();
    inner.map_or(error.kind(), kind)
}

fn is_final(status: StatusCode) -> bool {
    let code = u16::from(status);
    (400..500).contains(&code) && code != 408 && code != 429
}

/// The lines after it only point to a web page.
fn first_line(error: &azure_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
