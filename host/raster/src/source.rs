//! Opening files that users supplied.

use std::io::Read;
use std::path::{Path, PathBuf};

use gdal::raster::RasterBand;
use gdal::spatial_ref::{AxisMappingStrategy, SpatialRef};
use gdal::{Dataset, DatasetOptions, DriverManager, GdalOpenFlags};

use crate::environment::{INPUT_DRIVERS, hide, take_messages};
use crate::error::{CRS_INVALID, FILE_EMPTY, FILE_UNREADABLE, GDAL_ERROR, RasterError};
use crate::ffi;
use crate::object::{self, Bytes, Object};

/// Length of the CRS text that a person may give; anything longer is no authority code.
const MAX_CRS_TEXT: usize = 64;

/// Opens a raster with the allowed drivers only. Cheap checks come first.
pub(crate) fn open(path: &Path) -> Result<Dataset, RasterError> {
    let path = &plain_path(path)?;
    hide(path, "the source");
    let mut magic = [0; 16];
    if object::facts(path)?.size_bytes == 0 {
        return Err(RasterError::permanent(FILE_EMPTY, "the file has no bytes"));
    }
    let read = Bytes::open(path)?.read(&mut magic)?;
    if !is_raster(&magic[..read]) {
        let message =
            "the file is not a TIFF, JPEG, PNG or JPEG 2000: its first bytes are those of something else";
        return Err(RasterError::permanent(FILE_UNREADABLE, message));
    }
    take_messages();
    let options = DatasetOptions {
        open_flags: GdalOpenFlags::GDAL_OF_READONLY
            | GdalOpenFlags::GDAL_OF_RASTER
            | GdalOpenFlags::GDAL_OF_VERBOSE_ERROR,
        allowed_drivers: Some(INPUT_DRIVERS),
        ..DatasetOptions::default()
    };
    let opened = Dataset::open_ex(path, options);
    opened.map_err(|_| RasterError::gdal(FILE_UNREADABLE, "the file cannot be opened as a raster"))
}

/// An absolute path, so that no part of it can mean a virtual file system or a piece of another file to GDAL; or an object
/// that was given to this process.
fn plain_path(path: &Path) -> Result<PathBuf, RasterError> {
    if Object::at(path).is_some() {
        return Ok(path.to_owned());
    }
    let absolute = std::path::absolute(path)?;
    if absolute.as_os_str().as_encoded_bytes().starts_with(b"/vsi") {
        return Err(RasterError::permanent(FILE_UNREADABLE, "virtual file systems are not allowed"));
    }
    Ok(absolute)
}

/// A CRS from an authority code such as `EPSG:4326`.
pub(crate) fn crs(text: &str) -> Result<SpatialRef, RasterError> {
    let invalid = || {
        let shown: String = text.chars().take(MAX_CRS_TEXT).flat_map(char::escape_debug).collect();
        RasterError::permanent(
            CRS_INVALID,
            format!("'{shown}' is not a known CRS; use a code such as EPSG:4326"),
        )
    };
    let (authority, code) = text.split_once(':').ok_or_else(invalid)?;
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if text.len() > MAX_CRS_TEXT || !plain(authority) || !plain(code) {
        return Err(invalid());
    }
    let mut srs = SpatialRef::from_definition(text).map_err(|_| invalid())?;
    srs.set_axis_mapping_strategy(AxisMappingStrategy::TraditionalGisOrder);
    take_messages();
    Ok(srs)
}

/// The CRS of a dataset, or that of its ground control points.
pub(crate) fn dataset_crs(dataset: &Dataset) -> Option<SpatialRef> {
    let srs = dataset.spatial_ref().ok().or_else(|| dataset.gcp_spatial_ref());
    take_messages();
    let mut srs = srs?;
    srs.set_axis_mapping_strategy(AxisMappingStrategy::TraditionalGisOrder);
    Some(srs)
}

/// `AUTHORITY:CODE` of a CRS, where it has or matches one.
pub(crate) fn crs_code(srs: &SpatialRef) -> Option<String> {
    if let (Some(name), Ok(code)) = (srs.auth_name(), srs.auth_code()) {
        return Some(format!("{name}:{code}"));
    }
    let mut copy = srs.clone();
    let found = copy
        .auto_identify_epsg()
        .ok()
        .and_then(|()| copy.auth_code().ok())
        .map(|code| format!("EPSG:{code}"));
    take_messages();
    // A match that means something else is no match.
    found.filter(|code| crs(code).is_ok_and(|candidate| candidate == *srs))
}

fn is_raster(magic: &[u8]) -> bool {
    const MAGICS: &[&[u8]] = &[
        b"II*\0",
        b"MM\0*",
        b"II+\0",
        b"MM\0+",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"\0\0\0\x0cjP  \r\n\x87\n",
        b"\xff\x4f\xff\x51",
    ];
    MAGICS.iter().any(|known| magic.starts_with(known))
}

/// A source with what was asked for laid over it in memory: another CRS, a reprojection.
pub(crate) struct OpenSource {
    /// Each reads through the one before it.
    layers: Vec<Dataset>,
}

impl OpenSource {
    /// Opens a source; `input_crs` replaces its own.
    pub(crate) fn open(path: &Path, input_crs: Option<&str>) -> Result<Self, RasterError> {
        let mut source = Self { layers: vec![open(path)?] };
        let Some(text) = input_crs else { return Ok(source) };
        let srs = crs(text)?;
        let failed = |_| RasterError::gdal(GDAL_ERROR, "the CRS cannot be assigned");
        let driver = DriverManager::get_driver_by_name("VRT").map_err(failed)?;
        let mut assigned = source.dataset().create_copy(&driver, "", &Default::default()).map_err(failed)?;
        assigned.set_spatial_ref(&srs).map_err(failed)?;
        source.layers.push(assigned);
        Ok(source)
    }

    /// Reprojects while pixels are read, as GDAL's COG driver does: to the size that GDAL suggests, and with an alpha band
    /// where there is no nodata to tell what lies outside of the source.
    pub(crate) fn warp(
        &mut self,
        target_crs: &str,
        resampling: &str,
        threads: usize,
    ) -> Result<(), RasterError> {
        crs(target_crs)?;
        let nodata = self.dataset().rasterband(1).is_ok_and(|band| has_nodata(&band));
        let threads = format!("NUM_THREADS={threads}");
        let mut arguments = vec!["-of", "VRT", "-t_srs", target_crs, "-r", resampling];
        arguments.extend(["-wo", "SAMPLE_GRID=YES", "-wo", &threads]);
        if !nodata {
            arguments.push("-dstalpha");
        }
        let warped = ffi::warp(self.dataset(), &arguments)?;
        self.layers.push(warped);
        Ok(())
    }

    /// The dataset to read.
    pub(crate) fn dataset(&self) -> &Dataset {
        // There is always the file itself.
        &self.layers[self.layers.len() - 1]
    }
}

impl Drop for OpenSource {
    fn drop(&mut self) {
        // From the top: a layer reads through the one below.
        while self.layers.pop().is_some() {}
    }
}

/// Whether a band has a nodata value, whatever its type.
fn has_nodata(band: &RasterBand<'_>) -> bool {
    band.mask_flags().is_ok_and(|flags| flags.is_nodata())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_reaches_a_virtual_file_system() {
        for path in ["/vsicurl/http://127.0.0.1/x.tif", "/vsimem/x.tif", "/vsizip//tmp/x.zip/x.tif"] {
            assert_eq!(open(Path::new(path)).expect_err("is refused").code, FILE_UNREADABLE, "{path}");
        }
        assert!(plain_path(Path::new("GTIFF_DIR:1:x.tif")).expect("is a path").is_absolute());
    }

    #[test]
    fn only_authority_codes_are_a_crs() {
        for text in
            ["", "4326", "EPSG:", "EPSG:4326;x", "+proj=longlat", "/vsicurl/x:y", "http://a", "EPSG:99999999"]
        {
            assert_eq!(crs(text).expect_err("is refused").code, CRS_INVALID, "{text}");
        }
        assert_eq!(crs_code(&crs("EPSG:32618").expect("is known")).as_deref(), Some("EPSG:32618"));
    }
}
