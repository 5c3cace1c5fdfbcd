//! What can go wrong with a codec.

use super::Predictor;
use crate::sample::SampleType;

/// Why a codec can't be set up, or a tile not be compressed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodecError {
    /// Readers would not understand this predictor with samples of this type.
    #[error("predictor {predictor:?} is not possible with samples of type {sample:?}")]
    PredictorType {
        /// The predictor asked for.
        predictor: Predictor,
        /// The type of the samples.
        sample: SampleType,
    },
    /// Only DEFLATE, ZSTD and LZW have predictors.
    #[error("{codec} does not work with predictor {predictor:?}")]
    PredictorCodec {
        /// Name of the codec.
        codec: &'static str,
        /// The predictor asked for.
        predictor: Predictor,
    },
    /// The codec has no way to store such pixels.
    #[error("{codec} can't store {samples} band(s) of type {sample:?}; it takes {takes}")]
    Pixels {
        /// Name of the codec.
        codec: &'static str,
        /// Type of the samples.
        sample: SampleType,
        /// Samples of a pixel.
        samples: usize,
        /// What the codec takes instead.
        takes: &'static str,
    },
    /// Tiles without pixels, or too big ones.
    #[error("{codec} can't have tiles of {width}x{height} pixels of {samples} samples; {limit}")]
    TileShape {
        /// Name of the codec.
        codec: &'static str,
        /// Width of a tile in pixels.
        width: usize,
        /// Height of a tile in pixels.
        height: usize,
        /// Samples of a pixel.
        samples: usize,
        /// What is possible.
        limit: &'static str,
    },
    /// A setting outside of its range.
    #[error("{setting} must be {range}, not {value}")]
    Setting {
        /// Name of the setting.
        setting: &'static str,
        /// Its range.
        range: &'static str,
        /// What was asked for.
        value: f64,
    },
    /// A buffer that is not one whole tile.
    #[error("a tile has {expected} bytes, but {found} came")]
    TileBytes {
        /// Bytes of a tile.
        expected: usize,
        /// Bytes that came.
        found: usize,
    },
    /// The library that compresses said no.
    #[error("{codec} failed: {message}")]
    Engine {
        /// Name of the codec.
        codec: &'static str,
        /// What the library says.
        message: String,
    },
}

impl CodecError {
    pub(super) fn engine(codec: &'static str, message: impl std::fmt::Display) -> Self {
        Self::Engine { codec, message: message.to_string() }
    }
}
