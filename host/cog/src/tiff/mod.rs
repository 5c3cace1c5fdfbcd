//! The head of a TIFF: header, GDAL's declaration of the layout, directories and where their tiles are.

mod field;
mod head;

pub use field::{Field, Kind};
pub(crate) use head::{Directory, Head, TilePlace};
