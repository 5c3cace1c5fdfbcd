//! Making a Cloud Optimized GeoTIFF: check, encode, verify.

use std::path::Path;
use std::time::Instant;

use gdal::{Dataset, DriverManager};

use crate::encoding::{encoding, overview_count};
use crate::environment::{hide, take_messages};
use crate::error::{GDAL_ERROR, RasterError};
use crate::estimate::Plan;
use crate::ffi;
use crate::inspect::inspect;
use crate::model::{CogOptions, CogReport};
use crate::source;
use crate::verify::{Expectation, verify};

/// Share of the progress that encoding takes; verification takes the rest.
const ENCODE_SHARE: f64 = 0.85;

/// Encodes `source` as a COG at `target` (which must not be in use) and verifies the result.
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

fn encode_and_verify(
    source_path: &Path,
    target: &Path,
    options: &CogOptions,
    plan: &Plan,
    progress: &mut dyn FnMut(f64),
) -> Result<CogReport, RasterError> {
    let info = inspect(source_path, options.input_crs.as_deref())?;
    let mut encoding = encoding(&info, options)?;
    let target_crs = options.target_crs.as_deref().map(source::crs).transpose()?;
    let same_crs = target_crs.as_ref().is_some_and(|crs| {
        info.crs
            .as_ref()
            .and_then(|declared| declared.code.as_deref())
            .and_then(|code| source::crs(code).ok())
            == Some(crs.clone())
    });
    if same_crs {
        // Already there: a warp would only resample.
        encoding.options.retain(|option| !option.starts_with("TARGET_SRS=") && !option.starts_with("WARP_"));
    }
    let warped = target_crs.is_some() && !same_crs;
    let overviews = overview_count(info.width, info.height, options.block_size);
    if !warped && overviews == 0 {
        encoding.options.retain(|option| !option.starts_with("OVERVIEWS="));
        encoding.options.push("OVERVIEWS=NONE".into());
    } else if !warped {
        encoding.options.push(format!("OVERVIEW_COUNT={overviews}"));
    }
    encoding.options.push(format!("NUM_THREADS={}", plan.threads));
    hide(target, "the output");
    let started = Instant::now();
    let source = Source::open(source_path, options.input_crs.as_deref())?;
    take_messages();
    let copy = ffi::create_copy("COG", source.dataset(), target, &encoding.options, &mut |fraction| {
        progress(fraction * ENCODE_SHARE);
    })?;
    ffi::close(copy)?;
    let encode_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let expectation = Expectation {
        source: source.dataset(),
        info: &info,
        options,
        lossless: encoding.lossless,
        alpha_to_mask: encoding.alpha_to_mask,
        warped,
        strip_rows: plan.strip_rows.max(1),
    };
    let verified = verify(target, &expectation, &mut |fraction| {
        progress(ENCODE_SHARE + fraction * (1.0 - ENCODE_SHARE));
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
    })
}

/// A source with the CRS that was asked for.
struct Source {
    /// Laid over `base` in memory. Declared first: it is closed first, since it reads through `base`.
    assigned: Option<Dataset>,
    base: Dataset,
}

impl Source {
    fn open(path: &Path, input_crs: Option<&str>) -> Result<Self, RasterError> {
        let base = source::open(path)?;
        let Some(text) = input_crs else { return Ok(Self { assigned: None, base }) };
        let srs = source::crs(text)?;
        let failed = |_| RasterError::gdal(GDAL_ERROR, "the CRS cannot be assigned");
        let driver = DriverManager::get_driver_by_name("VRT").map_err(failed)?;
        let mut assigned = base.create_copy(&driver, "", &Default::default()).map_err(failed)?;
        assigned.set_spatial_ref(&srs).map_err(failed)?;
        Ok(Self { assigned: Some(assigned), base })
    }

    fn dataset(&self) -> &Dataset {
        self.assigned.as_ref().unwrap_or(&self.base)
    }
}
