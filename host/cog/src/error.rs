//! What can go wrong.

use std::io;

use crate::codec::CodecError;
use crate::overview;

/// Why no COG was made. `E` is the source's own error.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError<E: std::error::Error + 'static> {
    /// The source could not be read.
    #[error(transparent)]
    Source(E),
    /// The codec cannot hold this raster.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The overviews cannot be made.
    #[error(transparent)]
    Overview(#[from] overview::Error),
    /// The result could not be written.
    #[error("the result cannot be written: {0}")]
    Write(#[from] io::Error),
    /// The caller wanted no more.
    #[error("cancelled")]
    Cancelled,
    /// A thread of the encoder ended unexpectedly; a bug.
    #[error("a thread of the encoder ended unexpectedly")]
    Thread,
}
