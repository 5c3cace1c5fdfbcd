//! Outputs that are uploaded while they are made: sealed under a hidden name, where they can be read and checked, and put in
//! their place by a copy that the service makes itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use azure_core::Uuid;
use tokio::io::AsyncRead;

use super::UPLOADS;
use super::client::Client;
use super::commit;
use super::copy::Copy;
use super::object::AzureObject;
use super::upload::BlockUpload;
use crate::error::BlobError;
use crate::fence::Fence;
use crate::name::BlobRef;
use crate::zones::{BlobFacts, Object, Upload};

/// Folder of hidden blobs within each container. No blob of a user can be in it: no part of a name begins with a dot.
pub(super) const FOLDER: &str = ".geoworker";

/// An output that nobody sees yet.
#[derive(Debug)]
pub(super) struct HiddenUpload {
    client: Client,
    hidden: BlobRef,
    target: BlobRef,
    upload: Arc<BlockUpload>,
    /// There is a blob under the hidden name.
    sealed: AtomicBool,
}

impl HiddenUpload {
    pub(super) fn new(client: Client, target: &BlobRef) -> Result<Self, BlobError> {
        let name = format!("{FOLDER}/{}", Uuid::new_v4());
        let hidden = BlobRef::new(&*target.zone, &*target.container, name);
        let upload = Arc::new(BlockUpload::new(client.blob(&hidden)?));
        Ok(Self { client, hidden, target: target.clone(), upload, sealed: AtomicBool::new(false) })
    }

    /// Uploads and seals a content that may be of any size.
    pub(super) async fn fill(&self, content: &mut (dyn AsyncRead + Send + Unpin)) -> Result<(), BlobError> {
        let content = self.upload.send(content).await?;
        self.sealed.store(true, Ordering::Relaxed);
        self.upload.publish(&content, None).await.map(drop)
    }

    async fn copy(&self, fence: Option<&Fence>) -> Result<BlobFacts, BlobError> {
        let target = self.client.blob(&self.target)?;
        commit::check(&target, fence).await?;
        let upload = Arc::new(BlockUpload::new(target));
        let copy = Copy::open(self.client.clone(), &self.hidden, Arc::clone(&upload)).await?;
        let order = copy.run().await?;
        upload.commit(&order, fence).await
    }
}

#[async_trait]
impl Upload for HiddenUpload {
    async fn block(&self, number: u32, bytes: Vec<u8>) -> Result<(), BlobError> {
        self.upload.block(number, bytes).await
    }

    async fn seal(&self, order: &[u32]) -> Result<Arc<dyn Object>, BlobError> {
        self.sealed.store(true, Ordering::Relaxed);
        self.upload.commit(order, None).await?;
        Ok(Arc::new(AzureObject::open(self.client.blob(&self.hidden)?).await?))
    }

    async fn publish(&self, fence: Option<&Fence>) -> Result<BlobFacts, BlobError> {
        let mut tries = 1;
        loop {
            match self.copy(fence).await {
                // Somebody else's commit took the blocks.
                Err(BlobError::Busy) if tries < UPLOADS => tries += 1,
                done => return done,
            }
        }
    }
}

impl Drop for HiddenUpload {
    fn drop(&mut self) {
        // Without a runtime the process ends; the sweep finds what is left.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if !self.sealed.load(Ordering::Relaxed) {
            return;
        }
        if let Ok(blob) = self.client.blob(&self.hidden) {
            runtime.spawn(async move {
                if let Err(error) = blob.client.delete(None).await {
                    tracing::debug!(kind = %error.kind(), "a hidden blob stays until it is swept");
                }
            });
        }
    }
}
