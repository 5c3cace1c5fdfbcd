//! WEBP with or without losses.

use super::{CodecError, TileFormat};
use crate::sample::SampleType;
use webp::{Encoder, PixelLayout, WebPConfig};

const CODEC: &str = "WEBP";
/// WEBP's own limit.
const LONGEST_SIDE: usize = 16383;

/// libwebp with the settings of libtiff.
pub(super) struct Webp {
    width: u32,
    height: u32,
    layout: PixelLayout,
    config: WebPConfig,
}

impl Webp {
    pub(super) fn new(format: &TileFormat, quality: u8, lossless: bool) -> Result<Self, CodecError> {
        if quality > 100 {
            let (setting, range) = ("quality of WEBP", "0 to 100");
            return Err(CodecError::Setting { setting, range, value: f64::from(quality) });
        }
        let TileFormat { sample, samples, width, height, .. } = *format;
        let layout = match (sample, samples) {
            (SampleType::U8, 3) => PixelLayout::Rgb,
            (SampleType::U8, 4) => PixelLayout::Rgba,
            _ => {
                let takes = "3 or 4 bands of type U8";
                return Err(CodecError::Pixels { codec: CODEC, sample, samples, takes });
            }
        };
        if width.max(height) > LONGEST_SIDE {
            let limit = "16383 pixels are the most in each direction";
            return Err(CodecError::TileShape { codec: CODEC, width, height, samples, limit });
        }
        let mut config = WebPConfig::new().map_err(|()| CodecError::engine(CODEC, "version mismatch"))?;
        config.quality = f32::from(quality);
        config.lossless = lossless.into();
        // Colours below transparent pixels come back too.
        config.exact = lossless.into();
        Ok(Self { width: width as u32, height: height as u32, layout, config })
    }

    pub(super) fn compress(&mut self, pixels: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let encoder = Encoder::new(pixels, self.layout, self.width, self.height);
        let encoded = encoder
            .encode_advanced(&self.config)
            .map_err(|error| CodecError::engine(CODEC, format!("{error:?}")))?;
        out.extend_from_slice(&encoded);
        Ok(())
    }
}
