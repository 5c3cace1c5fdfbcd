//! GDAL operations on rasters: inspect, statistics, Cloud Optimized GeoTIFFs, validation, previews.
//!
//! Blocking, without async, usable on its own. [`native`] wraps the operations for a supervised child process.

pub mod channel;
pub mod cog;
pub mod encoding;
mod environment;
mod error;
pub mod estimate;
mod ffi;
pub mod footprint;
pub mod inspect;
pub mod model;
pub mod native;
mod object;
mod output;
pub mod preview;
mod source;
pub mod statistics;
mod stream;
pub mod tiff;
pub mod validate;
mod verify;
mod virtual_file;

pub use environment::{configure, gdal_version};
pub use error::RasterError;
pub use object::{OUTPUT_OBJECT, ObjectFacts, Remote, SOURCE_OBJECT, connect};
