//! TIFF tags that depend on the codec.

use super::{Compression, TileFormat};

/// Value of a TIFF tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagValue {
    /// TIFF type SHORT (3).
    Short(Vec<u16>),
    /// TIFF type RATIONAL (5): numerators and denominators.
    Rational(Vec<(u32, u32)>),
}

const PHOTOMETRIC: u16 = 262;
const YCBCR_SUBSAMPLING: u16 = 530;
const REFERENCE_BLACK_WHITE: u16 = 532;

const PHOTOMETRIC_YCBCR: u16 = 6;

impl Compression {
    /// The value of the TIFF tag Compression (259).
    #[must_use]
    pub const fn tag(&self) -> u16 {
        match self {
            Self::None => 1,
            Self::Lzw => 5,
            Self::Jpeg { .. } => 7,
            Self::Deflate(_) => 8,
            Self::Zstd { .. } => 50000,
            Self::Webp { .. } => 50001,
        }
    }

    /// Further tags that the codec needs, by number, ascending. Those that the writer of the file would set
    /// itself (PhotometricInterpretation of a JPEG of three bands) replace the writer's.
    #[must_use]
    pub fn tags(&self, format: &TileFormat) -> Vec<(u16, TagValue)> {
        match self {
            Self::Jpeg { .. } if format.samples == 3 => ycbcr_tags(),
            _ => Vec::new(),
        }
    }
}

/// As libtiff's: chroma at half the width and height, all of 0 to 255 used, 128 in the middle of chroma.
fn ycbcr_tags() -> Vec<(u16, TagValue)> {
    let reference = [0, 255, 128, 255, 128, 255].map(|value| (value, 1));
    vec![
        (PHOTOMETRIC, TagValue::Short(vec![PHOTOMETRIC_YCBCR])),
        (YCBCR_SUBSAMPLING, TagValue::Short(vec![2, 2])),
        (REFERENCE_BLACK_WHITE, TagValue::Rational(reference.to_vec())),
    ]
}
