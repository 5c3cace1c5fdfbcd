//! Zstandard (one frame a tile, with its size, without a checksum).

use super::CodecError;
use zstd_safe::{CCtx, compress_bound, get_error_name};

const CODEC: &str = "ZSTD";

/// Zstandard with one level. Its context, some MB for high levels, stays between tiles.
pub(super) struct Zstd {
    context: CCtx<'static>,
    level: i32,
    /// Room for what noise becomes: `out` gets just what was written.
    buffer: Vec<u8>,
}

impl Zstd {
    pub(super) fn new(level: i32) -> Result<Self, CodecError> {
        if !(1..=22).contains(&level) {
            let (setting, range) = ("level of ZSTD", "1 to 22");
            return Err(CodecError::Setting { setting, range, value: f64::from(level) });
        }
        let context = CCtx::try_create().ok_or_else(|| CodecError::engine(CODEC, "out of memory"))?;
        Ok(Self { context, level, buffer: Vec::new() })
    }

    pub(super) fn compress(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        self.buffer.resize(compress_bound(bytes.len()), 0);
        let written = self
            .context
            .compress(&mut self.buffer[..], bytes, self.level)
            .map_err(|code| CodecError::engine(CODEC, get_error_name(code)))?;
        out.extend_from_slice(&self.buffer[..written]);
        Ok(())
    }
}
