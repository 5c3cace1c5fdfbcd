//! Verification of an output before anybody can see it.

use std::io;
use std::path::Path;

use gdal::{Dataset, Metadata};
use sha2::{Digest, Sha256};

use crate::encoding::overview_count;
use crate::error::{COG_INVALID, RasterError};
use crate::ffi::{BYTE, PixelType, Plane, Window, pixel_type, read_raw};
use crate::inspect::inspect;
use crate::model::{CogOptions, RasterInfo};
use crate::object::Bytes;
use crate::source;
use crate::validate::validate_cog;

/// What the output must be.
pub(crate) struct Expectation<'a> {
    pub(crate) source: &'a Dataset,
    pub(crate) info: &'a RasterInfo,
    pub(crate) options: &'a CogOptions,
    /// Decoded pixels are those of `source`.
    pub(crate) comparable: bool,
    pub(crate) alpha_to_mask: bool,
    pub(crate) warped: bool,
    /// Rows that are compared at a time; at least 1.
    pub(crate) strip_rows: usize,
    pub(crate) depth: Depth,
}

/// How many pixels of the output are decoded.
pub(crate) enum Depth {
    /// All of them, and compared with the source's where they must be equal.
    Whole,
    /// Those of some windows, compared with the source's. The text is the hash of the source's pixels.
    Sample(String),
}

/// Windows of a sample, across and down.
const SAMPLE: usize = 4;

/// What it is.
pub(crate) struct Verified {
    pub(crate) info: RasterInfo,
    pub(crate) sha256: String,
    pub(crate) pixel_sha256: String,
    pub(crate) pixels_compared: bool,
    pub(crate) not_carried: Vec<String>,
}

pub(crate) fn verify(
    path: &Path,
    expected: &Expectation<'_>,
    progress: &mut dyn FnMut(f64),
) -> Result<Verified, RasterError> {
    let verdict = validate_cog(path)?;
    if let Some(problem) = verdict.problems.first() {
        return Err(invalid(format!("layout ({}): {}", problem.requirement, problem.message)));
    }
    let info = inspect(path, None)?;
    check_header(&info, expected)?;
    let output = source::open(path)?;
    let compare = expected.comparable;
    let against = compare.then_some(expected.source);
    // One reads the file, the other one decodes parts of it.
    let hashed = std::thread::scope(|scope| {
        let hash = scope.spawn(|| file_sha256(path));
        let checked = match &expected.depth {
            Depth::Whole => check_pixels(&output, against, expected.strip_rows, progress),
            Depth::Sample(digest) => check_sample(&output, expected).map(|()| digest.clone()),
        };
        let hash = hash.join().unwrap_or_else(|_| Err(io::Error::other("the hash was not computed").into()));
        checked.and_then(|pixels| Ok((pixels, hash?)))
    });
    let (pixel_sha256, sha256) = hashed?;
    let pixels_compared = compare && matches!(expected.depth, Depth::Whole);
    let not_carried = if expected.warped { Vec::new() } else { not_carried(&output, &info, expected) };
    Ok(Verified { info, sha256, pixel_sha256, pixels_compared, not_carried })
}

fn invalid(message: impl Into<String>) -> RasterError {
    RasterError::permanent(COG_INVALID, message)
}

fn check_header(info: &RasterInfo, expected: &Expectation<'_>) -> Result<(), RasterError> {
    let (source, options) = (expected.info, expected.options);
    let bands = source.bands.len() - usize::from(expected.alpha_to_mask);
    if !expected.warped && (info.width, info.height, info.bands.len()) != (source.width, source.height, bands)
    {
        return Err(invalid("size or band count differ from the source's"));
    }
    let edge = options.block_size;
    if (info.block_width, info.block_height) != (edge, edge) && info.width.max(info.height) > edge {
        return Err(invalid(format!("blocks are {} × {}", info.block_width, info.block_height)));
    }
    let overviews = overview_count(info.width, info.height, edge);
    // The size of a warped raster is not known before, so that a thin one may have got more.
    let enough = info.overview_count == overviews || (expected.warped && info.overview_count > overviews);
    if !enough {
        return Err(invalid(format!("{} overviews instead of {overviews}", info.overview_count)));
    }
    let nodata = |info: &RasterInfo| info.bands.first().and_then(|band| band.nodata.clone());
    if nodata(info) != nodata(source) {
        return Err(invalid(format!("nodata is {:?} instead of {:?}", nodata(info), nodata(source))));
    }
    let wanted = options.target_crs.as_deref().filter(|_| expected.warped);
    match (wanted, &source.crs, &info.crs) {
        (Some(code), _, Some(found)) => same_crs(code, found.code.as_deref().unwrap_or(&found.wkt)),
        (None, Some(declared), Some(found)) if declared.code == found.code => Ok(()),
        (None, None, _) => Ok(()),
        _ => Err(invalid("the CRS was not carried over")),
    }
}

fn same_crs(wanted: &str, found: &str) -> Result<(), RasterError> {
    if source::crs(wanted)? == source::crs(found)? {
        Ok(())
    } else {
        Err(invalid(format!("the CRS is {found}")))
    }
}

/// Reads every pixel of the output, strip by strip, and compares it with the source.
fn check_pixels(
    output: &Dataset,
    source: Option<&Dataset>,
    strip_rows: usize,
    progress: &mut dyn FnMut(f64),
) -> Result<String, RasterError> {
    let (width, height) = output.raster_size();
    let planes: Vec<(Plane, PixelType)> =
        (1..=output.raster_count()).map(|n| (Plane::Band(n), pixel_type(output, n))).collect();
    let mask = has_dataset_mask(output);
    let mut buffers = vec![Vec::new(); planes.len()];
    let mut hasher = Sha256::new();
    let mut other = Vec::new();
    for y in (0..height).step_by(strip_rows) {
        let window = Window { x: 0, y, width, height: strip_rows.min(height - y) };
        for ((plane, kind), buffer) in planes.iter().zip(&mut buffers) {
            read_raw(output, *plane, window, *kind, buffer)?;
            if let Some(source) = source {
                read_raw(source, *plane, window, *kind, &mut other)?;
                compare(buffer, &other, y)?;
            }
        }
        if let (true, Some(source)) = (mask, source) {
            let mut own = Vec::new();
            read_raw(output, Plane::Mask, window, BYTE, &mut own)?;
            read_raw(source, Plane::Mask, window, BYTE, &mut other)?;
            compare(&own, &other, y)?;
        }
        for row in 0..window.height {
            for ((_, kind), buffer) in planes.iter().zip(&buffers) {
                let length = width * kind.bytes();
                hasher.update(&buffer[row * length..(row + 1) * length]);
            }
        }
        progress((y + window.height) as f64 / height as f64);
    }
    Ok(hex(&hasher.finalize()))
}

/// Reads windows of one block, spread over the output and at its edges, and compares them with the source.
fn check_sample(output: &Dataset, expected: &Expectation<'_>) -> Result<(), RasterError> {
    let (width, height) = output.raster_size();
    let edge = expected.options.block_size as usize;
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for y in places(height, edge) {
        for x in places(width, edge) {
            let window = Window { x, y, width: edge.min(width - x), height: edge.min(height - y) };
            for band in 1..=output.raster_count() {
                let kind = pixel_type(output, band);
                read_raw(output, Plane::Band(band), window, kind, &mut own)?;
                read_raw(expected.source, Plane::Band(band), window, kind, &mut other)?;
                compare(&own, &other, y)?;
            }
        }
    }
    Ok(())
}

/// Beginnings of blocks: the first one, the last one, and some between them.
fn places(length: usize, edge: usize) -> Vec<usize> {
    let last = length.div_ceil(edge) - 1;
    let mut places: Vec<usize> = (0..SAMPLE).map(|number| last * number / (SAMPLE - 1) * edge).collect();
    places.dedup();
    places
}

fn compare(output: &[u8], source: &[u8], row: usize) -> Result<(), RasterError> {
    if output == source {
        return Ok(());
    }
    Err(invalid(format!("pixels from row {row} on differ from the source's")))
}

pub(crate) fn has_dataset_mask(dataset: &Dataset) -> bool {
    let flags = dataset.rasterband(1).ok().and_then(|band| band.mask_flags().ok());
    flags.is_some_and(|flags| flags.is_per_dataset() && !flags.is_alpha())
}

/// Names what the source has and the output lacks.
fn not_carried(output: &Dataset, info: &RasterInfo, expected: &Expectation<'_>) -> Vec<String> {
    let mut missing = Vec::new();
    for (before, after) in expected.info.bands.iter().zip(&info.bands) {
        let pairs = [
            ("scale", before.scale != after.scale),
            ("offset", before.offset != after.offset),
            ("unit", before.unit != after.unit),
            ("description", before.description != after.description),
            ("colour table", before.color_table_entries != after.color_table_entries),
            ("nodata", before.nodata != after.nodata),
            ("colour interpretation", before.color_interpretation != after.color_interpretation),
        ];
        let lost = pairs.iter().filter(|(_, differs)| *differs);
        missing.extend(lost.map(|(what, _)| format!("{what} of band {}", before.index)));
    }
    if expected.info.gcp_count != info.gcp_count {
        missing.push("ground control points".into());
    }
    if expected.info.has_rpc && !info.has_rpc {
        missing.push("rational polynomial coefficients".into());
    }
    let kept = output.metadata_domain("").unwrap_or_default();
    let tags = expected.source.metadata_domain("").unwrap_or_default();
    // The COG driver declares its own overview resampling, and area-or-point is compared through GDAL's default.
    let lost = tags.into_iter().filter(|tag| !kept.contains(tag) && !tag.starts_with("OVR_RESAMPLING_ALG="));
    missing.extend(lost.filter_map(|tag| tag.split_once('=').map(|(key, _)| format!("tag {key}"))));
    missing
}

fn file_sha256(path: &Path) -> Result<String, RasterError> {
    struct Sink(Sha256);
    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(Sha256::new());
    io::copy(&mut Bytes::open(path)?, &mut sink)?;
    Ok(hex(&sink.0.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
