//! Copies. The service reads the blocks itself where it can, from whatever account; else they pass through this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use super::client::{Client, quoted};
use super::object::AzureObject;
use super::upload::{BlockUpload, PARALLEL, Range, next};
use crate::error::BlobError;
use crate::name::BlobRef;
use crate::zones::Object;

/// Least size of blocks. Each is in memory where it passes through.
const BLOCK: u64 = 16 << 20;
/// Most blocks of a copy.
const BLOCKS: u64 = 40_000;

/// A copy that is under way.
#[derive(Debug)]
pub(super) struct Copy {
    account: Client,
    source: AzureObject,
    upload: Arc<BlockUpload>,
    /// The service reads the source itself.
    direct: AtomicBool,
}

impl Copy {
    /// From a blob of `account`.
    pub(super) async fn open(
        account: Client,
        source: &BlobRef,
        upload: Arc<BlockUpload>,
    ) -> Result<Self, BlobError> {
        let source = AzureObject::open(account.blob(source)?).await?;
        let direct = AtomicBool::new(!account.is_emulator());
        Ok(Self { account, source, upload, direct })
    }

    /// Copies all of it; answers the order of the blocks.
    pub(super) async fn run(self) -> Result<Vec<u32>, BlobError> {
        let copy = Arc::new(self);
        let size = copy.source.facts().size_bytes;
        let block = BLOCK.max(size.div_ceil(BLOCKS));
        let mut under_way = JoinSet::new();
        let mut order = Vec::new();
        for (number, offset) in (0_u32..).zip((0..size).step_by(usize::try_from(block).unwrap_or(usize::MAX)))
        {
            if under_way.len() == PARALLEL {
                next(&mut under_way).await?;
            }
            let length = usize::try_from(block.min(size - offset)).unwrap_or(usize::MAX);
            let copy = copy.clone();
            under_way.spawn(async move { copy.block(number, offset, length).await });
            order.push(number);
        }
        while next(&mut under_way).await? {}
        Ok(order)
    }

    async fn block(&self, number: u32, offset: u64, length: usize) -> Result<(), BlobError> {
        let facts = self.source.facts();
        if self.direct.load(Ordering::Relaxed) {
            let (address, authorization) = self.account.readable(&facts.blob).await?;
            let range = Range { address, authorization, etag: quoted(&facts.etag), offset, length };
            match self.upload.block_from(number, range).await {
                Ok(true) => return Ok(()),
                Ok(false) => self.direct.store(false, Ordering::Relaxed),
                // The only condition is on the source.
                Err(BlobError::Changed(_)) => return Err(BlobError::Changed(facts.blob.to_string())),
                Err(error) => return Err(error),
            }
        }
        let bytes = self.source.read(offset, length).await?;
        self.upload.block(number, bytes).await
    }
}
