//! Overviews of a raster, made as a cascade while its rows stream through.
//!
//! The rules are those of GDAL's COG driver: level `k + 1` is computed from the (already rounded)
//! samples of level `k`, and each pixel of a level covers `source size / level size` source pixels,
//! where sizes are halved by integer division, so that odd sizes give fractional weights. Facts were
//! taken from GDAL's `gcore/overview.cpp`, `gcore/gdalnodatamaskband.cpp` and
//! `frmts/gtiff/cogdriver.cpp`, and checked against GDAL 3.6.2 and 3.10.3.
//!
//! GDAL 3.6.2 resamples 32- and 64-bit integers and doubles as `f32`. This module follows newer
//! versions, which keep their precision.

mod average;
mod axis;
mod cascade;
mod convolve;
mod filter;
mod gauss;
mod level;
mod mode;
mod nearest;
mod nodata;
mod number;
mod palette;
mod rms;
mod source;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::sample::{SampleType, Samples};

pub use cascade::Cascade;

/// How the pixels of a level are made from those of the level below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resampling {
    /// The source pixel at `0.5 + pixel * ratio`. The only one for complex samples.
    Nearest,
    /// Mean of the source pixels, those at the border weighted by their share.
    Average,
    /// Triangle kernel of one pixel of the level.
    Bilinear,
    /// Cubic convolution kernel (a = -0.5) of two pixels of the level.
    Cubic,
    /// The most frequent value; of those, the one which reached its number first in reading order.
    Mode,
    /// Root of the mean square.
    Rms,
    /// 3x3 (5x5, 7x7 for large ratios) binomial kernel.
    Gauss,
}

/// A value that says "no data here".
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Nodata {
    /// For every type but the 64-bit integers. Exact for those up to 2^53.
    Float(f64),
    /// For `i64`, exact.
    Int(i64),
    /// For `u64`, exact.
    UInt(u64),
}

/// One band.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Band {
    /// Value without data. A GeoTIFF has one for all bands.
    pub nodata: Option<Nodata>,
    /// Whether this band holds the opacity of the others.
    pub alpha: bool,
}

/// One colour of a palette: red, green, blue, alpha, 0 to 255.
pub type Colour = [u8; 4];

/// What is to be resampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Type of the samples of all bands.
    pub sample: SampleType,
    /// Bands, in order; at least one.
    pub bands: Vec<Band>,
    /// Whether there is a mask of the data set (`u8`, 0 or 255), as one more plane after the bands.
    pub mask: bool,
    /// Colour table of the first band.
    pub palette: Option<Vec<Colour>>,
}

/// Some rows of all planes: the bands, then the mask (if any).
#[derive(Debug, Clone, Default)]
pub struct Strip {
    /// Index of the first row in its level.
    pub first_row: usize,
    /// Number of rows.
    pub rows: usize,
    /// Pixels of a row.
    pub width: usize,
    /// For each plane, at least `rows * width` samples, row by row.
    pub planes: Vec<Samples>,
}

impl Strip {
    /// Rows of zeros for all planes of an image, `width` pixels long, from its row 0 on.
    #[must_use]
    pub fn zeroed(image: &Image, width: usize, rows: usize) -> Self {
        let pixels = rows * width;
        let mut planes = vec![Samples::zeroed(pixels * image.sample.bytes()); image.bands.len()];
        if image.mask {
            planes.push(Samples::zeroed(pixels));
        }
        Self { first_row: 0, rows, width, planes }
    }
}

/// Why overviews cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// This method is not done for this kind of image. GDAL's own overviews are to be used.
    Unsupported(&'static str),
    /// The nodata value is no value of the sample type, where GDAL's result is not defined.
    Nodata,
    /// An argument does not fit: an empty image or level, a level larger than the one before.
    Invalid(&'static str),
    /// A strip does not follow the previous one, or its size does not fit the image.
    Strip(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsupported(what) => write!(f, "overviews not supported: {what}"),
            Self::Nodata => write!(f, "overviews not supported: nodata value outside of the sample type"),
            Self::Invalid(what) => write!(f, "overviews: {what}"),
            Self::Strip(what) => write!(f, "overviews: strip of rows: {what}"),
        }
    }
}

impl std::error::Error for Error {}
