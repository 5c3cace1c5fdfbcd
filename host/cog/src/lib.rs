//! Single-pass streaming encoder of Cloud Optimized GeoTIFFs.
//!
//! [`encode`] reads each pixel once from a [`Source`], makes all overviews while rows stream through, compresses each tile
//! once on a pool of threads and writes a COG into a [`sink::Sink`]. It knows nothing of GDAL: whoever calls it brings the pixels
//! and the fields that describe them.

mod assembly;
pub mod codec;
mod directories;
mod encoder;
mod error;
mod lent;
mod levels;
pub mod overview;
mod raster;
pub mod sample;
pub mod sink;
mod spool;
pub mod tiff;
mod tile;
mod worker;

pub use encoder::{encode, memory, tiles_under_way};
pub use error::EncodeError;
pub use levels::overview_sizes;
pub use raster::{Encoding, Raster, Source, Summary};
pub use tile::sample_tiles;
