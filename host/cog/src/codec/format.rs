//! Shape of the tiles of one image, and what they are compressed with.

use super::{CodecError, Predictor};
use crate::sample::SampleType;

/// What all tiles of an image have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TileFormat {
    /// Type of every sample.
    pub sample: SampleType,
    /// Samples of a pixel; they lie next to each other.
    pub samples: usize,
    /// Width of a tile in pixels.
    pub width: usize,
    /// Height of a tile in pixels.
    pub height: usize,
    /// What is done to rows before the codec sees them.
    pub predictor: Predictor,
}

impl TileFormat {
    /// Bytes of one tile. A COG's leader counts them in 32 bits, so that more than 4 GiB are refused where
    /// an encoder is made.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.width.saturating_mul(self.height).saturating_mul(self.pixel_bytes())
    }

    /// Bytes of one pixel.
    #[must_use]
    pub const fn pixel_bytes(&self) -> usize {
        self.samples.saturating_mul(self.sample.bytes())
    }

    pub(super) fn check(&self, codec: &'static str) -> Result<(), CodecError> {
        let bytes = self.bytes();
        if bytes == 0 || bytes > MAX_TILE_BYTES {
            let limit = "they must have between 1 byte and 1 GiB";
            let Self { samples, width, height, .. } = *self;
            return Err(CodecError::TileShape { codec, width, height, samples, limit });
        }
        Ok(())
    }
}

/// Leaves room for codecs that make noise a little longer (LZW: 1.5x) below the 4 GiB of a COG's tile.
const MAX_TILE_BYTES: usize = 1 << 30;

/// How tiles are compressed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Compression {
    /// As they are.
    None,
    /// DEFLATE in zlib's format.
    Deflate(DeflateLevel),
    /// Zstandard.
    Zstd {
        /// 1 (fast) to 22 (small); GDAL's default is [`GDAL_ZSTD_LEVEL`].
        level: i32,
    },
    /// LZW in TIFF's flavour.
    Lzw,
    /// Baseline JPEG: grey, or colour with chroma at half the size. Has losses.
    Jpeg {
        /// 1 to 100 as in libjpeg; GDAL's default is 75.
        quality: u8,
    },
    /// WEBP of red, green, blue and perhaps alpha.
    Webp {
        /// 0 to 100; GDAL's default is 75. Without losses it is the effort.
        quality: u8,
        /// Whether all pixels come back as they were.
        lossless: bool,
    },
}

/// Engine and level for DEFLATE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeflateLevel {
    /// This crate's own encoder: 1.5 to 7 times faster than libdeflate's level 6. Smaller on noisy rasters (-4 % on
    /// aerial-like colours, -1 % on a Landsat scene and on 16-bit bands), up to 25 % larger on smooth ones.
    Fast,
    /// libdeflate with its level: 1 (fast) to 12 (small); GDAL's default is [`GDAL_DEFLATE_LEVEL`].
    Libdeflate(u8),
}

/// Level of GDAL's DEFLATE if nothing is asked for (GDAL 3.6 to 3.12 with libdeflate).
pub const GDAL_DEFLATE_LEVEL: u8 = 6;
/// Level of GDAL's ZSTD if nothing is asked for (GDAL 3.6 to 3.12).
pub const GDAL_ZSTD_LEVEL: i32 = 9;

impl Compression {
    /// Name for messages, as GDAL's option COMPRESS has it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Deflate(_) => "DEFLATE",
            Self::Zstd { .. } => "ZSTD",
            Self::Lzw => "LZW",
            Self::Jpeg { .. } => "JPEG",
            Self::Webp { .. } => "WEBP",
        }
    }

    /// Whether a predictor other than [`Predictor::None`] is possible.
    #[must_use]
    pub const fn takes_predictor(&self) -> bool {
        matches!(self, Self::Deflate(_) | Self::Zstd { .. } | Self::Lzw)
    }
}
