//! The supervisor's end of the channel by which a native process reads and writes objects (see `geoworker_raster::channel`).

use std::io;
use std::sync::Arc;

use geoworker_blobs::{BlobError, BlobFacts, Object, Upload};
use geoworker_machine::{ErrorInfo, codes};
use geoworker_raster::channel::{Ask, DONE, FAILED, LONGEST_PAYLOAD, LONGEST_RANGE, QUESTION};
use geoworker_raster::{ObjectFacts, RasterError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::read_ahead::{READ_AHEAD_BYTES, ReadAhead};
use crate::submit::blob_error;

/// Bytes of a block, as the process makes them.
const BLOCK_BYTES: u64 = 8 << 20;
/// Blocks that are uploaded at a time.
const UPLOADS: usize = 4;

/// The objects of one operation.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// Its source, where that is no file; the process finds it at `geoworker_raster::SOURCE_OBJECT`.
    pub source: Option<Arc<dyn Object>>,
    /// Its output, where that is no file; the process writes it to `geoworker_raster::OUTPUT_OBJECT`.
    pub output: Option<Arc<dyn Upload>>,
}

impl Objects {
    /// Memory that the supervisor needs to read ahead and to upload.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        let read = if self.source.is_some() { READ_AHEAD_BYTES } else { 0 };
        // Blocks that are sent, and the output that is read back.
        let written = if self.output.is_some() { UPLOADS as u64 * BLOCK_BYTES + READ_AHEAD_BYTES } else { 0 };
        read + written
    }

    pub(crate) fn source_facts(&self) -> Option<ObjectFacts> {
        self.source.as_ref().map(|source| facts(source.facts()))
    }
}

fn facts(facts: &BlobFacts) -> ObjectFacts {
    ObjectFacts { size_bytes: facts.size_bytes, last_modified: facts.last_modified }
}

/// Answers a process's questions until it ends.
pub(crate) async fn answer(
    objects: Objects,
    mut questions: OwnedReadHalf,
    answers: Arc<Mutex<OwnedWriteHalf>>,
) {
    let mut desk = Desk {
        source: objects.source.map(ReadAhead::new),
        output: objects.output,
        sealed: None,
        uploads: JoinSet::new(),
    };
    // It ends with the process: the socket is closed then.
    while desk.answer_one(&mut questions, &answers).await.is_ok() {}
}

/// What is under way for a process.
struct Desk {
    source: Option<ReadAhead>,
    output: Option<Arc<dyn Upload>>,
    /// The output, once it is whole.
    sealed: Option<ReadAhead>,
    uploads: JoinSet<Result<(), BlobError>>,
}

impl Desk {
    async fn answer_one(
        &mut self,
        questions: &mut OwnedReadHalf,
        answers: &Mutex<OwnedWriteHalf>,
    ) -> io::Result<()> {
        let mut question = [0; QUESTION];
        questions.read_exact(&mut question).await?;
        let [ask, number @ .., a, b, c, d] = question;
        let ask = Ask::from_byte(ask).ok_or(io::ErrorKind::InvalidData)?;
        let (number, length) = (u64::from_le_bytes(number), u32::from_le_bytes([a, b, c, d]) as usize);
        let mut payload = Vec::new();
        if matches!(ask, Ask::PutBlock | Ask::Seal) {
            if length > LONGEST_PAYLOAD {
                return Err(io::ErrorKind::InvalidData.into());
            }
            payload = vec![0; length];
            questions.read_exact(&mut payload).await?;
        }
        let (status, bytes) = match self.done(ask, number, length, payload).await {
            Ok(bytes) => (DONE, bytes),
            Err(info) => {
                let ErrorInfo { code, message, class, .. } = info;
                let error = RasterError { code, message, class: class.as_str().into() };
                (FAILED, serde_json::to_vec(&error)?)
            }
        };
        let mut head = [status; 5];
        head[1..].copy_from_slice(&u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes());
        let mut answers = answers.lock().await;
        answers.write_all(&head).await?;
        answers.write_all(&bytes).await
    }

    async fn done(
        &mut self,
        ask: Ask,
        number: u64,
        length: usize,
        payload: Vec<u8>,
    ) -> Result<Vec<u8>, ErrorInfo> {
        let done = match ask {
            Ask::ReadSource => read(self.source.as_mut(), number, length).await,
            Ask::ReadOutput => read(self.sealed.as_mut(), number, length).await,
            Ask::PutBlock => self.put(number, payload).await.map(|()| Vec::new()),
            Ask::Seal => return self.seal(&payload).await,
        };
        done.map_err(|error| blob_error(&error))
    }

    /// Begins to upload a block; waits while others are under way.
    async fn put(&mut self, number: u64, bytes: Vec<u8>) -> Result<(), BlobError> {
        while self.uploads.len() >= UPLOADS {
            self.uploaded().await?;
        }
        let output = self.output.clone().ok_or_else(not_there)?;
        let number = u32::try_from(number).map_err(io::Error::other)?;
        self.uploads.spawn(async move { output.block(number, bytes).await });
        Ok(())
    }

    /// Waits for one block.
    async fn uploaded(&mut self) -> Result<(), BlobError> {
        match self.uploads.join_next().await {
            Some(joined) => joined.map_err(io::Error::other)?,
            None => Ok(()),
        }
    }

    async fn seal(&mut self, order: &[u8]) -> Result<Vec<u8>, ErrorInfo> {
        let sealed = async {
            while !self.uploads.is_empty() {
                self.uploaded().await?;
            }
            let numbers = order.chunks_exact(4).map(|n| u32::from_le_bytes([n[0], n[1], n[2], n[3]]));
            let order: Vec<u32> = numbers.collect();
            self.output.clone().ok_or_else(not_there)?.seal(&order).await
        };
        let object = sealed.await.map_err(|error| blob_error(&error))?;
        let facts = serde_json::to_vec(&facts(object.facts()));
        self.sealed = Some(ReadAhead::new(object));
        facts.map_err(|error| ErrorInfo::transient(codes::NATIVE_PROTOCOL, error.to_string()))
    }
}

async fn read(object: Option<&mut ReadAhead>, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
    object.ok_or_else(not_there)?.read(offset, length.min(LONGEST_RANGE)).await
}

fn not_there() -> BlobError {
    BlobError::NotFound("an object that the operation was not given".into())
}
