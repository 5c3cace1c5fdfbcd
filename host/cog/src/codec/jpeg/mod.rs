//! Baseline JPEG: a whole stream for each tile, so that no tag JPEGTables is needed.
//!
//! The engine is the system's libjpeg-turbo: 2.5 to 3.5 times faster than the Rust crate `jpeg-encoder` with AVX2.

use super::{CodecError, TileFormat};
use crate::sample::SampleType;
use std::ffi::{CStr, c_char, c_int};

const CODEC: &str = "JPEG";

/// Grey, or colour as YCbCr with chroma averaged over 2x2 pixels like libtiff's.
pub(super) struct Jpeg {
    width: u16,
    height: u16,
    samples: u8,
    quality: u8,
    /// Room for the longest JPEG: `out` gets just what was written.
    buffer: Vec<u8>,
    message: Vec<c_char>,
}

impl Jpeg {
    pub(super) fn new(format: &TileFormat, quality: u8) -> Result<Self, CodecError> {
        if !(1..=100).contains(&quality) {
            let (setting, range) = ("quality of JPEG", "1 to 100");
            return Err(CodecError::Setting { setting, range, value: f64::from(quality) });
        }
        let TileFormat { sample, samples, width, height, .. } = *format;
        if sample != SampleType::U8 || !matches!(samples, 1 | 3) {
            let takes = "1 or 3 bands of type U8";
            return Err(CodecError::Pixels { codec: CODEC, sample, samples, takes });
        }
        let (Ok(w), Ok(h)) = (width.try_into(), height.try_into()) else {
            let limit = "65535 pixels are the most in each direction";
            return Err(CodecError::TileShape { codec: CODEC, width, height, samples, limit });
        };
        let buffer = vec![0; most_bytes(w, h, samples)];
        let message = vec![0; message_bytes()];
        Ok(Self { width: w, height: h, samples: samples as u8, quality, buffer, message })
    }

    /// `pixels` are one tile of the format.
    pub(super) fn compress(&mut self, pixels: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let written = self.encode(pixels)?;
        out.extend_from_slice(&self.buffer[..written]);
        Ok(())
    }

    #[expect(unsafe_code, reason = "calls libjpeg through a shim in C")]
    fn encode(&mut self, pixels: &[u8]) -> Result<usize, CodecError> {
        let expected = usize::from(self.width) * usize::from(self.height) * usize::from(self.samples);
        if pixels.len() != expected {
            return Err(CodecError::TileBytes { expected, found: pixels.len() });
        }
        // SAFETY: `pixels` has the bytes of width x height x samples as just checked; the shim writes at most
        // `buffer.len()` bytes to `buffer` and a text with its 0 of at most `message_bytes()`, the length of `message`.
        let (written, message) = unsafe {
            let written = geoworker_jpeg(
                pixels.as_ptr(),
                self.width.into(),
                self.height.into(),
                self.samples.into(),
                self.quality.into(),
                self.buffer.as_mut_ptr(),
                self.buffer.len(),
                self.message.as_mut_ptr(),
            );
            (written, CStr::from_ptr(self.message.as_ptr()))
        };
        if written == 0 {
            return Err(CodecError::engine(CODEC, message.to_string_lossy()));
        }
        Ok(written)
    }
}

/// More than a JPEG ever takes: 2 bytes for each sample of whole blocks of 16x16, and the headers.
fn most_bytes(width: u16, height: u16, samples: usize) -> usize {
    let whole = |pixels: u16| usize::from(pixels).next_multiple_of(16);
    whole(width) * whole(height) * samples * 2 + 4096
}

#[expect(unsafe_code, reason = "calls libjpeg's shim in C")]
fn message_bytes() -> usize {
    // SAFETY: answers a constant.
    unsafe { geoworker_jpeg_message_bytes() }
}

#[expect(unsafe_code, reason = "declares libjpeg's shim in C")]
// SAFETY: as in shim.c.
unsafe extern "C" {
    fn geoworker_jpeg_message_bytes() -> usize;
    fn geoworker_jpeg(
        pixels: *const u8,
        width: u32,
        height: u32,
        samples: c_int,
        quality: c_int,
        out: *mut u8,
        capacity: usize,
        message: *mut c_char,
    ) -> usize;
}
