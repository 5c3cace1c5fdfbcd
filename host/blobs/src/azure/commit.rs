//! Making a blob visible, fenced.
//!
//! The blob's own metadata says which attempt published it. A publication looks at it, and commits on the condition that the
//! blob is still the one it looked at; else it looks again. So of two attempts the later one wins in whatever order they
//! commit, and an attempt whose answer got lost finds itself and may commit once more.

use std::collections::HashMap;

use azure_core::error::ErrorKind;
use azure_core::http::{Etag, RequestContent};
use azure_storage_blob::models::{
    BlockBlobClientCommitBlockListOptions, BlockBlobClientCommitBlockListResultHeaders as _, BlockLookupList,
};

use super::client::{Blob, Properties, facts, quoted};
use super::error::failed;
use crate::error::BlobError;
use crate::fence::Fence;
use crate::zones::BlobFacts;

/// Looks before giving up: each needs another publication of the same blob in between.
const LOOKS: usize = 8;

const OWNER: &str = "geoworker_owner";
const EPOCH: &str = "geoworker_epoch";
const CLAIMED: &str = "geoworker_claimed";

/// What becomes of uploaded blocks.
#[derive(Debug)]
pub(super) struct Content {
    /// Blocks, in order.
    pub(super) blocks: Vec<Vec<u8>>,
    pub(super) size_bytes: u64,
    /// Of the whole, where it was read in order.
    pub(super) md5: Option<Vec<u8>>,
}

/// Refuses an attempt that was overtaken, before anything is uploaded for nothing.
pub(super) async fn check(blob: &Blob, fence: Option<&Fence>) -> Result<(), BlobError> {
    look(blob, fence).await.map(|_| ())
}

/// Makes the content visible.
pub(super) async fn commit(
    blob: &Blob,
    content: &Content,
    fence: Option<&Fence>,
) -> Result<BlobFacts, BlobError> {
    let client = blob.client.block_blob_client();
    let failed = |error| failed(&error, &blob.blob);
    for _ in 0..LOOKS {
        let last = look(blob, fence).await?;
        let blocks = BlockLookupList { latest: Some(content.blocks.clone()), ..Default::default() };
        let mut options = BlockBlobClientCommitBlockListOptions {
            blob_content_md5: content.md5.clone(),
            metadata: Some(metadata(fence, last.as_ref())),
            ..Default::default()
        };
        // A person's command, too: it keeps the fence that was there, which must be the last one.
        match &last {
            Some(last) => options.if_match = Some(quoted(&last.facts.etag)),
            None => options.if_none_match = Some(Etag::from("*")),
        }
        let blocks = RequestContent::try_from(blocks).map_err(failed)?;
        match client.commit_block_list(blocks, Some(options)).await {
            Ok(done) => {
                let (etag, modified) = (done.etag().map_err(failed)?, done.last_modified().map_err(failed)?);
                return Ok(facts(blob.blob.clone(), content.size_bytes, etag.as_ref(), modified));
            }
            Err(error) if is_overtaken(&error) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(BlobError::Busy)
}

/// What is there, unless a later attempt put it there.
async fn look(blob: &Blob, fence: Option<&Fence>) -> Result<Option<Properties>, BlobError> {
    let last = match blob.properties().await {
        Ok(last) => last,
        // Of the container, the upload itself will tell.
        Err(BlobError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let published = publisher(&last.metadata);
    if fence.zip(published).is_some_and(|(fence, published)| fence.is_behind(&published)) {
        return Err(BlobError::Fenced);
    }
    Ok(Some(last))
}

/// Somebody else committed since we looked.
fn is_overtaken(error: &azure_core::Error) -> bool {
    let ErrorKind::HttpResponse { status, error_code, .. } = error.kind() else { return false };
    u16::from(*status) == 412 || error_code.as_deref() == Some("BlobAlreadyExists")
}

/// Names the attempt. A person's command keeps who was there, so that an attempt asleep stays refused.
fn metadata(fence: Option<&Fence>, last: Option<&Properties>) -> HashMap<String, String> {
    let kept = last.and_then(|last| publisher(&last.metadata));
    let Some(fence) = fence.cloned().or(kept) else { return HashMap::new() };
    [(OWNER, fence.owner), (EPOCH, fence.epoch.to_string()), (CLAIMED, fence.claimed_at.to_string())]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
}

/// Who published a blob. None for blobs of others.
fn publisher(metadata: &HashMap<String, String>) -> Option<Fence> {
    let number = |key| metadata.get(key).and_then(|value| value.parse().ok());
    let owner = metadata.get(OWNER)?.clone();
    Some(Fence { owner, epoch: number(EPOCH)?, claimed_at: number(CLAIMED)? })
}
