//! Which encoder and level: what was asked for, or what samples of the raster say.

use geoworker_cog::codec::{self, Compression, DeflateLevel, Family, Predictor, TileFormat};
use geoworker_cog::overview::{Image, Strip};
use geoworker_cog::sample_tiles;

use super::reader::Reader;
use crate::encoding::DEFAULT_QUALITY;
use crate::error::RasterError;
use crate::model::CogOptions;

/// Samples are taken at this many places across and down.
const ACROSS: usize = 4;
const DOWN: usize = 6;
/// Rows of one sample.
const ROWS: usize = 64;

/// The codec for `options`, chosen by samples of the raster where it has levels and none was asked for.
///
/// # Errors
/// Where the samples cannot be read.
pub(crate) fn compression(
    options: &CogOptions,
    image: &Image,
    predictor: Predictor,
    reader: &mut Reader,
) -> Result<Option<Compression>, RasterError> {
    let quality = options.quality.unwrap_or(DEFAULT_QUALITY);
    Ok(Some(match (options.compression.as_str(), options.level) {
        ("none", _) => Compression::None,
        ("lzw", _) => Compression::Lzw,
        ("jpeg", _) => Compression::Jpeg { quality },
        ("webp", _) => Compression::Webp { quality, lossless: quality == 100 },
        ("deflate", Some(level)) => Compression::Deflate(DeflateLevel::Libdeflate(level)),
        ("zstd", Some(level)) => Compression::Zstd { level: i32::from(level) },
        ("deflate", None) => sampled(Family::Deflate, options, image, predictor, reader)?,
        ("zstd", None) => sampled(Family::Zstd, options, image, predictor, reader)?,
        _ => return Ok(None),
    }))
}

fn sampled(
    family: Family,
    options: &CogOptions,
    image: &Image,
    predictor: Predictor,
    reader: &mut Reader,
) -> Result<Compression, RasterError> {
    let block = options.block_size as usize;
    let rows = ROWS.min(image.height);
    let samples = image.bands.len();
    let format = TileFormat { sample: image.sample, samples, width: block, height: rows, predictor };
    let width = block.min(image.width);
    let mut tiles = Vec::with_capacity(ACROSS * DOWN);
    let (block_width, block_height) = reader.block();
    for y in places(image.height, rows, DOWN, block_height) {
        for x in places(image.width, width, ACROSS, block_width) {
            let mut strip = Strip::zeroed(image, width, rows);
            strip.first_row = y;
            reader.window(x, &mut strip)?;
            tiles.extend(sample_tiles(&strip, &format));
        }
    }
    // A format that is not possible is noticed, and named, when the encoder is made.
    Ok(codec::choose(family, &format, &tiles).unwrap_or(family.default_level()))
}

/// Up to `count` places for a window of `length` in `whole`, evenly spread, at beginnings of blocks.
fn places(whole: usize, length: usize, count: usize, block: usize) -> Vec<usize> {
    let last = whole - length;
    let spread = |number: usize| (last * (2 * number + 1) / (2 * count)) / block * block;
    let mut places: Vec<usize> = (0..count).map(spread).collect();
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_over_the_raster() {
        assert_eq!(places(10_000, 512, 4, 512), [1024, 3072, 5632, 8192]);
        assert_eq!(places(100, 100, 4, 16), [0]);
        assert_eq!(places(700, 64, 6, 1), [53, 159, 265, 371, 477, 583]);
    }
}
