//! Codecs: turn tiles of pixels into the bytes of a TIFF's tiles.
//!
//! [`TileEncoder`] does one tile after the other in one thread and keeps its compressor and buffers;
//! [`Compression::tag`] and [`Compression::tags`] are what the file's header must say about it; [`choose()`] picks
//! the fastest level whose files are as small as GDAL's.
//!
//! The files are little-endian like the machine, so that samples are never swapped.

mod choose;
mod deflate;
mod encoder;
mod error;
mod format;
mod jpeg;
mod lzw;
mod predictor;
mod tags;
mod webp;
mod zstd;

pub use choose::{Family, choose};
pub use encoder::TileEncoder;
pub use error::CodecError;
pub use format::{Compression, DeflateLevel, GDAL_DEFLATE_LEVEL, GDAL_ZSTD_LEVEL, TileFormat};
pub use predictor::Predictor;
pub use tags::TagValue;

const _: () = assert!(cfg!(target_endian = "little"), "tiles are written in the machine's byte order");
