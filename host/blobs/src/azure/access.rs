//! How requests are authorised. The client library knows tokens only; with an account key, each request gets a shared access
//! signature of its own, which is as good for the source of a server-side copy.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::base64;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request, Url};
use chrono::{DateTime, SecondsFormat, Utc};
use geoworker_identity::TokenSource;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Scope of tokens for blobs.
const SCOPE: &str = "https://storage.azure.com/.default";
/// Version of the signatures that are made here.
const SAS_VERSION: &str = "2022-11-02";
/// How long such a signature holds: a request, with its repetitions and a clock that is off.
const SAS_LIFE: Duration = Duration::from_secs(3600);

/// What opens an account.
#[derive(Clone)]
pub(super) enum Access {
    Key { account: String, key: Vec<u8> },
    Signature(String),
    Identity(Arc<dyn TokenSource>),
}

/// What a signature allows.
#[derive(Clone, Copy)]
pub(super) enum Allow {
    /// Whatever zones do. Only hidden blobs are ever deleted.
    Use,
    /// Reading blobs.
    Read,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Key { .. } => "Key",
            Self::Signature(_) => "Signature",
            Self::Identity(_) => "Identity",
        })
    }
}

impl Access {
    /// The address with what authorises it. Nothing is added where tokens do.
    pub(super) fn sign(&self, url: &Url, allow: Allow, now: DateTime<Utc>) -> Url {
        let signature = match self {
            Self::Key { account, key } => signature(account, key, allow, now + SAS_LIFE),
            Self::Signature(given) => given.clone(),
            Self::Identity(_) => return url.clone(),
        };
        let query = url.query().map_or_else(String::new, |query| format!("{query}&"));
        let mut url = url.clone();
        url.set_query(Some(&format!("{query}{signature}")));
        url
    }

    /// `Bearer …` for the source of a server-side copy. None where the address is signed.
    pub(super) async fn authorization(&self) -> azure_core::Result<Option<String>> {
        let Self::Identity(identity) = self else { return Ok(None) };
        let token = identity.token(SCOPE).await.map_err(refused)?;
        Ok(Some(format!("Bearer {}", token.secret)))
    }

    pub(super) fn credential(&self) -> Option<Arc<dyn TokenCredential>> {
        let Self::Identity(identity) = self else { return None };
        Some(Arc::new(Credential(identity.clone())))
    }
}

/// A signature of the account, for blobs and their containers. The fields are those of the string to sign in "Create an
/// account SAS" of the REST reference, from version 2020-12-06 on.
fn signature(account: &str, key: &[u8], allow: Allow, end: DateTime<Utc>) -> String {
    let (permissions, types) = match allow {
        Allow::Use => ("rwdlac", "sco"),
        Allow::Read => ("r", "o"),
    };
    let end = end.to_rfc3339_opts(SecondsFormat::Secs, true);
    // Start, addresses, protocols and encryption scope are left open.
    let text = format!("{account}\n{permissions}\nb\n{types}\n\n{end}\n\n\n{SAS_VERSION}\n\n");
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return String::new() };
    mac.update(text.as_bytes());
    let signed = base64::encode(mac.finalize().into_bytes());
    let signed = signed.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    format!("sv={SAS_VERSION}&ss=b&srt={types}&sp={permissions}&se={end}&sig={signed}")
}

/// Signs each try of a request, so that clients may live for as long as they like.
#[derive(Debug)]
pub(super) struct Sign(pub(super) Access);

#[async_trait]
#[expect(elided_lifetimes_in_paths, reason = "the trait declares its context so")]
impl Policy for Sign {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let bare = request.url().clone();
        *request.url_mut() = self.0.sign(&bare, Allow::Use, Utc::now());
        let answer = match next.split_first() {
            Some((first, rest)) => first.send(context, request, rest).await,
            None => Err(azure_core::Error::with_message(ErrorKind::Other, "the pipeline has no transport")),
        };
        *request.url_mut() = bare;
        answer
    }
}

/// The identity, for the client library.
#[derive(Debug)]
struct Credential(Arc<dyn TokenSource>);

#[async_trait]
impl TokenCredential for Credential {
    async fn get_token(
        &self,
        scopes: &[&str],
        _: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let token = self.0.token(scopes.first().copied().unwrap_or(SCOPE)).await.map_err(refused)?;
        Ok(AccessToken::new(token.secret, token.expires_at.into()))
    }
}

fn refused(error: geoworker_identity::IdentityError) -> azure_core::Error {
    azure_core::Error::new(ErrorKind::Credential, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference was computed with Python's `hmac` over the string to sign.
    #[test]
    fn a_signature_covers_its_fields() {
        let end = DateTime::from_timestamp(1_800_000_000, 0).expect("is a time");
        let expected = "sv=2022-11-02&ss=b&srt=o&sp=r&se=2027-01-15T08:00:00Z&sig=yjF%2B2DAcWXJNQf4zBZdZ9KrOmt%2BVJxx55GLJPOYjVYs%3D";
        assert_eq!(signature("account", b"key", Allow::Read, end), expected);
        assert_ne!(signature("account", b"other", Allow::Read, end), expected);
    }

    #[test]
    fn what_was_in_the_query_stays() {
        let url = Url::parse("https://x/c?comp=list").expect("parses");
        let signed = Access::Signature("sig=1".to_owned()).sign(&url, Allow::Use, Utc::now());
        assert_eq!(signed.as_str(), "https://x/c?comp=list&sig=1");
    }
}
