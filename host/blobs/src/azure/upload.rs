//! Uploads in blocks. A block's identifier begins with a number of the upload's own, so that two attempts at the same blob never
//! mix their blocks.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use azure_core::error::ErrorKind;
use azure_core::http::Etag;
use azure_core::{Bytes, Uuid};
use azure_storage_blob::models::{
    BlockBlobClientStageBlockFromUrlOptions, BlockBlobClientStageBlockOptions, HttpRange,
};
use md5::{Digest, Md5};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;

use super::client::Blob;
use super::commit::{self, Content};
use super::error::failed;
use crate::error::BlobError;
use crate::fence::Fence;
use crate::zones::BlobFacts;

/// First size of blocks.
const BLOCK: usize = 8 << 20;
/// It doubles with each of these, so that any file fits into as many blocks as Azure allows.
const STEP: u32 = 10_000;
/// Most blocks of a blob.
const MAX_BLOCKS: u32 = 50_000;
/// Blocks that are on their way at the same time. One more is being read.
pub(super) const PARALLEL: usize = 4;

/// An upload that was begun.
#[derive(Debug)]
pub(super) struct BlockUpload {
    blob: Blob,
    id: Uuid,
    /// Of the blocks that arrived.
    sizes: Mutex<BTreeMap<u32, u64>>,
}

/// A range of another blob, as the service reads it.
pub(super) struct Range {
    pub(super) address: String,
    pub(super) authorization: Option<String>,
    pub(super) etag: Etag,
    pub(super) offset: u64,
    pub(super) length: usize,
}

impl BlockUpload {
    pub(super) fn new(blob: Blob) -> Self {
        Self { blob, id: Uuid::new_v4(), sizes: Mutex::default() }
    }

    /// Uploads all of a content, in order.
    pub(super) async fn send(
        self: &Arc<Self>,
        content: &mut (dyn AsyncRead + Send + Unpin),
    ) -> Result<Content, BlobError> {
        let mut under_way = JoinSet::new();
        let mut whole = Md5::new();
        let mut number = 0;
        loop {
            let mut bytes = Vec::new();
            content.take(block_size(number) as u64).read_to_end(&mut bytes).await?;
            if bytes.is_empty() {
                break;
            }
            if number == MAX_BLOCKS {
                return Err(BlobError::Io(io::ErrorKind::FileTooLarge.into()));
            }
            (whole, bytes) = hashing(move || (whole.chain_update(&bytes), bytes)).await?;
            if under_way.len() == PARALLEL {
                next(&mut under_way).await?;
            }
            let upload = self.clone();
            under_way.spawn(async move { upload.block(number, bytes).await });
            number += 1;
        }
        while next(&mut under_way).await? {}
        let order: Vec<u32> = (0..number).collect();
        Ok(Content { md5: Some(whole.finalize().to_vec()), ..self.content(&order)? })
    }

    /// Has the service read a block by itself. False where it cannot.
    pub(super) async fn block_from(&self, number: u32, range: Range) -> Result<bool, BlobError> {
        let (offset, length) = (range.offset, range.length as u64);
        let options = BlockBlobClientStageBlockFromUrlOptions {
            copy_source_authorization: range.authorization,
            source_if_match: Some(range.etag),
            source_range: Some(HttpRange::new(offset, length)),
            ..Default::default()
        };
        let client = self.blob.client.block_blob_client();
        match client.stage_block_from_url(&self.name(number), 0, range.address, Some(options)).await {
            Ok(_) => self.arrived(number, length),
            Err(error) if is_out_of_reach(&error) => return Ok(false),
            Err(error) => return Err(failed(&error, &self.blob.blob)),
        }
        Ok(true)
    }

    pub(super) fn content(&self, order: &[u32]) -> Result<Content, BlobError> {
        let sizes = self.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let size = |number| {
            let missing =
                || io::Error::new(io::ErrorKind::InvalidInput, format!("block {number} is missing"));
            sizes.get(number).copied().ok_or_else(missing)
        };
        let size_bytes = order.iter().map(size).sum::<Result<u64, io::Error>>()?;
        let blocks = order.iter().map(|number| self.name(*number)).collect();
        Ok(Content { blocks, size_bytes, md5: None })
    }

    /// Makes it visible.
    pub(super) async fn publish(
        &self,
        content: &Content,
        fence: Option<&Fence>,
    ) -> Result<BlobFacts, BlobError> {
        commit::commit(&self.blob, content, fence).await
    }

    fn arrived(&self, number: u32, length: u64) {
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(number, length);
    }

    /// All names of a blob's blocks must be of one length.
    fn name(&self, number: u32) -> Vec<u8> {
        [self.id.as_bytes().as_slice(), &number.to_be_bytes()].concat()
    }

    /// Uploads a block under a number of the caller's; again with the same number replaces it.
    pub(super) async fn block(&self, number: u32, bytes: Vec<u8>) -> Result<(), BlobError> {
        let length = bytes.len() as u64;
        let (md5, bytes) = hashing(move || (Md5::digest(&bytes).to_vec(), bytes)).await?;
        // The service refuses what arrives damaged.
        let options =
            BlockBlobClientStageBlockOptions { transactional_content_md5: Some(md5), ..Default::default() };
        let client = self.blob.client.block_blob_client();
        let sent =
            client.stage_block(&self.name(number), length, Bytes::from(bytes).into(), Some(options)).await;
        sent.map_err(|error| failed(&error, &self.blob.blob))?;
        self.arrived(number, length);
        Ok(())
    }

    /// Makes it visible, of its blocks in this order.
    pub(super) async fn commit(&self, order: &[u32], fence: Option<&Fence>) -> Result<BlobFacts, BlobError> {
        self.publish(&self.content(order)?, fence).await
    }
}

/// Size of a block of an upload in order.
fn block_size(number: u32) -> usize {
    BLOCK << (number / STEP)
}

/// Ends one of the tasks. False where there is none.
pub(super) async fn next(tasks: &mut JoinSet<Result<(), BlobError>>) -> Result<bool, BlobError> {
    let Some(ended) = tasks.join_next().await else { return Ok(false) };
    ended.map_err(io::Error::other)??;
    Ok(true)
}

/// Hashes on a thread that may.
async fn hashing<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, BlobError> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?)
}

/// A source behind a firewall cannot be read.
fn is_out_of_reach(error: &azure_core::Error) -> bool {
    let ErrorKind::HttpResponse { error_code, .. } = error.kind() else { return false };
    error_code.as_deref() == Some("CannotVerifyCopySource")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_file_fits_into_the_blocks_that_are_allowed() {
        assert_eq!(block_size(0), 8 << 20);
        let largest: u64 = (0..MAX_BLOCKS).map(|number| block_size(number) as u64).sum();
        assert!(largest > 2 << 40, "{largest}");
    }
}
