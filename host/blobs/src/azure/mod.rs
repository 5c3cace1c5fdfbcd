//! Zones as storage accounts of Azure: a zone is an account, a container a container, a blob a block blob.
//!
//! The client is Microsoft's `azure_storage_blob`. What it must do here is commit a block list on a condition, with metadata:
//! the fence rests on that. `object_store` commits multipart uploads unconditionally, and a client of our own would repeat
//! requests, paging and XML that are there already. It takes tokens only and refuses them over plain HTTP; requests with an
//! account key are signed by a policy of ours (`access.rs`). It brings no TLS of its own choice: rustls runs on `ring`.
//!
//! Nothing is visible before it is whole: content goes up in blocks, each with its MD5, which the service compares, and one
//! conditional commit makes it a blob (`commit.rs`). The service drops blocks that were never committed after a week.

mod access;
mod account;
mod client;
mod commit;
mod copy;
mod error;
mod hidden;
mod object;
mod upload;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use azure_core::http::Transport;
use azure_core::time::OffsetDateTime;
use azure_storage_blob::models::{
    BlobContainerClientListBlobsOptions, BlobItem, BlobServiceClientListContainersOptions,
};
use futures_util::TryStreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};

pub use self::account::{Account, AccountError};
use self::client::{Client, facts};
use self::copy::Copy;
use self::error::failed;
use self::hidden::HiddenUpload;
use self::object::AzureObject;
use self::upload::BlockUpload;
use crate::error::BlobError;
use crate::fence::Fence;
use crate::name::{BlobRef, check_container};
use crate::zones::{BlobFacts, Output, Source, Upload as _, Zones};

/// A content below this size is kept in memory while it is uploaded, so that it can be uploaded again; a larger one goes
/// to a hidden blob first.
const SMALL: u64 = 8 << 20;
/// Container and blob that need not exist: whether the account answers is asked by asking for them.
const PROBE: &str = "geoworker-probe";
/// Most items of a page of a listing.
const PAGE: usize = 5000;
/// Uploads of a blob, where somebody else's commit took the blocks: it drops what others have not committed.
const UPLOADS: usize = 3;
/// How often hidden blobs are looked for.
const SWEEP: Duration = Duration::from_secs(6 * 3600);
/// A hidden blob of this age belongs to nobody: it is hidden for no longer than its verification takes.
const ABANDONED: azure_core::time::Duration = azure_core::time::Duration::days(2);

/// The zones of a process, each in a storage account. Containers are not created: that is for who sets up the accounts.
#[derive(Debug)]
pub struct AzureZones {
    zones: BTreeMap<String, Client>,
    /// When hidden blobs were looked for last.
    swept: Mutex<Option<Instant>>,
}

impl AzureZones {
    /// Zones by name. No request is made yet.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] where the system has no root certificates.
    pub fn open(accounts: BTreeMap<String, Account>) -> Result<Self, BlobError> {
        let transport = geoworker_identity::transport(Vec::new());
        Ok(Self::over(transport.map_err(|error| BlobError::Unavailable(error.to_string()))?, accounts))
    }

    fn over(transport: Transport, accounts: BTreeMap<String, Account>) -> Self {
        let client = |(name, account)| (name, Client::new(account, transport.clone()));
        Self { zones: accounts.into_iter().map(client).collect(), swept: Mutex::default() }
    }

    /// Creates a container, for development. One that exists is left as it is.
    ///
    /// # Errors
    /// When the name is not valid or the account refuses.
    pub async fn create_container(&self, zone: &str, container: &str) -> Result<(), BlobError> {
        let place = BlobRef::new(zone, container, "");
        match self.container(&place)?.create(None).await {
            Err(error) if error.http_status().is_none_or(|status| u16::from(status) != 409) => {
                Err(failed(&error, &place))
            }
            _ => Ok(()),
        }
    }

    fn zone(&self, name: &str) -> Result<&Client, BlobError> {
        let known = || self.names().join(", ");
        self.zones.get(name).ok_or_else(|| BlobError::UnknownZone(name.escape_debug().to_string(), known()))
    }

    fn blob(&self, blob: &BlobRef) -> Result<client::Blob, BlobError> {
        blob.check()?;
        self.zone(&blob.zone)?.blob(blob)
    }

    fn container(&self, place: &BlobRef) -> Result<azure_storage_blob::BlobContainerClient, BlobError> {
        check_container(&place.container)?;
        self.zone(&place.zone)?.container(place)
    }

    /// Begins an upload that may still win.
    async fn begin(&self, target: &BlobRef, fence: Option<&Fence>) -> Result<Arc<BlockUpload>, BlobError> {
        let blob = self.blob(target)?;
        commit::check(&blob, fence).await?;
        Ok(Arc::new(BlockUpload::new(blob)))
    }

    /// Removes hidden blobs that no living process can still need.
    async fn sweep_zone(&self, zone: &str) -> Result<(), BlobError> {
        let oldest = OffsetDateTime::now_utc() - ABANDONED;
        for container in self.containers(zone).await? {
            let place = BlobRef::new(zone, container, "");
            let failed = |error| failed(&error, &place);
            let options = BlobContainerClientListBlobsOptions {
                prefix: Some(format!("{}/", hidden::FOLDER)),
                ..Default::default()
            };
            let mut items = self.container(&place)?.list_blobs(Some(options)).map_err(failed)?;
            while let Some(item) = items.try_next().await.map_err(failed)? {
                let modified = item.properties.and_then(|properties| properties.last_modified);
                let (Some(name), true) = (item.name, modified.is_some_and(|at| at < oldest)) else {
                    continue;
                };
                let blob = self.zone(zone)?.blob(&BlobRef { name, ..place.clone() })?;
                match blob.client.delete(None).await.map_err(failed) {
                    // Another sweeper was here.
                    Ok(_) | Err(BlobError::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Zones for AzureZones {
    fn names(&self) -> Vec<String> {
        self.zones.keys().cloned().collect()
    }

    fn are_remote(&self) -> bool {
        true
    }

    async fn reach(&self) -> Result<(), BlobError> {
        for (zone, client) in &self.zones {
            let nowhere = BlobRef::new(&**zone, PROBE, PROBE);
            // No is an answer, too.
            if let Err(error @ BlobError::Unavailable(_)) = client.blob(&nowhere)?.properties().await {
                return Err(error);
            }
        }
        Ok(())
    }

    async fn stat(&self, blob: &BlobRef) -> Result<BlobFacts, BlobError> {
        Ok(self.blob(blob)?.properties().await?.facts)
    }

    async fn list(
        &self,
        zone: &str,
        container: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<BlobFacts>, BlobError> {
        let place = BlobRef::new(zone, container, "");
        let options = BlobContainerClientListBlobsOptions {
            prefix: Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty()),
            maxresults: i32::try_from(limit.clamp(1, PAGE)).ok(),
            ..Default::default()
        };
        let failed = |error| failed(&error, &place);
        let mut items = self.container(&place)?.list_blobs(Some(options)).map_err(failed)?;
        let mut found = Vec::new();
        while found.len() < limit
            && let Some(item) = items.try_next().await.map_err(failed)?
        {
            found.extend(listed(&place, item));
        }
        Ok(found)
    }

    async fn containers(&self, zone: &str) -> Result<Vec<String>, BlobError> {
        let place = BlobRef::new(zone, "", "");
        let failed = |error| failed(&error, &place);
        let options = BlobServiceClientListContainersOptions::default();
        let service = self.zone(zone)?.service(&place)?;
        let items = service.list_containers(Some(options)).map_err(failed)?;
        let items: Vec<_> = items.try_collect().await.map_err(failed)?;
        let names = items.into_iter().filter_map(|item| item.name);
        Ok(names.filter(|name| check_container(name).is_ok()).collect())
    }

    async fn open(&self, blob: &BlobRef) -> Result<Source, BlobError> {
        Ok(Source::Object(Arc::new(AzureObject::open(self.blob(blob)?).await?)))
    }

    async fn create(&self, target: &BlobRef) -> Result<Output, BlobError> {
        target.check()?;
        let upload = HiddenUpload::new(self.zone(&target.zone)?.clone(), target)?;
        Ok(Output::Object(Arc::new(upload)))
    }

    async fn publish(&self, output: Output, fence: Option<&Fence>) -> Result<BlobFacts, BlobError> {
        match output {
            Output::Object(upload) => upload.publish(fence).await,
            Output::File(staged) => {
                let mut file = tokio::fs::File::open(&staged.path).await?;
                self.write(staged.target(), &mut file, fence).await
            }
        }
    }

    async fn write(
        &self,
        target: &BlobRef,
        content: &mut (dyn AsyncRead + Send + Unpin),
        fence: Option<&Fence>,
    ) -> Result<BlobFacts, BlobError> {
        let mut first = Vec::new();
        (&mut *content).take(SMALL).read_to_end(&mut first).await?;
        if first.len() as u64 == SMALL {
            let hidden = HiddenUpload::new(self.zone(&target.zone)?.clone(), target)?;
            hidden.fill(&mut first.as_slice().chain(content)).await?;
            return hidden.publish(fence).await;
        }
        let mut uploads = 1;
        loop {
            let upload = self.begin(target, fence).await?;
            let whole = upload.send(&mut first.as_slice()).await?;
            match upload.publish(&whole, fence).await {
                Err(BlobError::Busy) if uploads < UPLOADS => uploads += 1,
                done => return done,
            }
        }
    }

    async fn copy(
        &self,
        source: &BlobRef,
        target: &BlobRef,
        fence: Option<&Fence>,
    ) -> Result<BlobFacts, BlobError> {
        source.check()?;
        let upload = self.begin(target, fence).await?;
        let copy = Copy::open(self.zone(&source.zone)?.clone(), source, upload.clone()).await?;
        let order = copy.run().await?;
        upload.commit(&order, fence).await
    }

    async fn sweep(&self) {
        {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            if swept.is_some_and(|last| last.elapsed() < SWEEP) {
                return;
            }
            *swept = Some(Instant::now());
        }
        for zone in self.zones.keys() {
            if let Err(error) = self.sweep_zone(zone).await {
                tracing::debug!(zone, %error, "hidden blobs cannot be swept now");
            }
        }
    }
}

/// A blob of a listing. None where its name is not one of ours.
fn listed(place: &BlobRef, item: BlobItem) -> Option<BlobFacts> {
    let blob = BlobRef { name: item.name?, ..place.clone() };
    blob.check().ok()?;
    let properties = item.properties?;
    let size = properties.content_length.unwrap_or_default();
    Some(facts(blob, size, properties.etag.as_ref(), properties.last_modified))
}

#[cfg(test)]
mod tests;
