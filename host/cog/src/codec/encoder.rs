//! From tiles of pixels to compressed tiles.

use super::{
    CodecError, Compression, DeflateLevel, Predictor, TileFormat,
    deflate::{Fast, Libdeflate},
    jpeg::Jpeg,
    lzw::Lzw,
    predictor::Rows,
    webp::Webp,
    zstd::Zstd,
};

/// Compresses tiles of one format, one after the other. Make one for each thread: it keeps the compressor and the
/// buffers.
pub struct TileEncoder {
    tile_bytes: usize,
    rows: Rows,
    engine: Engine,
}

enum Engine {
    Copy,
    FastDeflate(Fast),
    Libdeflate(Libdeflate),
    Zstd(Zstd),
    Lzw(Lzw),
    Jpeg(Jpeg),
    Webp(Webp),
}

impl TileEncoder {
    /// An encoder for tiles of `format`.
    ///
    /// # Errors
    /// If the codec or the predictor is not possible with such tiles, or a setting is out of its range.
    pub fn new(format: &TileFormat, compression: &Compression) -> Result<Self, CodecError> {
        let codec = compression.name();
        format.check(codec)?;
        let predictor = format.predictor;
        if predictor != Predictor::None && !compression.takes_predictor() {
            return Err(CodecError::PredictorCodec { codec, predictor });
        }
        let rows = Rows::new(predictor, format.sample, format.samples, format.width)?;
        Ok(Self { tile_bytes: format.bytes(), rows, engine: Engine::new(format, compression)? })
    }

    /// Compresses one whole tile and appends the result to `out`. `pixels` are in native byte order, the samples
    /// of a pixel next to each other, row by row, and padded to the tile's size; they may be destroyed.
    ///
    /// # Errors
    /// If `pixels` isn't one tile, or the codec fails; what was appended to `out` is then of no use.
    pub fn encode(&mut self, pixels: &mut [u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        if pixels.len() != self.tile_bytes {
            return Err(CodecError::TileBytes { expected: self.tile_bytes, found: pixels.len() });
        }
        self.rows.apply(pixels);
        self.engine.compress(pixels, out)
    }
}

impl Engine {
    fn new(format: &TileFormat, compression: &Compression) -> Result<Self, CodecError> {
        Ok(match *compression {
            Compression::None => Self::Copy,
            Compression::Deflate(DeflateLevel::Fast) => Self::FastDeflate(Fast::new()),
            Compression::Deflate(DeflateLevel::Libdeflate(level)) => {
                Self::Libdeflate(Libdeflate::new(level)?)
            }
            Compression::Zstd { level } => Self::Zstd(Zstd::new(level)?),
            Compression::Lzw => Self::Lzw(Lzw::new()),
            Compression::Jpeg { quality } => Self::Jpeg(Jpeg::new(format, quality)?),
            Compression::Webp { quality, lossless } => Self::Webp(Webp::new(format, quality, lossless)?),
        })
    }

    fn compress(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
        match self {
            Self::Copy => out.extend_from_slice(bytes),
            Self::FastDeflate(engine) => engine.compress(bytes, out),
            Self::Libdeflate(engine) => engine.compress(bytes, out)?,
            Self::Zstd(engine) => engine.compress(bytes, out)?,
            Self::Lzw(engine) => engine.compress(bytes, out),
            Self::Jpeg(engine) => engine.compress(bytes, out)?,
            Self::Webp(engine) => engine.compress(bytes, out)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SampleType;
    use std::io::Read;

    fn format(sample: SampleType, samples: usize, predictor: Predictor) -> TileFormat {
        TileFormat { sample, samples, width: 48, height: 32, predictor }
    }

    fn tile(format: &TileFormat) -> Vec<u8> {
        (0..format.bytes()).map(|at| ((at / 7) ^ (at * at / 131)) as u8).collect()
    }

    fn encode(format: &TileFormat, compression: &Compression) -> Result<Vec<u8>, CodecError> {
        let mut encoder = TileEncoder::new(format, compression)?;
        let mut out = vec![42];
        encoder.encode(&mut tile(format), &mut out)?;
        assert_eq!(out.remove(0), 42, "appends");
        // Nothing of one tile is left for the next.
        let mut again = Vec::new();
        encoder.encode(&mut tile(format), &mut again)?;
        assert!(again == out);
        Ok(out)
    }

    #[test]
    fn lossless_codecs_give_back_what_the_predictor_made() {
        for predictor in [Predictor::None, Predictor::Horizontal] {
            let format = format(SampleType::U16, 3, predictor);
            let mut expected = tile(&format);
            Rows::new(predictor, format.sample, format.samples, format.width).unwrap().apply(&mut expected);
            for level in [DeflateLevel::Fast, DeflateLevel::Libdeflate(1), DeflateLevel::Libdeflate(12)] {
                let out = encode(&format, &Compression::Deflate(level)).unwrap();
                let mut back = Vec::new();
                flate2::read::ZlibDecoder::new(&out[..]).read_to_end(&mut back).unwrap();
                assert!(back == expected, "{level:?}");
            }
            for level in [1, 9, 22] {
                let out = encode(&format, &Compression::Zstd { level }).unwrap();
                let mut back = vec![0; format.bytes()];
                assert_eq!(zstd_safe::decompress(&mut back[..], &out), Ok(format.bytes()));
                assert!(back == expected, "{level:?}");
            }
            let out = encode(&format, &Compression::Lzw).unwrap();
            let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8);
            assert!(decoder.decode(&out).unwrap() == expected);
        }
        let format = format(SampleType::F64, 1, Predictor::None);
        assert!(encode(&format, &Compression::None).unwrap() == tile(&format));
    }

    #[test]
    fn lossy_codecs() {
        let jpeg = Compression::Jpeg { quality: 75 };
        let webp = |lossless| Compression::Webp { quality: 75, lossless };
        for samples in 1..=5 {
            let format = format(SampleType::U8, samples, Predictor::None);
            let out = encode(&format, &jpeg);
            assert_eq!(out.is_ok(), matches!(samples, 1 | 3), "{out:?}");
            assert!(out.is_err() || out.is_ok_and(|out| out.starts_with(&[0xFF, 0xD8])));
            let out = encode(&format, &webp(false));
            assert_eq!(out.is_ok(), matches!(samples, 3 | 4), "{out:?}");
        }
        let format = format(SampleType::U8, 4, Predictor::None);
        let out = encode(&format, &webp(true)).unwrap();
        assert!(
            webp::Decoder::new(&out).decode().unwrap().to_vec() == tile(&format),
            "with what alpha hides"
        );
    }

    #[test]
    fn encoders_can_move_to_their_threads() {
        fn moves<T: Send + 'static>() {}
        moves::<TileEncoder>();
    }

    #[test]
    fn refusals() {
        let horizontal = format(SampleType::U8, 3, Predictor::Horizontal);
        let none = TileFormat { predictor: Predictor::None, ..horizontal };
        for (format, compression) in [
            (horizontal, Compression::None),
            (horizontal, Compression::Jpeg { quality: 75 }),
            (none, Compression::Jpeg { quality: 0 }),
            (none, Compression::Webp { quality: 101, lossless: false }),
            (none, Compression::Deflate(DeflateLevel::Libdeflate(0))),
            (none, Compression::Deflate(DeflateLevel::Libdeflate(13))),
            (none, Compression::Zstd { level: 0 }),
            (TileFormat { sample: SampleType::ComplexF64, ..horizontal }, Compression::Lzw),
            (TileFormat { predictor: Predictor::FloatingPoint, ..none }, Compression::Lzw),
            (TileFormat { width: 0, ..none }, Compression::Lzw),
            (TileFormat { width: usize::MAX, ..none }, Compression::Lzw),
            (TileFormat { width: 70_000, ..none }, Compression::Jpeg { quality: 75 }),
            (TileFormat { width: 20_000, ..none }, Compression::Webp { quality: 75, lossless: true }),
        ] {
            assert!(TileEncoder::new(&format, &compression).is_err(), "{format:?} {compression:?}");
        }
        let mut encoder = TileEncoder::new(&none, &Compression::Lzw).unwrap();
        let error = encoder.encode(&mut [0; 5], &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "a tile has 4608 bytes, but 5 came");
    }
}
