//! A token and who gives it.

use std::fmt;
use std::time::SystemTime;

use crate::error::IdentityError;

/// A token with its end.
#[derive(Clone)]
pub struct Token {
    /// What goes behind `Bearer`, or is used as a password.
    pub secret: String,
    /// From then on it is refused.
    pub expires_at: SystemTime,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Gives tokens. Cheap to ask: a token is kept until shortly before its end.
#[async_trait::async_trait]
pub trait TokenSource: Send + Sync + fmt::Debug {
    /// A token for a scope such as `https://storage.azure.com/.default`.
    ///
    /// # Errors
    /// [`IdentityError::Refused`] and [`IdentityError::Unavailable`].
    async fn token(&self, scope: &str) -> Result<Token, IdentityError>;
}
