//! Blobs that are read in ranges.

use std::num::NonZero;
use std::time::Duration;

use async_trait::async_trait;
use azure_storage_blob::models::{BlobClientDownloadOptions, HttpRange};

use super::client::{Blob, quoted};
use super::error::failed;
use crate::error::BlobError;
use crate::zones::{BlobFacts, Object};

/// Tries of one range. The client library repeats requests, but not answers that break off.
const TRIES: u32 = 4;
/// Wait after the first try; it doubles.
const WAIT: Duration = Duration::from_millis(200);

/// A blob, pinned to its etag.
#[derive(Debug)]
pub(super) struct AzureObject {
    blob: Blob,
    facts: BlobFacts,
}

impl AzureObject {
    pub(super) async fn open(blob: Blob) -> Result<Self, BlobError> {
        let facts = blob.properties().await?.facts;
        Ok(Self { blob, facts })
    }

    async fn range(&self, offset: u64, length: NonZero<usize>) -> Result<Vec<u8>, BlobError> {
        let options = BlobClientDownloadOptions {
            range: Some(HttpRange::new(offset, length.get() as u64)),
            if_match: Some(quoted(&self.facts.etag)),
            // One request: callers split as they like.
            partition_size: Some(length),
            parallel: Some(NonZero::<usize>::MIN),
            ..Default::default()
        };
        let answer = self.blob.client.download(Some(options)).await;
        let bytes = match answer {
            Ok(answer) => answer.body.collect().await,
            Err(error) => Err(error),
        };
        let bytes = bytes.map_err(|error| failed(&error, &self.facts.blob))?;
        if bytes.len() != length.get() {
            return Err(BlobError::Unavailable("an answer was too short".to_owned()));
        }
        Ok(bytes.into())
    }
}

#[async_trait]
impl Object for AzureObject {
    fn facts(&self) -> &BlobFacts {
        &self.facts
    }

    async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        let left = usize::try_from(self.facts.size_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(length) = NonZero::new(length.min(left)) else { return Ok(Vec::new()) };
        let mut tries = 1;
        loop {
            match self.range(offset, length).await {
                Err(BlobError::Unavailable(_)) if tries < TRIES => {
                    tokio::time::sleep(WAIT * 2_u32.pow(tries - 1)).await;
                    tries += 1;
                }
                // Removed is changed too.
                Err(BlobError::NotFound(name)) => return Err(BlobError::Changed(name)),
                done => return done,
            }
        }
    }
}
