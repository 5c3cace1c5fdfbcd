//! The contract of zones, wherever they are.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::io::AsyncRead;

use crate::error::BlobError;
use crate::fence::Fence;
use crate::name::BlobRef;
use crate::staged::Staged;

/// A blob as the zone knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobFacts {
    /// Which blob.
    pub blob: BlobRef,
    /// Size in bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub last_modified: DateTime<Utc>,
    /// Changes with the content.
    pub etag: String,
}

/// All zones of a process.
#[async_trait]
pub trait Zones: Send + Sync + fmt::Debug {
    /// Names of the zones.
    fn names(&self) -> Vec<String>;

    /// Whether they are elsewhere, and may be away while this machine is well.
    fn are_remote(&self) -> bool {
        false
    }

    /// Asks whether they answer.
    ///
    /// # Errors
    /// [`BlobError::Unavailable`] where one does not.
    async fn reach(&self) -> Result<(), BlobError> {
        Ok(())
    }

    /// Facts of a blob.
    ///
    /// # Errors
    /// When the name is not valid or there is no such blob.
    async fn stat(&self, blob: &BlobRef) -> Result<BlobFacts, BlobError>;

    /// Blobs whose names begin with `prefix`, by name.
    ///
    /// # Errors
    /// When the zone or container name is not valid.
    async fn list(
        &self,
        zone: &str,
        container: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<BlobFacts>, BlobError>;

    /// Containers of a zone, by name.
    ///
    /// # Errors
    /// When there is no such zone.
    async fn containers(&self, zone: &str) -> Result<Vec<String>, BlobError>;

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// When the name is not valid or there is no such blob.
    async fn open(&self, blob: &BlobRef) -> Result<Source, BlobError>;

    /// Prepares what will become `target`.
    ///
    /// # Errors
    /// When the name is not valid, or there is no room for it.
    async fn create(&self, target: &BlobRef) -> Result<Output, BlobError>;

    /// Makes an output visible under its name at once and whole, replacing what was there. `fence` says for which attempt;
    /// none is a person's command.
    ///
    /// # Errors
    /// When it is not whole or cannot be published, or a later attempt has published; it is removed then.
    async fn publish(&self, output: Output, fence: Option<&Fence>) -> Result<BlobFacts, BlobError>;

    /// Writes a blob at once and whole; `fence` as for [`Self::publish`].
    ///
    /// # Errors
    /// When the name is not valid or the content cannot be read or written, or a later attempt has published.
    async fn write(
        &self,
        target: &BlobRef,
        content: &mut (dyn AsyncRead + Send + Unpin),
        fence: Option<&Fence>,
    ) -> Result<BlobFacts, BlobError>;

    /// Copies a blob without it passing through this machine, where the zones can; `fence` as for [`Self::publish`].
    ///
    /// # Errors
    /// As for [`Self::open`] and [`Self::write`].
    async fn copy(
        &self,
        source: &BlobRef,
        target: &BlobRef,
        fence: Option<&Fence>,
    ) -> Result<BlobFacts, BlobError>;

    /// Removes what dead processes left, and what nobody needs any more.
    async fn sweep(&self);
}

/// A blob that was opened.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file of this machine, resolved: it is within its zone.
    File(PathBuf),
    /// Something that is read in ranges.
    Object(Arc<dyn Object>),
}

/// A blob that is not a file of this machine. It is pinned: one that changes meanwhile is [`BlobError::Changed`].
#[async_trait]
pub trait Object: Send + Sync + fmt::Debug {
    /// As they were when it was opened.
    fn facts(&self) -> &BlobFacts;

    /// Reads `length` bytes from `offset` on, fewer at the end only.
    ///
    /// # Errors
    /// When the storage does not answer or the blob has changed.
    async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, BlobError>;
}

/// What will become a blob. What is dropped unpublished is removed, at once or by the next [`Zones::sweep`].
#[derive(Debug)]
pub enum Output {
    /// A file of this machine.
    File(Staged),
    /// Something that is uploaded in blocks.
    Object(Arc<dyn Upload>),
}

/// An output that is no file of this machine.
#[async_trait]
pub trait Upload: Send + Sync + fmt::Debug {
    /// Uploads a block under a number of the caller's; blocks come in any order and side by side.
    ///
    /// # Errors
    /// When the storage does not answer or is full.
    async fn block(&self, number: u32, bytes: Vec<u8>) -> Result<(), BlobError>;

    /// The output is its blocks in this order. It can be read from now on, and nobody else sees it before it is published.
    ///
    /// # Errors
    /// When the storage does not answer or lacks a block.
    async fn seal(&self, order: &[u32]) -> Result<Arc<dyn Object>, BlobError>;

    /// Makes the sealed output visible under its name: see [`Zones::publish`].
    ///
    /// # Errors
    /// As for [`Zones::publish`].
    async fn publish(&self, fence: Option<&Fence>) -> Result<BlobFacts, BlobError>;
}
