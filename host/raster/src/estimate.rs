//! What an operation will need, from the header alone: memory and disk, before a pixel is read.
//!
//! An estimate is for admission: it should be a little too high and never far too low. What really happens is
//! bounded by the supervisor's limits. The constants were measured with GDAL 3.6 on synthetic imagery with sensor
//! noise (the worst that compresses at all) and on real samples; each says what.

use std::path::Path;

use gdal::Dataset;
use serde::{Deserialize, Serialize};

use crate::environment::{memory_limit, take_messages};
use crate::error::RasterError;
use crate::ffi::pixel_type;
use crate::model::{CogOptions, Engine};
use crate::native::Operation;
use crate::object::OUTPUT_OBJECT;
use crate::{object, source};

const MIB: u64 = 1 << 20;
/// Anonymous memory of a process that has GDAL's drivers and PROJ's database open: measured 6 MiB once the header is
/// read, and 14 MiB at the end of a tiny COG.
const BASE: u64 = 16 * MIB;
/// What GDAL's overview builder works on at a time: chunks of about 10 MB of source samples, their resampled form
/// and their masks, in floating point where there is nodata. Small rasters: [`OVERVIEW_TIMES`] their size.
const OVERVIEW_WORK: u64 = 40 * MIB;
/// As floating point, with a mask, source and result.
const OVERVIEW_TIMES: u64 = 8;
/// The warper's own memory, `-wm` at its default of 64 MB, source and destination, and its transformer.
const WARP_WORK: u64 = 160 * MIB;
/// Allocator and thread overhead in percent of everything: pools of freed memory that are not given back.
const OVERHEAD_PERCENT: u64 = 10;
/// A compression thread: its stack and allocator pool.
const THREAD: u64 = 4 * MIB;
/// Growth of the pixel count by reprojection: a rotation by 45° doubles the bounding box.
const WARP_GROWTH: u64 = 2;
/// Header, directories and tile index, per tile of the full resolution and its overviews.
const TILE_INDEX: u64 = 32;
/// Strips that the single-pass encoder holds: two of the full resolution, and overviews of all levels, half of them twice.
const STRIPS: u64 = 4;
/// Compressed overviews that it keeps in memory.
pub(crate) const SPOOL_BYTES: u64 = 16 * MIB;
/// Edge of the windows that statistics read.
const WINDOW: u64 = 256;

/// How fast an operation may be, at the price of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Compression threads.
    pub threads: usize,
    /// GDAL's block cache in MiB.
    pub cache_mib: u64,
    /// Rows that verification compares at a time. Fewer than an edge of a block decode each block more than once
    /// where the cache cannot hold a row of blocks.
    pub strip_rows: usize,
    /// COGs by the single-pass encoder, which holds whole strips; where it is `auto` who encodes.
    pub streaming: bool,
}

/// Share of the memory limit that GDAL's block cache gets.
const CACHE_SHARE: u64 = 8;
/// Bounds of the block cache in MiB.
const CACHE_MIB: std::ops::RangeInclusive<u64> = 32..=256;
/// Strips of the full plan: a row of blocks at the default block size.
const STRIP_ROWS: usize = 512;
/// Strips of the lean plan.
const LEAN_STRIP_ROWS: usize = 64;

impl Plan {
    /// The usual plan: `threads` compression threads, an eighth of the memory limit (0: none) as block cache, within
    /// 32 and 256 MiB.
    #[must_use]
    pub fn full(threads: usize, memory_bytes: u64) -> Self {
        let cache_mib = match memory_bytes {
            0 => *CACHE_MIB.end(),
            bytes => (bytes / CACHE_SHARE / MIB).clamp(*CACHE_MIB.start(), *CACHE_MIB.end()),
        };
        Self { threads, cache_mib, strip_rows: STRIP_ROWS, streaming: true }
    }

    /// The plan after memory ran out: one thread, a block cache of 32 MiB, the smallest buffers, GDAL's COG driver.
    #[must_use]
    pub fn lean() -> Self {
        Self { threads: 1, cache_mib: *CACHE_MIB.start(), strip_rows: LEAN_STRIP_ROWS, streaming: false }
    }
}

/// What an operation will need at its peak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// Anonymous memory in bytes.
    pub memory_bytes: u64,
    /// Output and temporary files together, in bytes; 0 where nothing is written.
    pub disk_bytes: u64,
}

/// Estimates an operation. Opens the source's header.
///
/// # Errors
/// As the operation itself, where the header cannot be read.
pub fn estimate(operation: &Operation, plan: &Plan) -> Result<Estimate, RasterError> {
    Ok(match operation {
        Operation::ValidateCog { .. } => Estimate { memory_bytes: with_overhead(BASE), disk_bytes: 0 },
        Operation::Inspect { source, .. } => {
            Header::read(source)?;
            Estimate { memory_bytes: with_overhead(BASE), disk_bytes: 0 }
        }
        Operation::Statistics { source, .. } => Header::read(source)?.statistics(plan),
        Operation::Preview { source, max_edge, .. } => {
            Header::read(source)?.preview(u64::from(*max_edge), plan)
        }
        Operation::CreateCog { source, options, target } => {
            let estimate = Header::read(source)?.create_cog(options, plan);
            let streams =
                plan.streaming && options.engine != Engine::Gdal && !options.compression.starts_with("lerc");
            if streams && target == Path::new(OUTPUT_OBJECT) {
                // Only compressed overviews touch the disk.
                return Ok(Estimate { disk_bytes: estimate.disk_bytes / 3, ..estimate });
            }
            estimate
        }
    })
}

/// The part of a header that decides what an operation needs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Header {
    width: u64,
    height: u64,
    /// Samples of all bands in one pixel, in bytes.
    pixel_bytes: u64,
    /// The largest sample, in bytes.
    sample_bytes: u64,
    bands: u64,
    /// Pixels of one block.
    block_pixels: u64,
    driver: String,
    compression: Option<String>,
    size_bytes: u64,
}

impl Header {
    fn read(path: &Path) -> Result<Self, RasterError> {
        let dataset = source::open(path)?;
        let size_bytes = object::facts(path)?.size_bytes;
        let header = Self::of(&dataset, size_bytes);
        take_messages();
        Ok(header)
    }

    fn of(dataset: &Dataset, size_bytes: u64) -> Self {
        use gdal::Metadata;
        let (width, height) = dataset.raster_size();
        let samples: Vec<u64> =
            (1..=dataset.raster_count()).map(|band| pixel_type(dataset, band).bytes() as u64).collect();
        let (block_width, block_height) = dataset.rasterband(1).map_or((0, 0), |band| band.block_size());
        Self {
            width: width as u64,
            height: height as u64,
            pixel_bytes: samples.iter().sum(),
            sample_bytes: samples.iter().copied().max().unwrap_or(0),
            bands: samples.len() as u64,
            block_pixels: (block_width as u64).saturating_mul(block_height as u64),
            driver: dataset.driver().short_name(),
            compression: dataset.metadata_item("COMPRESSION", "IMAGE_STRUCTURE"),
            size_bytes,
        }
    }

    fn uncompressed(&self) -> u64 {
        self.width.saturating_mul(self.height).saturating_mul(self.pixel_bytes)
    }

    /// The block cache, which fills up to its limit where there is enough to fill it, and the decoder's own block:
    /// two of them, compressed and decoded. JPEG 2000 decodes into 32-bit samples and keeps its wavelet tree.
    fn reading(&self, plan: &Plan) -> u64 {
        let block = self.block_pixels.saturating_mul(self.pixel_bytes);
        let decoder = if self.driver == "JP2OpenJPEG" {
            self.block_pixels.saturating_mul(self.bands).saturating_mul(8)
        } else {
            0
        };
        let cached = self.uncompressed().saturating_mul(2).min(plan.cache_mib * MIB).max(block);
        cached.saturating_add(block.saturating_mul(2)).saturating_add(decoder)
    }

    fn statistics(&self, plan: &Plan) -> Estimate {
        // A window as 64-bit numbers, its mask, and the set of distinct values.
        let window = WINDOW * WINDOW * 16;
        let memory = BASE.saturating_add(self.reading(plan)).saturating_add(window);
        Estimate { memory_bytes: with_overhead(memory), disk_bytes: 0 }
    }

    fn preview(&self, max_edge: u64, plan: &Plan) -> Estimate {
        let pixels = max_edge.min(self.width).saturating_mul(max_edge.min(self.height));
        // Per plane: 64-bit values, their sorted copy and the bytes; then the picture with four planes.
        let planes = pixels.saturating_mul(8 * 3 + 8);
        let memory = BASE
            .saturating_add(self.reading(plan))
            .saturating_add(self.overview_work())
            .saturating_add(planes);
        // A PNG of noise is a little larger than its pixels.
        Estimate { memory_bytes: with_overhead(memory), disk_bytes: pixels.saturating_mul(4) + MIB }
    }

    fn create_cog(&self, options: &CogOptions, plan: &Plan) -> Estimate {
        let block = u64::from(options.block_size);
        let threads = plan.threads as u64;
        let tile = block.saturating_mul(block).saturating_mul(self.pixel_bytes);
        // The writer queues two tiles per thread, each beside its compressed form.
        let writing = tile
            .saturating_mul(2)
            .saturating_mul(threads.saturating_add(1))
            .saturating_add(threads.saturating_mul(THREAD));
        let warping = if options.target_crs.is_some() { WARP_WORK } else { 0 };
        let encoding = self.overview_work().saturating_add(writing).saturating_add(warping);
        // Verification holds a strip of every band, of the source's band that it is compared with, and two masks.
        // Once more all bands: measured on a raster of 60 000 columns, blocks that GDAL has outside of its cache.
        let strip = self.width.saturating_mul(plan.strip_rows as u64);
        let row = self.width_after(options).saturating_mul(plan.strip_rows as u64);
        let verifying = row
            .saturating_mul(self.pixel_bytes)
            .saturating_mul(2)
            .saturating_add(strip.saturating_mul(self.sample_bytes + 2))
            .saturating_add(tile);
        let total = |work: u64| with_overhead(BASE.saturating_add(self.reading(plan)).saturating_add(work));
        let streaming = self.streaming(tile, block, threads);
        let streams = match options.engine {
            // As the encoder decides later: GDAL's driver where this one would not fit.
            Engine::Auto => plan.streaming && memory_limit().is_none_or(|limit| total(streaming) <= limit),
            Engine::Native => true,
            Engine::Gdal => false,
        };
        let working = encoding.max(verifying).max(if streams { streaming } else { 0 });
        Estimate { memory_bytes: total(working), disk_bytes: self.cog_disk(options) }
    }

    /// The single-pass encoder: two strips and the overviews' strips under way, tiles, and compressed overviews in memory.
    fn streaming(&self, tile: u64, block: u64, threads: u64) -> u64 {
        let rows = block.min(self.height);
        let strip = self.width.saturating_mul(rows).saturating_mul(self.pixel_bytes.saturating_add(1));
        let size = usize::try_from(tile).unwrap_or(usize::MAX);
        let under_way =
            geoworker_cog::tiles_under_way(size, usize::try_from(threads).unwrap_or(usize::MAX)) as u64;
        let overviews = SPOOL_BYTES.min(self.uncompressed() / 2);
        strip
            .saturating_mul(STRIPS)
            .saturating_add(tile.saturating_mul(under_way.saturating_add(2 * threads)))
            .saturating_add(overviews)
    }

    fn overview_work(&self) -> u64 {
        OVERVIEW_WORK.min(self.uncompressed().saturating_mul(OVERVIEW_TIMES))
    }

    fn width_after(&self, options: &CogOptions) -> u64 {
        let growth = if options.target_crs.is_some() { WARP_GROWTH } else { 1 };
        self.width.saturating_mul(growth)
    }

    /// Output, GDAL's temporary overviews, and the temporary raster of a reprojection.
    fn cog_disk(&self, options: &CogOptions) -> u64 {
        let growth = if options.target_crs.is_some() { WARP_GROWTH } else { 1 };
        let full = self.uncompressed().saturating_mul(growth);
        let known = self.lossless_size().map(|size| size.saturating_mul(growth));
        let output = percent(full, codec_percent(options));
        // A source that is compressed without loss tells what its pixels are worth to a lossless codec.
        let output = match known.filter(|_| lossless(options)) {
            Some(size) => output.min(percent(size, RECOMPRESSED_PERCENT)),
            None => output,
        };
        // The temporary overviews are a third of the pixels in ZSTD, whatever the output's codec.
        let zstd = |bytes: u64| {
            let bound = percent(bytes, TEMPORARY_PERCENT);
            known.map_or(bound, |size| bound.min(percent(size, RECOMPRESSED_PERCENT)))
        };
        let overviews = zstd(full) / 3;
        let warped = if options.target_crs.is_some() { zstd(full) } else { 0 };
        let edge = u64::from(options.block_size).max(1);
        let tiles =
            (self.width.div_ceil(edge)).saturating_mul(self.height.div_ceil(edge)).saturating_mul(growth);
        // Small rasters: the last tiles are padded, and a directory has a size.
        let index = tiles.saturating_mul(TILE_INDEX).saturating_add(MIB);
        output.saturating_add(overviews).saturating_add(warped).saturating_add(index)
    }

    /// Size of the source where it is compressed without loss.
    fn lossless_size(&self) -> Option<u64> {
        let lossless = match (self.driver.as_str(), self.compression.as_deref()) {
            ("GTiff" | "COG", Some(name)) => ["DEFLATE", "LZW", "ZSTD", "LZMA"].contains(&name),
            ("PNG", _) => true,
            _ => false,
        };
        lossless.then_some(self.size_bytes)
    }
}

/// Output with its overviews (another third) against the size of a source that is compressed without loss: a third,
/// and half as much again for a weaker predictor, level or codec.
const RECOMPRESSED_PERCENT: u64 = 200;
/// ZSTD without predictor of imagery with sensor noise: measured 81 to 91 %.
const TEMPORARY_PERCENT: u64 = 100;

/// Size of an output with its overviews, in percent of the uncompressed pixels at full resolution. Measured on
/// imagery with sensor noise (in brackets), rounded up; what cannot be compressed at all is above and left to the
/// limits.
fn codec_percent(options: &CogOptions) -> u64 {
    match (options.compression.as_str(), options.quality) {
        // Exact: no codec, one third for the overviews.
        ("none", _) => 134,
        // Grows what it cannot compress (147 without, 121 with predictor).
        ("lzw", _) => 150,
        // (8 at quality 75) and growing steeply above 90.
        ("jpeg", Some(91..)) => 90,
        ("jpeg", _) => 25,
        // (7 at quality 75), without loss at 100.
        ("webp", Some(100..)) => 110,
        ("webp", Some(91..)) => 70,
        ("webp", _) => 25,
        // (96 to 110), (54 with an error of 0.001 on a DEM).
        _ => 115,
    }
}

fn lossless(options: &CogOptions) -> bool {
    matches!(options.compression.as_str(), "deflate" | "zstd" | "lzw")
}

fn percent(bytes: u64, percent: u64) -> u64 {
    (bytes / 100).saturating_mul(percent).saturating_add(bytes % 100 * percent / 100)
}

fn with_overhead(bytes: u64) -> u64 {
    percent(bytes, 100 + OVERHEAD_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(width: u64, height: u64) -> Header {
        Header {
            width,
            height,
            pixel_bytes: 3,
            sample_bytes: 1,
            bands: 3,
            block_pixels: 512 * 512,
            driver: "GTiff".into(),
            compression: None,
            size_bytes: width.saturating_mul(height).saturating_mul(3),
        }
    }

    fn options(compression: &str) -> CogOptions {
        CogOptions { compression: compression.into(), ..CogOptions::default() }
    }

    #[test]
    fn memory_is_bounded_in_height_and_grows_with_width() {
        let plan = Plan::full(2, 4 << 30);
        let memory =
            |width, height| header(width, height).create_cog(&options("deflate"), &plan).memory_bytes;
        assert_eq!(memory(10_000, 10_000), memory(10_000, 1_000_000));
        assert!(memory(400_000, 10_000) > memory(10_000, 10_000) + (400_000 - 200_000) * 512 * 3);
    }

    #[test]
    fn the_lean_plan_needs_less() {
        let full = header(100_000, 100_000).create_cog(&options("deflate"), &Plan::full(8, 4 << 30));
        let lean = header(100_000, 100_000).create_cog(&options("deflate"), &Plan::lean());
        assert!(lean.memory_bytes * 2 < full.memory_bytes, "{lean:?} {full:?}");
        assert_eq!(lean.disk_bytes, full.disk_bytes);
    }

    #[test]
    fn disk_follows_the_codec_and_what_the_source_tells() {
        let plan = Plan::lean();
        let disk = |header: &Header, name| header.create_cog(&options(name), &plan).disk_bytes;
        let raw = header(20_000, 20_000);
        let bytes = raw.uncompressed();
        assert!(disk(&raw, "jpeg") < disk(&raw, "deflate") && disk(&raw, "deflate") < disk(&raw, "lzw"));
        // Figures of the measured imagery: 98 % output and 27 % temporary.
        assert!(disk(&raw, "deflate") > bytes / 100 * 125);
        let packed = Header { compression: Some("LZW".into()), size_bytes: bytes / 50, ..raw.clone() };
        assert!(disk(&packed, "deflate") < bytes / 10, "land cover is small, and stays so");
        assert_eq!(disk(&packed, "none"), disk(&raw, "none") - bytes / 3 + percent(bytes / 50, 200) / 3);
        let warped = CogOptions { target_crs: Some("EPSG:3857".into()), ..options("deflate") };
        assert!(raw.create_cog(&warped, &plan).disk_bytes > 3 * disk(&raw, "deflate"));
    }

    #[test]
    fn absurd_headers_do_not_overflow() {
        let absurd = Header { block_pixels: u64::MAX, ..header(u64::from(u32::MAX), u64::from(u32::MAX)) };
        let estimate = absurd.create_cog(&options("lzw"), &Plan::full(usize::MAX >> 8, 0));
        assert!(estimate.memory_bytes > 1 << 60 && estimate.disk_bytes > 1 << 60);
        assert!(absurd.preview(4096, &Plan::lean()).memory_bytes > 1 << 60);
    }
}
