//! Which identity the environment describes, and its tokens.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::{ClientOptions, ExponentialRetryOptions, RetryOptions, Transport};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use tokio::sync::Mutex;

use crate::error::IdentityError;
use crate::http::transport;
use crate::token::{Token, TokenSource};

/// A token is renewed this long before its end. The credentials' own caches do the same.
const AHEAD: Duration = Duration::from_secs(300);
/// Where renewal fails, the old token serves until this long before its end.
const LAST: Duration = Duration::from_secs(30);
/// Between two tries to renew a token that still holds.
const AGAIN: Duration = Duration::from_secs(30);
/// Longest time of one try while the old token holds.
const SHORT_PATIENCE: Duration = Duration::from_secs(4);
/// Longest time of one try, its repetitions included.
const PATIENCE: Duration = Duration::from_secs(30);

/// The identity of this process.
pub struct AzureIdentity {
    kind: &'static str,
    credential: Arc<dyn TokenCredential>,
    /// By scope. Held while asking, so that many callers ask once.
    held: Mutex<HashMap<String, Held>>,
}

#[derive(Clone)]
struct Held {
    token: Token,
    /// Not asked for before, after a renewal that failed.
    not_before: SystemTime,
}

impl fmt::Debug for AzureIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureIdentity").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl AzureIdentity {
    /// The first of these that the environment describes:
    /// 1. workload identity: `AZURE_FEDERATED_TOKEN_FILE`, `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`;
    /// 2. client secret: `AZURE_CLIENT_SECRET`, `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`;
    /// 3. managed identity, of `AZURE_CLIENT_ID` or the system's: from `IDENTITY_ENDPOINT` (container apps, app service),
    ///    else from the metadata service of the machine.
    ///
    /// `get` answers environment variables. What belongs to the platform (`IDENTITY_ENDPOINT`, `IDENTITY_HEADER`,
    /// `AZURE_AUTHORITY_HOST`) `azure_identity` reads from the process itself. Nothing is asked for yet.
    ///
    /// # Errors
    /// [`IdentityError::Settings`] with what is missing.
    pub fn from_environment(get: &dyn Fn(&str) -> Option<String>) -> Result<Self, IdentityError> {
        Self::over(transport(Vec::new())?, get)
    }

    fn over(transport: Transport, get: &dyn Fn(&str) -> Option<String>) -> Result<Self, IdentityError> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let client_options = client_options(transport);
        let credential = if let Some(file) = get("AZURE_FEDERATED_TOKEN_FILE") {
            let need = |name| need(&get, name, "AZURE_FEDERATED_TOKEN_FILE");
            let options = WorkloadIdentityCredentialOptions {
                credential_options: ClientAssertionCredentialOptions { client_options },
                client_id: Some(need("AZURE_CLIENT_ID")?),
                tenant_id: Some(need("AZURE_TENANT_ID")?),
                token_file_path: Some(file.into()),
            };
            let credential = WorkloadIdentityCredential::new(Some(options));
            credential.map(|it| Self::of("workload identity", it))
        } else if let Some(secret) = get("AZURE_CLIENT_SECRET") {
            let need = |name| need(&get, name, "AZURE_CLIENT_SECRET");
            let (tenant, client) = (need("AZURE_TENANT_ID")?, need("AZURE_CLIENT_ID")?);
            let options = ClientSecretCredentialOptions { client_options };
            let credential = ClientSecretCredential::new(&tenant, client, Secret::new(secret), Some(options));
            credential.map(|it| Self::of("client secret", it))
        } else {
            let user_assigned_id = get("AZURE_CLIENT_ID").map(UserAssignedId::ClientId);
            let options = ManagedIdentityCredentialOptions { user_assigned_id, client_options };
            let credential = ManagedIdentityCredential::new(Some(options));
            credential.map(|it| Self::of("managed identity", it))
        };
        credential.map_err(|error| IdentityError::Settings(error.to_string()))
    }

    fn of(kind: &'static str, credential: Arc<dyn TokenCredential>) -> Self {
        Self { kind, credential, held: Mutex::default() }
    }

    /// `workload identity`, `client secret` or `managed identity`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    async fn ask(&self, scope: &str, patience: Duration) -> Result<Token, IdentityError> {
        let scopes = [scope];
        let asked = tokio::time::timeout(patience, self.credential.get_token(&scopes, None)).await;
        let late = || IdentityError::Unavailable(format!("no answer within {} s", patience.as_secs()));
        let token = asked.map_err(|_| late())?.map_err(|error| IdentityError::of(&error))?;
        Ok(Token { secret: token.token.secret().to_owned(), expires_at: token.expires_on.into() })
    }
}

#[async_trait]
impl TokenSource for AzureIdentity {
    async fn token(&self, scope: &str) -> Result<Token, IdentityError> {
        let mut held = self.held.lock().await;
        let now = SystemTime::now();
        let old = held.get(scope).filter(|old| old.token.expires_at > now + LAST).cloned();
        if let Some(old) = &old
            && (old.token.expires_at > now + AHEAD || old.not_before > now)
        {
            return Ok(old.token.clone());
        }
        // Whoever asks has little time, and the old token still holds.
        let patience = if old.is_some() { SHORT_PATIENCE } else { PATIENCE };
        let next = match (self.ask(scope, patience).await, old) {
            (Ok(token), _) => Held { token, not_before: now },
            // The old one still holds; nobody is kept waiting by the next tries.
            (Err(_), Some(old)) => Held { not_before: now + AGAIN, ..old },
            (Err(error), None) => return Err(error),
        };
        held.insert(scope.to_owned(), next.clone());
        Ok(next.token)
    }
}

fn need(
    get: &dyn Fn(&str) -> Option<String>,
    name: &'static str,
    because: &str,
) -> Result<String, IdentityError> {
    get(name).ok_or_else(|| IdentityError::Settings(format!("{because} is set and {name} is not")))
}

fn client_options(transport: Transport) -> ClientOptions {
    let retry = ExponentialRetryOptions { max_retries: 4, ..Default::default() };
    ClientOptions {
        transport: Some(transport),
        retry: RetryOptions::exponential(retry),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests;
