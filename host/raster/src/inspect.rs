//! What the header of a raster says.

use std::path::Path;

use chrono::SecondsFormat;
use gdal::raster::RasterBand;
use gdal::spatial_ref::SpatialRef;
use gdal::{Dataset, Metadata};

use crate::environment::take_messages;
use crate::error::RasterError;
use crate::ffi::pixel_type;
use crate::footprint::{footprint, native_bounds};
use crate::model::{Band, Crs, RasterInfo};
use crate::{object, source};

/// Reads the header. `input_crs` overrides the CRS that the raster declares, unless it means the same.
///
/// # Errors
/// `FILE_EMPTY`, `FILE_UNREADABLE` or `CRS_INVALID`.
pub fn inspect(path: &Path, input_crs: Option<&str>) -> Result<RasterInfo, RasterError> {
    let dataset = source::open(path)?;
    let facts = object::facts(path)?;
    let declared = source::dataset_crs(&dataset);
    let crs = match input_crs {
        // Compared by meaning, not by text: what means the same stays as the raster declares it.
        Some(text) => {
            let asked = source::crs(text)?;
            Some(declared.filter(|declared| *declared == asked).unwrap_or(asked))
        }
        None => declared,
    };
    let (width, height) = dataset.raster_size();
    let bands =
        (1..=dataset.raster_count()).map(|index| band(&dataset, index)).collect::<Result<Vec<_>, _>>()?;
    let first = dataset.rasterband(1).ok();
    let (block_width, block_height) = first.as_ref().map_or((0, 0), RasterBand::block_size);
    let sample_bytes: usize = (1..=bands.len()).map(|index| pixel_type(&dataset, index).bytes()).sum();
    let bounds_native = native_bounds(&dataset);
    let placed = crs.as_ref().and_then(|srs| footprint(&dataset, srs));
    let structure = |key: &str| dataset.metadata_item(key, "IMAGE_STRUCTURE");
    let info = RasterInfo {
        size_bytes: facts.size_bytes,
        last_modified: facts.last_modified.to_rfc3339_opts(SecondsFormat::Secs, true),
        driver: dataset.driver().short_name(),
        width: width as u32,
        height: height as u32,
        mask: mask_kind(first.as_ref(), &bands),
        bands,
        crs: crs.as_ref().map(describe_crs),
        geotransform: dataset.geo_transform().map(|transform| transform.to_vec()).unwrap_or_default(),
        gcp_count: dataset.gcps().len() as u32,
        has_rpc: dataset.metadata_domain("RPC").is_some_and(|items| !items.is_empty()),
        bounds_native,
        bounds_wgs84: placed.as_ref().map(|placed| placed.bounds),
        footprint: placed.map(|placed| placed.geometry.to_string()),
        compression: structure("COMPRESSION"),
        block_width: block_width as u32,
        block_height: block_height as u32,
        overview_count: first.as_ref().and_then(|b| b.overview_count().ok()).unwrap_or(0).unsigned_abs(),
        declares_cog: structure("LAYOUT").as_deref() == Some("COG"),
        datetime: dataset.metadata_item("TIFFTAG_DATETIME", ""),
        sampling: dataset.metadata_item("AREA_OR_POINT", "").unwrap_or_else(|| "area".into()).to_lowercase(),
        // A header may claim any size.
        uncompressed_bytes: (width as u64).saturating_mul(height as u64).saturating_mul(sample_bytes as u64),
    };
    take_messages();
    Ok(info)
}

/// One band, from 1.
pub(crate) fn band(dataset: &Dataset, index: usize) -> Result<Band, RasterError> {
    let unreadable =
        |_| RasterError::gdal(crate::error::FILE_UNREADABLE, &format!("band {index} cannot be opened"));
    let band = dataset.rasterband(index).map_err(unreadable)?;
    let kind = pixel_type(dataset, index).name();
    let text = |value: String| (!value.is_empty()).then_some(value);
    Ok(Band {
        index: index as u32,
        data_type: kind.to_owned(),
        color_interpretation: band.color_interpretation().name().to_lowercase(),
        nodata: nodata(&band, kind),
        scale: band.scale().filter(|scale| *scale != 1.0),
        offset: band.offset().filter(|offset| *offset != 0.0),
        unit: text(band.unit()),
        description: band.description().ok().and_then(text),
        color_table_entries: band.color_table().map_or(0, |table| table.entry_count() as u32),
    })
}

/// The nodata value as exact text.
pub(crate) fn nodata(band: &RasterBand<'_>, kind: &str) -> Option<String> {
    match kind {
        "int64" => band.no_data_value_i64().map(|value| value.to_string()),
        "uint64" => band.no_data_value_u64().map(|value| value.to_string()),
        _ => band.no_data_value().map(
            |value| {
                if value.is_nan() { "nan".to_owned() } else { format!("{value}") }
            },
        ),
    }
}

fn mask_kind(first: Option<&RasterBand<'_>>, bands: &[Band]) -> String {
    let flags = first.and_then(|band| band.mask_flags().ok());
    let kind = match flags {
        Some(flags) if flags.is_alpha() => "alpha",
        Some(flags) if flags.is_nodata() => "nodata",
        Some(flags) if flags.is_per_dataset() => "per-dataset",
        _ if bands.iter().any(|band| band.color_interpretation == "alpha") => "alpha",
        _ => "none",
    };
    kind.to_owned()
}

fn describe_crs(srs: &SpatialRef) -> Crs {
    let described = Crs {
        code: source::crs_code(srs),
        name: srs.name().unwrap_or_default(),
        wkt: srs.to_wkt().unwrap_or_default(),
        projjson: srs.to_projjson().ok(),
        geographic: srs.is_geographic(),
    };
    take_messages();
    described
}
