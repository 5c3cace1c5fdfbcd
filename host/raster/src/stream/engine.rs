//! Encoding with the single-pass encoder.

use std::ops::ControlFlow;

use geoworker_cog::codec::{Compression, DeflateLevel, Predictor};
use geoworker_cog::overview::Resampling;
use geoworker_cog::{EncodeError, Raster, Summary};

use super::reader::Reader;
use super::{describe, levels, template};
use crate::encoding::Encoding;
use crate::environment::{memory_limit, scratch};
use crate::error::{GDAL_ERROR, RasterError};
use crate::estimate::{Plan, SPOOL_BYTES};
use crate::ffi::set_block_cache;
use crate::model::CogOptions;
use crate::output::Output;
use crate::source::OpenSource;

const MIB: u64 = 1 << 20;
/// GDAL's block cache: the reader asks for each block once, in windows of a quarter of this. A reprojection comes back to
/// blocks.
const CACHE_BYTES: u64 = 32 << 20;
const WARP_CACHE_BYTES: u64 = 64 << 20;
/// GDAL and PROJ, threads, and what allocators keep: see the figures in `estimate`.
const RUNTIME_BYTES: u64 = 32 << 20;

/// What was made.
pub(crate) struct Streamed {
    pub(crate) summary: Summary,
    /// SHA-256 of the samples that were read.
    pub(crate) pixels: Vec<u8>,
    /// Codec and level, in words.
    pub(crate) codec: String,
}

/// Everything that is known before the pixels are read.
pub(crate) struct Prepared {
    raster: Raster,
    encoding: geoworker_cog::Encoding,
    reader: Reader,
}

/// Describes the raster and chooses the level; the reason, where the encoder does not do this.
pub(crate) fn prepare(
    source: OpenSource,
    options: &CogOptions,
    encoding: &Encoding,
    plan: &Plan,
) -> Result<Result<Prepared, String>, RasterError> {
    let mut image = match describe::image(source.dataset()) {
        Ok(image) => image,
        Err(reason) => return Ok(Err(reason)),
    };
    let predictor = match encoding.predictor {
        "horizontal" => Predictor::Horizontal,
        "floating-point" => Predictor::FloatingPoint,
        _ => Predictor::None,
    };
    let Some(resampling) = resampling(&options.overview_resampling) else {
        return Ok(Err(format!("overviews by {}", options.overview_resampling)));
    };
    let block = options.block_size as usize;
    let sizes = geoworker_cog::overview_sizes(image.width, image.height, block);
    let odd = |size: &(usize, usize)| !size.0.is_multiple_of(2) || !size.1.is_multiple_of(2);
    let cascades = image.sample.is_complex() && resampling == Resampling::Nearest;
    if cascades && sizes.split_last().is_some_and(|(_, above)| above.iter().any(odd)) {
        return Ok(Err("overviews of complex samples at odd sizes".into()));
    }
    let opacity = if options.compression == "jpeg" { describe::alpha_to_mask(&mut image) } else { None };
    let template = template::template(source.dataset(), opacity, encoding)?;
    let mut reader = Reader::new(source, &image, opacity);
    let Some(compression) = levels::compression(options, &image, predictor, &mut reader)? else {
        return Ok(Err(format!("compression {}", options.compression)));
    };
    let fill = if options.sparse { describe::fill(&image) } else { None };
    let raster = Raster { fill, image, shared: template.shared, own: template.own };
    let encoding = geoworker_cog::Encoding {
        compression,
        predictor,
        block,
        resampling,
        threads: plan.threads.max(1),
        spool_bytes: SPOOL_BYTES as usize,
        scratch: scratch(),
    };
    let cache = if options.target_crs.is_some() { WARP_CACHE_BYTES } else { CACHE_BYTES };
    set_block_cache(cache);
    let memory = match geoworker_cog::memory(&raster, &encoding) {
        Ok(bytes) => bytes + RUNTIME_BYTES + cache,
        Err(error) => return Ok(Err(error.to_string())),
    };
    if let Some(limit) = memory_limit().filter(|limit| *limit < memory) {
        let (needed, limit) = (memory.div_ceil(MIB), limit / MIB);
        return Ok(Err(format!("it would need {needed} MiB of memory, of which {limit} MiB are allowed")));
    }
    Ok(Ok(Prepared { raster, encoding, reader }))
}

/// Encodes into a file or an object.
///
/// # Errors
/// Where the source cannot be read or the output not be written.
pub(crate) fn encode(
    prepared: Prepared,
    output: Output<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<Streamed, RasterError> {
    let Prepared { raster, encoding, mut reader } = prepared;
    reader.hash();
    let mut sink = output.sink()?;
    let height = raster.image.height as f64;
    let mut on_rows = |rows: usize| {
        progress(rows as f64 / height);
        ControlFlow::Continue(())
    };
    let summary = geoworker_cog::encode(&raster, &encoding, &mut reader, &mut *sink, &mut on_rows);
    let summary = summary.map_err(|error| match error {
        EncodeError::Source(error) => error,
        EncodeError::Write(error) => error.into(),
        other => RasterError::permanent(GDAL_ERROR, other.to_string()),
    })?;
    let pixels = reader.digest().unwrap_or_default();
    Ok(Streamed { summary, pixels, codec: words(&encoding.compression) })
}

/// Codec and level for a report.
fn words(compression: &Compression) -> String {
    let name = compression.name().to_lowercase();
    match compression {
        Compression::Deflate(DeflateLevel::Fast) => format!("{name}, fast encoder"),
        Compression::Deflate(DeflateLevel::Libdeflate(level)) => format!("{name}, level {level}"),
        Compression::Zstd { level } => format!("{name}, level {level}"),
        Compression::Webp { lossless: true, .. } => format!("{name}, lossless"),
        Compression::Jpeg { quality } | Compression::Webp { quality, .. } => {
            format!("{name}, quality {quality}")
        }
        Compression::None | Compression::Lzw => name,
    }
}

fn resampling(name: &str) -> Option<Resampling> {
    Some(match name {
        "nearest" => Resampling::Nearest,
        "average" => Resampling::Average,
        "bilinear" => Resampling::Bilinear,
        "cubic" => Resampling::Cubic,
        "mode" => Resampling::Mode,
        "rms" => Resampling::Rms,
        "gauss" => Resampling::Gauss,
        _ => return None,
    })
}
