//! A storage account as a client, and a blob in it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use azure_core::http::policies::Policy;
use azure_core::http::{ClientOptions, Etag, ExponentialRetryOptions, RetryOptions, Transport, Url};
use azure_core::time::{Duration, OffsetDateTime};
use azure_storage_blob::models::BlobClientGetPropertiesResultHeaders as _;
use azure_storage_blob::{
    BlobClient, BlobClientOptions, BlobContainerClient, BlobContainerClientOptions, BlobServiceClient,
    BlobServiceClientOptions,
};

use super::access::{Access, Allow, Sign};
use super::account::Account;
use super::error::failed;
use crate::error::BlobError;
use crate::name::BlobRef;
use crate::zones::BlobFacts;

/// Tries after the first.
const RETRIES: u32 = 6;
/// No try begins later than this after the first.
const PATIENCE: Duration = Duration::minutes(5);
/// Wait before the second try. It doubles.
const FIRST: Duration = Duration::milliseconds(200);
/// Longest wait between two tries.
const LONGEST: Duration = Duration::seconds(10);

/// An account.
#[derive(Debug, Clone)]
pub(super) struct Client {
    account: Account,
    options: ClientOptions,
}

impl Client {
    pub(super) fn new(account: Account, transport: Transport) -> Self {
        let retry = ExponentialRetryOptions {
            initial_delay: FIRST,
            max_retries: RETRIES,
            max_delay: LONGEST,
            max_total_elapsed: PATIENCE,
        };
        let mut options = ClientOptions {
            transport: Some(transport),
            retry: RetryOptions::exponential(retry),
            ..Default::default()
        };
        if !matches!(account.access, Access::Identity(_)) {
            let sign: Arc<dyn Policy> = Arc::new(Sign(account.access.clone()));
            options.per_try_policies.push(sign);
        }
        Self { account, options }
    }

    /// Takes the first failure for an answer.
    #[cfg(test)]
    pub(super) fn without_retries(&mut self) {
        self.options.retry = RetryOptions::none();
    }

    pub(super) fn blob(&self, blob: &BlobRef) -> Result<Blob, BlobError> {
        let options = BlobClientOptions { client_options: self.options.clone(), ..Default::default() };
        let url = self.url(&blob.path())?;
        let client = BlobClient::new(url, self.account.access.credential(), Some(options));
        Ok(Blob { client: client.map_err(|error| failed(&error, blob))?, blob: blob.clone() })
    }

    pub(super) fn container(&self, container: &BlobRef) -> Result<BlobContainerClient, BlobError> {
        let options =
            BlobContainerClientOptions { client_options: self.options.clone(), ..Default::default() };
        let url = self.url(&container.container)?;
        let client = BlobContainerClient::new(url, self.account.access.credential(), Some(options));
        client.map_err(|error| failed(&error, container))
    }

    pub(super) fn service(&self, zone: &BlobRef) -> Result<BlobServiceClient, BlobError> {
        let options = BlobServiceClientOptions { client_options: self.options.clone(), ..Default::default() };
        let url = self.account.endpoint.clone();
        let client = BlobServiceClient::new(url, self.account.access.credential(), Some(options));
        client.map_err(|error| failed(&error, zone))
    }

    /// Address and authorization with which the service itself may read a blob of this account. Secret.
    pub(super) async fn readable(&self, blob: &BlobRef) -> Result<(String, Option<String>), BlobError> {
        let access = &self.account.access;
        let url = access.sign(&self.url(&blob.path())?, Allow::Read, SystemTime::now().into());
        let authorization = access.authorization().await.map_err(|error| failed(&error, blob))?;
        Ok((url.into(), authorization))
    }

    /// Emulators have the account in the path. They do not read the source of a copy themselves.
    pub(super) fn is_emulator(&self) -> bool {
        self.account.endpoint.path() != "/"
    }

    /// Path is container and name, which are checked: no part is empty, `.` or `..`.
    fn url(&self, path: &str) -> Result<Url, BlobError> {
        let mut url = self.account.endpoint.clone();
        let invalid = |()| BlobError::InvalidName("the account's address takes no names".to_owned());
        url.path_segments_mut().map_err(invalid)?.pop_if_empty().extend(path.split('/'));
        Ok(url)
    }
}

/// A blob, whether it exists or not.
pub(super) struct Blob {
    pub(super) client: BlobClient,
    pub(super) blob: BlobRef,
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Blob").field(&self.blob).finish()
    }
}

/// What a blob says of itself.
#[derive(Debug)]
pub(super) struct Properties {
    pub(super) facts: BlobFacts,
    pub(super) metadata: HashMap<String, String>,
}

impl Blob {
    pub(super) async fn properties(&self) -> Result<Properties, BlobError> {
        let failed = |error| failed(&error, &self.blob);
        let answer = self.client.get_properties(None).await.map_err(failed)?;
        let size_bytes = answer.content_length().map_err(failed)?.unwrap_or_default();
        let (etag, modified) = (answer.etag().map_err(failed)?, answer.last_modified().map_err(failed)?);
        let facts = facts(self.blob.clone(), size_bytes, etag.as_ref(), modified);
        Ok(Properties { facts, metadata: answer.metadata().map_err(failed)? })
    }
}

pub(super) fn facts(
    blob: BlobRef,
    size_bytes: u64,
    etag: Option<&Etag>,
    last_modified: Option<OffsetDateTime>,
) -> BlobFacts {
    let etag = etag.map_or("", |etag| etag.as_ref()).trim_matches('"').to_owned();
    let last_modified = last_modified.map_or(SystemTime::UNIX_EPOCH, SystemTime::from).into();
    BlobFacts { blob, size_bytes, last_modified, etag }
}

/// As headers have it. Listings and our facts are without quotes.
pub(super) fn quoted(etag: &str) -> Etag {
    Etag::from(format!("\"{etag}\""))
}
