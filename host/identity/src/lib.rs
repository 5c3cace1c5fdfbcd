//! Tokens for Azure: workload identity, client secret or managed identity, whichever the environment describes.
//!
//! The protocols are those of `azure_identity`, which has no chain of its own any more. HTTP runs on rustls with `ring`
//! ([`transport`]), and trusts the roots of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` name others).

mod chain;
mod error;
mod http;
mod token;

pub use chain::AzureIdentity;
pub use error::IdentityError;
pub use http::{tls, transport};
pub use token::{Token, TokenSource};
