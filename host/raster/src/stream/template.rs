//! What a GeoTIFF says about a raster, taken from GDAL itself: it writes the header of one with a single pixel, and the
//! fields are carried over. So the georeference, metadata, colours and everything else is written as GDAL does it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use gdal::Gcp;
use gdal::{Dataset, DatasetOptions, DriverManager, GdalOpenFlags, Metadata};
use geoworker_cog::tiff::{Field, Kind};

use crate::encoding::Encoding;
use crate::environment::take_messages;
use crate::error::{GDAL_ERROR, RasterError};
use crate::ffi;

/// Fields of every image of a file: photometric interpretation, colour map, extra samples, nodata.
const SHARED: &[u16] = &[262, 320, 338, 42113];
/// Fields that the encoder writes itself: type, size and layout of an image, and where its data is.
const STRUCTURE: &[u16] =
    &[254, 256, 257, 258, 259, 266, 273, 277, 278, 279, 284, 317, 322, 323, 324, 325, 339, 347, 530, 532];

/// Fields of a raster's file.
#[derive(Debug, Default)]
pub(crate) struct Template {
    pub(crate) shared: Vec<Field>,
    pub(crate) own: Vec<Field>,
}

/// Asks GDAL. `without` is a band that the file will not have.
pub(crate) fn template(
    dataset: &Dataset,
    without: Option<usize>,
    encoding: &Encoding,
) -> Result<Template, RasterError> {
    let pixel = single_pixel(dataset, without)?;
    let file = InMemory::new();
    let copy = ffi::create_copy("GTiff", &pixel, &file.0, &encoding.described, &mut |_| ())?;
    ffi::close(copy)?;
    let bytes = gdal::vsi::get_vsi_mem_file_bytes_owned(&file.0).map_err(|_| failed())?;
    let fields = fields(&bytes).ok_or_else(failed)?;
    let kept = fields.into_iter().filter(|field| !STRUCTURE.contains(&field.tag));
    let (shared, own) = kept.partition(|field| SHARED.contains(&field.tag));
    Ok(Template { shared, own })
}

fn failed() -> RasterError {
    RasterError::gdal(GDAL_ERROR, "the header cannot be made")
}

/// A file that exists in this process only, and goes with this value.
struct InMemory(PathBuf);

impl InMemory {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(PathBuf::from(format!("/vsimem/geoworker-template-{number}.tif")))
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        // Nothing is left where it was taken out.
        let _ = gdal::vsi::unlink_mem_file(&self.0);
        take_messages();
    }
}

/// The dataset with everything but its size: a description of it, in which the size is changed.
fn single_pixel(dataset: &Dataset, without: Option<usize>) -> Result<Dataset, RasterError> {
    let driver = DriverManager::get_driver_by_name("VRT").map_err(|_| failed())?;
    let whole = dataset.create_copy(&driver, "", &Default::default()).map_err(|_| failed())?;
    let text =
        whole.metadata_domain("xml:VRT").and_then(|list| list.into_iter().next()).ok_or_else(failed)?;
    let (width, height) = dataset.raster_size();
    let size = format!("rasterXSize=\"{width}\" rasterYSize=\"{height}\"");
    let mut small = text.replacen(&size, "rasterXSize=\"1\" rasterYSize=\"1\"", 1);
    if let Some(band) = without {
        small = without_band(&small, band).ok_or_else(failed)?;
    }
    let options = DatasetOptions {
        open_flags: GdalOpenFlags::GDAL_OF_UPDATE | GdalOpenFlags::GDAL_OF_RASTER,
        allowed_drivers: Some(&["VRT"]),
        ..DatasetOptions::default()
    };
    // GDAL takes the text itself for a name. It made the text, and no part of it is a name that a person gave.
    let pixel = Dataset::open_ex(small, options).map_err(|_| failed())?;
    keep_nodata(dataset, &pixel)?;
    keep_gcps(dataset, &pixel)?;
    Ok(pixel)
}

/// The description has nodata with fewer digits than it may have.
fn keep_nodata(dataset: &Dataset, pixel: &Dataset) -> Result<(), RasterError> {
    for number in 1..=pixel.raster_count() {
        let mut band = pixel.rasterband(number).map_err(|_| failed())?;
        let exact = dataset.rasterband(number).ok().and_then(|band| band.no_data_value());
        if ffi::pixel_type(dataset, number).is_float() && exact != band.no_data_value() {
            band.set_no_data_value(exact).map_err(|_| failed())?;
        }
    }
    Ok(())
}

/// The description has ground control points with fewer digits than they have.
fn keep_gcps(dataset: &Dataset, pixel: &Dataset) -> Result<(), RasterError> {
    let gcps: Vec<Gcp> = dataset.gcps().iter().map(Gcp::from).collect();
    let Some(srs) = dataset.gcp_spatial_ref().filter(|_| !gcps.is_empty()) else { return Ok(()) };
    pixel.set_gcps(gcps, &srs).map_err(|_| failed())
}

/// The description without the element of a band.
fn without_band(text: &str, band: usize) -> Option<String> {
    const END: &str = "</VRTRasterBand>";
    let name = format!(" band=\"{band}\"");
    let mut from = 0;
    loop {
        let start = from + text[from..].find("<VRTRasterBand ")?;
        let tag = start + text[start..].find('>')?;
        let end = tag + text[tag..].find(END)? + END.len();
        if text[start..tag].contains(&name) {
            return Some(format!("{}{}", &text[..start], &text[end..]));
        }
        from = end;
    }
}

/// The fields of the first directory of a little-endian classic TIFF.
fn fields(file: &[u8]) -> Option<Vec<Field>> {
    let short = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?));
    if file.get(..4)? != b"II*\0" {
        return None;
    }
    let directory = usize::try_from(long(4)?).ok()?;
    let count = usize::from(short(directory)?);
    (0..count)
        .map(|number| {
            let entry = directory + 2 + 12 * number;
            let kind = Kind::of(short(entry + 2)?)?;
            let bytes = usize::try_from(long(entry + 4)?).ok()?.checked_mul(kind.bytes())?;
            let start = if bytes <= 4 { entry + 8 } else { usize::try_from(long(entry + 8)?).ok()? };
            let value = file.get(start..start.checked_add(bytes)?)?.to_vec();
            Some(Field { tag: short(entry)?, kind, value })
        })
        .collect()
}
