//! Picks the fastest level whose output is about as small as that of GDAL's default level.
//!
//! Speeds are not measured here but fixed, so that the same data always give the same file.

use super::{
    CodecError, Compression, DeflateLevel, GDAL_DEFLATE_LEVEL, GDAL_ZSTD_LEVEL, TileEncoder, TileFormat,
};

/// Codecs with levels of different speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// DEFLATE.
    Deflate,
    /// Zstandard.
    Zstd,
}

/// How much larger than with GDAL's default level the samples may become: 0.5 %.
const TOLERANCE: f64 = 1.005;
/// How much larger the first samples may be before the rest is not tried.
const HOPELESS: f64 = 1.02;
/// Bytes of tiles that are compressed for each candidate: 6 tiles of 512x512 colours, 0.1 s with GDAL's default.
/// Parts of tiles would not do: levels differ in how far back they look.
const SAMPLE_BYTES: usize = 5 << 20;
/// Fewest and most tiles that are compressed.
const FEWEST: usize = 3;
const MOST: usize = 64;

impl Family {
    /// GDAL's default.
    #[must_use]
    pub const fn default_level(self) -> Compression {
        match self {
            Self::Deflate => Compression::Deflate(DeflateLevel::Libdeflate(GDAL_DEFLATE_LEVEL)),
            Self::Zstd => Compression::Zstd { level: GDAL_ZSTD_LEVEL },
        }
    }

    /// Levels that are faster than GDAL's default, the fastest first, by MB/s on one core on noisy imagery,
    /// noisy and smooth terrain. Levels that are hardly ever the answer are left out.
    fn faster(self) -> Vec<Compression> {
        match self {
            Self::Deflate => {
                let libdeflate = [1, 4, 5].map(DeflateLevel::Libdeflate);
                std::iter::once(DeflateLevel::Fast).chain(libdeflate).map(Compression::Deflate).collect()
            }
            Self::Zstd => [1, 3, 5, 7].map(|level| Compression::Zstd { level }).to_vec(),
        }
    }
}

/// The fastest level of a family for tiles like these: the first whose output is at most 0.5 % larger than that
/// of GDAL's default level. Each of `tiles` is a whole tile as [`TileEncoder::encode`] takes it; some 16 to 32
/// from all over the image are enough. Without any, the answer is GDAL's default.
///
/// # Errors
/// If the format is not possible, or one of `tiles` isn't a tile.
pub fn choose(family: Family, format: &TileFormat, tiles: &[Vec<u8>]) -> Result<Compression, CodecError> {
    let default = family.default_level();
    let samples = Samples::new(format, tiles)?;
    if samples.tiles.is_empty() {
        return Ok(default);
    }
    let defaults = samples.sizes(&default)?;
    for candidate in family.faster() {
        if samples.fit(&candidate, &defaults)? {
            return Ok(candidate);
        }
    }
    Ok(default)
}

/// Some of the tiles, from all over those given.
struct Samples<'a> {
    format: &'a TileFormat,
    tiles: Vec<&'a [u8]>,
}

impl<'a> Samples<'a> {
    fn new(format: &'a TileFormat, tiles: &'a [Vec<u8>]) -> Result<Self, CodecError> {
        let expected = format.bytes();
        if let Some(other) = tiles.iter().find(|tile| tile.len() != expected) {
            return Err(CodecError::TileBytes { expected, found: other.len() });
        }
        let count = (SAMPLE_BYTES / expected.max(1)).clamp(FEWEST, MOST).min(tiles.len());
        let tiles = (0..count).map(|sample| tiles[sample * tiles.len() / count].as_slice()).collect();
        Ok(Self { format, tiles })
    }

    /// Bytes of the first sample, of the first two, and so on to all.
    fn sizes(&self, compression: &Compression) -> Result<Vec<usize>, CodecError> {
        let mut sizes = Vec::with_capacity(self.tiles.len());
        self.encode(compression, |size| {
            sizes.push(size);
            true
        })?;
        Ok(sizes)
    }

    /// Whether a candidate makes all samples about as small as the default did; it gives up where it is clearly
    /// worse.
    fn fit(&self, candidate: &Compression, defaults: &[usize]) -> Result<bool, CodecError> {
        let mut defaults = defaults.iter();
        let mut excess = f64::INFINITY;
        self.encode(candidate, |size| {
            excess = defaults.next().map_or(f64::INFINITY, |default| size as f64 / *default as f64);
            excess <= HOPELESS
        })?;
        Ok(excess <= TOLERANCE)
    }

    /// Tells the bytes of all samples so far after each, until the answer is no.
    fn encode(
        &self,
        compression: &Compression,
        mut next: impl FnMut(usize) -> bool,
    ) -> Result<(), CodecError> {
        let mut encoder = TileEncoder::new(self.format, compression)?;
        let (mut pixels, mut out) = (Vec::new(), Vec::new());
        let mut size = 0;
        for tile in &self.tiles {
            pixels.clear();
            pixels.extend_from_slice(tile);
            out.clear();
            encoder.encode(&mut pixels, &mut out)?;
            size += out.len();
            if !next(size) {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Predictor, sample::SampleType};

    fn tiles(byte: impl Fn(usize, u8) -> u8) -> (TileFormat, Vec<Vec<u8>>) {
        let (sample, predictor) = (SampleType::U8, Predictor::None);
        let format = TileFormat { sample, samples: 1, width: 256, height: 256, predictor };
        let mut state = 1u32;
        let mut tile = || {
            let next = |at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                byte(at, (state >> 24) as u8)
            };
            (0..format.bytes()).map(next).collect()
        };
        let tiles = (0..9).map(|_| tile()).collect();
        (format, tiles)
    }

    #[test]
    fn noise_needs_no_search() {
        let (format, tiles) = tiles(|_, noise| (noise & 15) + (noise >> 4 & 15));
        let deflate = choose(Family::Deflate, &format, &tiles);
        assert_eq!(deflate, Ok(Compression::Deflate(DeflateLevel::Fast)));
        assert_eq!(choose(Family::Zstd, &format, &tiles), Ok(Compression::Zstd { level: 1 }));
    }

    #[test]
    fn what_is_chosen_keeps_the_size() {
        let (format, tiles) = tiles(|at, noise| ((at / 5) as u8 & 31) ^ (noise / 250) ^ (at >> 8) as u8);
        let samples = Samples::new(&format, &tiles).unwrap();
        for family in [Family::Deflate, Family::Zstd] {
            let chosen = choose(family, &format, &tiles).unwrap();
            let size = |compression| *samples.sizes(&compression).unwrap().last().unwrap() as f64;
            assert!(size(chosen) <= size(family.default_level()) * TOLERANCE, "{chosen:?}");
        }
    }

    #[test]
    fn without_tiles_the_default() {
        let (format, tiles) = tiles(|_, _| 0);
        assert_eq!(choose(Family::Zstd, &format, &[]), Ok(Compression::Zstd { level: 9 }));
        assert!(choose(Family::Zstd, &format, &[tiles[0][1..].to_vec()]).is_err());
    }
}
