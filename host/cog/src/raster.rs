//! What is encoded, and how.

use std::path::PathBuf;

use crate::codec::{Compression, Predictor};
use crate::overview::{Image, Resampling, Strip};
use crate::tiff::Field;

/// A raster and what its file says about it.
#[derive(Debug, Clone)]
pub struct Raster {
    /// Size, type, bands and mask.
    pub image: Image,
    /// A sample that says "nothing here", in native byte order, in the first bytes: tiles that hold nothing else are not
    /// stored, and readers make them up again. None where every tile is to be stored.
    pub fill: Option<[u8; 16]>,
    /// Fields that every image of the file has: photometric interpretation, colour map, extra samples, nodata.
    pub shared: Vec<Field>,
    /// Fields that only the full resolution has: georeference, metadata.
    pub own: Vec<Field>,
}

/// How to encode.
#[derive(Debug, Clone)]
pub struct Encoding {
    /// Codec and level of the tiles.
    pub compression: Compression,
    /// What is done to rows before the codec sees them.
    pub predictor: Predictor,
    /// Edge of a tile: a power of two from 128.
    pub block: usize,
    /// How overviews are made.
    pub resampling: Resampling,
    /// Threads that compress; at least 1.
    pub threads: usize,
    /// Bytes of compressed overviews that are kept in memory; what is beyond goes to a file in `scratch`.
    pub spool_bytes: usize,
    /// Folder for that file.
    pub scratch: PathBuf,
}

/// Where the pixels come from.
pub trait Source: Send {
    /// Why they do not come.
    type Error: std::error::Error + Send + 'static;

    /// Fills the strip: its rows from `first_row`, all planes. Strips are asked for once each, in order.
    ///
    /// # Errors
    /// Where the pixels cannot be read; nothing more is asked for then.
    fn read(&mut self, strip: &mut Strip) -> Result<(), Self::Error>;
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the file.
    pub bytes: u64,
    /// Sizes of the overviews, largest first.
    pub overviews: Vec<(usize, usize)>,
    /// Tiles that hold nothing and were not stored.
    pub empty_tiles: u64,
    /// 64-bit offsets.
    pub big: bool,
}
