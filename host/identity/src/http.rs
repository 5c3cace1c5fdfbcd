//! HTTP of everything that speaks to Azure.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::{AsyncRawResponse, HttpClient, Request, Transport};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;

use crate::error::IdentityError;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(20);
/// Longest silence of the server. It is silent too while a block is being sent to it.
const SILENCE: Duration = Duration::from_secs(120);

/// Connections for Azure clients, shared by all who clone it: rustls with `ring`, the system's roots and `extra_roots`
/// (DER; usually none).
///
/// # Errors
/// [`IdentityError::Settings`] where the system has no usable root certificates.
pub fn transport(extra_roots: Vec<Vec<u8>>) -> Result<Transport, IdentityError> {
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(
            tls(extra_roots).map_err(|error| IdentityError::Settings(error.to_string()))?,
        )
        .connect_timeout(CONNECT)
        .read_timeout(SILENCE)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| IdentityError::Settings(error.to_string()))?;
    Ok(Transport::new(Arc::new(Http(client))))
}

/// TLS for whatever speaks to Azure: rustls with `ring`, the system's roots and `extra_roots` (DER; usually none).
///
/// # Errors
/// Where the system has no usable root certificates.
pub fn tls(extra_roots: Vec<Vec<u8>>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = extra_roots.into_iter().map(CertificateDer::from);
    let verifier = Verifier::new_with_extra_roots(roots, provider.clone())?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    // "Dangerous" is any verifier of one's own; this one is the system's.
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

/// The client without addresses in its errors: their queries can carry signatures, and the SDK logs errors.
#[derive(Debug)]
struct Http(reqwest::Client);

#[async_trait]
impl HttpClient for Http {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let answer = self.0.execute_request(request).await;
        answer.map_err(|error| {
            let host = request.url().host_str().unwrap_or_default();
            azure_core::Error::with_message(error.kind().clone(), format!("{host}: {}", cause(&error)))
        })
    }
}

/// The innermost reason. Only the outer layers know the address.
fn cause(error: &azure_core::Error) -> String {
    let Some(mut inner) = error.source() else { return "the request failed".to_owned() };
    while let Some(next) = inner.source() {
        inner = next;
    }
    if inner.is::<reqwest::Error>() { "the request failed".to_owned() } else { inner.to_string() }
}
