//! Making a Cloud Optimized GeoTIFF: check, encode, verify.

use std::path::Path;
use std::time::Instant;

use crate::encoding::{Encoding, encoding, overview_count};
use crate::environment::{hide, take_messages};
use crate::error::{RASTER_UNSUPPORTED, RasterError};
use crate::estimate::Plan;
use crate::inspect::inspect;
use crate::model::{CogOptions, CogReport, Engine, RasterInfo};
use crate::output::Output;
use crate::source::{self, OpenSource};
use crate::verify::{Depth, Expectation, hex, verify};
use crate::{ffi, stream};

/// Share of the progress that encoding takes where all pixels are compared afterwards; verification takes the rest.
const ENCODE_SHARE: f64 = 0.85;

/// Encodes `source` as a COG at `target` (which must not be in use, or is [`crate::OUTPUT_OBJECT`]) and verifies the result.
///
/// `plan` bounds threads and buffers. `progress` gets 0 to 1. On failure nothing is left at `target`.
///
/// # Errors
/// `RASTER_UNSUPPORTED` before anything is read, `FILE_UNREADABLE`, `GDAL_ERROR`, `DISK_FULL`, `MEMORY`, or
/// `COG_INVALID` where the result is not what it must be.
pub fn create_cog(
    source: &Path,
    target: &Path,
    options: &CogOptions,
    plan: &Plan,
    progress: &mut dyn FnMut(f64),
) -> Result<CogReport, RasterError> {
    let result = encode_and_verify(source, target, options, plan, progress);
    if result.is_err() {
        // Nothing to remove where the target was never created.
        let _ = std::fs::remove_file(target);
    }
    result
}

/// What an engine made.
struct Made {
    engine: Engine,
    /// Why it was not the single-pass encoder.
    reason: Option<String>,
    /// Codec and level, in words.
    codec: String,
    /// SHA-256 of the source's samples, where they were all read on the way.
    pixels: Option<String>,
    empty_tiles: u64,
}

fn encode_and_verify(
    source_path: &Path,
    target: &Path,
    options: &CogOptions,
    plan: &Plan,
    progress: &mut dyn FnMut(f64),
) -> Result<CogReport, RasterError> {
    let info = inspect(source_path, options.input_crs.as_deref())?;
    let encoding = encoding(&info, options)?;
    let warped = options.target_crs.is_some() && !has_crs(&info, options)?;
    hide(&Output::at(target).place(), "the output");
    let started = Instant::now();
    let share = if options.verify_pixels { ENCODE_SHARE } else { 1.0 };
    let mut encoding_progress = |fraction: f64| progress(fraction * share);
    let job = Job { path: source_path, target, info: &info, options, encoding: &encoding, warped, plan };
    let made = job.encode(&mut encoding_progress)?;
    let encode_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let source = job.open()?;
    let expectation = Expectation {
        source: source.dataset(),
        info: &info,
        options,
        // GDAL's driver warps on its own.
        comparable: encoding.lossless && (!warped || made.engine == Engine::Native),
        alpha_to_mask: encoding.alpha_to_mask,
        warped,
        strip_rows: plan.strip_rows.max(1),
        depth: match made.pixels {
            // Read once and hashed then: a sample shows that it arrived.
            Some(ref digest) if encoding.lossless && !options.verify_pixels => Depth::Sample(digest.clone()),
            _ => Depth::Whole,
        },
    };
    let verified = verify(target, &expectation, &mut |fraction| {
        progress(share + fraction * (1.0 - share));
    })?;
    progress(1.0);
    Ok(CogReport {
        size_bytes: verified.info.size_bytes,
        sha256: verified.sha256,
        width: verified.info.width,
        height: verified.info.height,
        compression: options.compression.clone(),
        predictor: encoding.predictor.to_owned(),
        block_size: options.block_size,
        overview_count: verified.info.overview_count,
        overview_resampling: options.overview_resampling.clone(),
        crs: verified.info.crs.and_then(|crs| crs.code),
        pixel_sha256: verified.pixel_sha256,
        pixels_verified: verified.pixels_compared,
        not_carried: verified.not_carried,
        encode_ms,
        engine: made.engine,
        engine_reason: made.reason,
        codec: made.codec,
        empty_tiles: made.empty_tiles,
    })
}

/// Whether the raster is in the CRS that was asked for: a warp would only resample.
fn has_crs(info: &RasterInfo, options: &CogOptions) -> Result<bool, RasterError> {
    let Some(target) = options.target_crs.as_deref().map(source::crs).transpose()? else { return Ok(false) };
    let declared = info.crs.as_ref().and_then(|declared| declared.code.as_deref());
    Ok(declared.and_then(|code| source::crs(code).ok()) == Some(target))
}

/// One encoding, checked.
struct Job<'a> {
    path: &'a Path,
    target: &'a Path,
    info: &'a RasterInfo,
    options: &'a CogOptions,
    encoding: &'a Encoding,
    warped: bool,
    plan: &'a Plan,
}

impl Job<'_> {
    fn encode(&self, progress: &mut dyn FnMut(f64)) -> Result<Made, RasterError> {
        let reason = match self.options.engine {
            Engine::Gdal => None,
            Engine::Auto if !self.plan.streaming => Some("the plan is to use little memory".into()),
            Engine::Auto | Engine::Native => match self.prepare()? {
                Ok(prepared) => return self.stream(prepared, progress),
                Err(reason) => Some(reason),
            },
        };
        if let (Engine::Native, Some(reason)) = (self.options.engine, &reason) {
            let message = format!("the native engine does not do this: {reason}; use engine auto or gdal");
            return Err(RasterError::permanent(RASTER_UNSUPPORTED, message));
        }
        self.gdal(progress)?;
        let codec = self.options.compression.clone();
        Ok(Made { engine: Engine::Gdal, reason, codec, pixels: None, empty_tiles: 0 })
    }

    /// What the single-pass encoder needs, or why it does not do this.
    fn prepare(&self) -> Result<Result<stream::Prepared, String>, RasterError> {
        stream::prepare(self.open()?, self.options, self.encoding, self.plan)
    }

    /// The source as the single-pass encoder reads it.
    fn open(&self) -> Result<OpenSource, RasterError> {
        let mut source = OpenSource::open(self.path, self.options.input_crs.as_deref())?;
        if let Some(target) = self.options.target_crs.as_deref().filter(|_| self.warped) {
            source.warp(target, &self.options.resampling, self.plan.threads)?;
        }
        Ok(source)
    }

    fn stream(&self, prepared: stream::Prepared, progress: &mut dyn FnMut(f64)) -> Result<Made, RasterError> {
        let made = stream::encode(prepared, Output::at(self.target), progress)?;
        Ok(Made {
            engine: Engine::Native,
            reason: None,
            codec: made.codec,
            pixels: Some(hex(&made.pixels)),
            empty_tiles: made.summary.empty_tiles,
        })
    }

    /// GDAL's own COG driver.
    fn gdal(&self, progress: &mut dyn FnMut(f64)) -> Result<(), RasterError> {
        let mut list = self.encoding.options.clone();
        if !self.warped {
            list.retain(|option| !option.starts_with("TARGET_SRS=") && !option.starts_with("WARP_"));
            let overviews = overview_count(self.info.width, self.info.height, self.options.block_size);
            if overviews == 0 {
                list.retain(|option| !option.starts_with("OVERVIEWS="));
                list.push("OVERVIEWS=NONE".into());
            } else {
                list.push(format!("OVERVIEW_COUNT={overviews}"));
            }
        }
        list.push(format!("NUM_THREADS={}", self.plan.threads));
        let source = OpenSource::open(self.path, self.options.input_crs.as_deref())?;
        take_messages();
        Output::at(self.target)
            .write(|path| ffi::close(ffi::create_copy("COG", source.dataset(), path, &list, progress)?))
    }
}
