//! GDAL operations on rasters: inspect, statistics, Cloud Optimized GeoTIFFs, validation, previews.
//!
//! Blocking, without async, usable on its own. [`native`] wraps the operations for a supervised child process.

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
pub mod preview;
mod source;
pub mod statistics;
mod stream;
pub mod tiff;
pub mod validate;
mod verify;

pub use environment::{configure, gdal_version};
pub use error::RasterError;
