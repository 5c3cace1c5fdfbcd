//! The supervisor's end of the channel by which a native process reads an object (see `geoworker_raster::channel`).

use std::io;
use std::sync::Arc;

use geoworker_blobs::Object;
use geoworker_raster::RasterError;
use geoworker_raster::channel::{FAILED, FOUND, LONGEST, QUESTION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Mutex;

use crate::read_ahead::ReadAhead;
use crate::submit::blob_error;

/// Answers a process's questions until it ends.
pub(crate) async fn answer(
    object: Arc<dyn Object>,
    mut questions: OwnedReadHalf,
    answers: Arc<Mutex<OwnedWriteHalf>>,
) {
    let mut reader = ReadAhead::new(object);
    // It ends with the process: the socket is closed then.
    while answer_one(&mut reader, &mut questions, &answers).await.is_ok() {}
}

async fn answer_one(
    reader: &mut ReadAhead,
    questions: &mut OwnedReadHalf,
    answers: &Mutex<OwnedWriteHalf>,
) -> io::Result<()> {
    let offset = questions.read_u64_le().await?;
    let length = questions.read_u32_le().await? as usize;
    let (status, bytes) = match reader.read(offset, length.min(LONGEST)).await {
        Ok(bytes) => (FOUND, bytes),
        Err(error) => {
            let info = blob_error(&error);
            let error =
                RasterError { code: info.code, message: info.message, class: info.class.as_str().into() };
            (FAILED, serde_json::to_vec(&error)?)
        }
    };
    let mut head = [status; 5];
    head[1..].copy_from_slice(&u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes());
    let mut answers = answers.lock().await;
    answers.write_all(&head).await?;
    answers.write_all(&bytes).await
}

const _: () =
    assert!(QUESTION == size_of::<u64>() + size_of::<u32>(), "a question is an offset and a length");
