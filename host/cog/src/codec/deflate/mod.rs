//! DEFLATE in zlib's format (RFC 1950, 1951): this crate's [`Fast`], and libdeflate for what must become smaller.
//!
//! ISA-L's igzip was measured, too: where its output is small enough for [`choose`](super::choose()), `Fast` is about as
//! fast and smaller, so that the library and its assembler are not worth their place.

mod bits;
mod block;
mod fast;
mod huffman;
mod matches;
mod symbols;

pub(super) use fast::Fast;

use super::CodecError;
use libdeflater::{CompressionLvl, Compressor};

const CODEC: &str = "DEFLATE";

/// libdeflate, the engine of GDAL.
pub(super) struct Libdeflate {
    compressor: Compressor,
    /// Room for what noise becomes: `out` gets just what was written.
    buffer: Vec<u8>,
}

impl Libdeflate {
    pub(super) fn new(level: u8) -> Result<Self, CodecError> {
        let value = i32::from(level);
        let (setting, range) = ("level of DEFLATE", "1 to 12");
        // Level 0 only stores: that would be compression NONE.
        let valid = CompressionLvl::new(value).ok().filter(|_| level > 0);
        let valid = valid.ok_or(CodecError::Setting { setting, range, value: f64::from(value) })?;
        Ok(Self { compressor: Compressor::new(valid), buffer: Vec::new() })
    }

    pub(super) fn compress(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.buffer.resize(self.compressor.zlib_compress_bound(bytes.len()), 0);
        let written = self
            .compressor
            .zlib_compress(bytes, &mut self.buffer)
            .map_err(|error| CodecError::engine(CODEC, format!("{error:?}")))?;
        out.extend_from_slice(&self.buffer[..written]);
        Ok(())
    }
}
