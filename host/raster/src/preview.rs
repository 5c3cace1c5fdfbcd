//! A small picture for people: colours as they are, other data stretched between the 2nd and 98th percentile.

use std::path::Path;

use gdal::raster::{Buffer, ColorTable, ResampleAlg};
use gdal::{Dataset, DriverManager};

use crate::environment::{hide, take_messages};
use crate::error::{FILE_UNREADABLE, GDAL_ERROR, RasterError};
use crate::ffi;
use crate::model::PreviewReport;
use crate::output::Output;
use crate::{object, source};

/// Share of the values below and above the stretch.
const TAIL: f64 = 0.02;

/// Writes a PNG whose longest edge is `max_edge` or less.
///
/// # Errors
/// `FILE_UNREADABLE` where pixels cannot be read, `GDAL_ERROR` or `DISK_FULL` where the picture cannot be written.
pub fn preview(source_path: &Path, target: &Path, max_edge: u32) -> Result<PreviewReport, RasterError> {
    let dataset = source::open(source_path)?;
    let output = Output::at(target);
    hide(&output.place(), "the preview");
    let (width, height) = dataset.raster_size();
    let scale = (f64::from(max_edge) / width.max(height) as f64).min(1.0);
    let edge = |n: usize| ((n as f64 * scale).round() as usize).max(1);
    let size = (edge(width), edge(height));
    let planes = planes(&dataset, size)?;
    let failed = |_| RasterError::gdal(GDAL_ERROR, "the preview cannot be made");
    let memory = DriverManager::get_driver_by_name("MEM").map_err(failed)?;
    let picture = memory.create_with_band_type::<u8, _>("", size.0, size.1, planes.len()).map_err(failed)?;
    for (index, plane) in planes.into_iter().enumerate() {
        let mut band = picture.rasterband(index + 1).map_err(failed)?;
        band.write((0, 0), size, &mut Buffer::new(size, plane)).map_err(failed)?;
    }
    take_messages();
    output.write(|path| ffi::close(ffi::create_copy("PNG", &picture, path, &[], &mut |_| {})?))?;
    let size_bytes = object::facts(target)?.size_bytes;
    Ok(PreviewReport { size_bytes, width: size.0 as u32, height: size.1 as u32 })
}

/// Colour planes and alpha, 8 bit.
fn planes(dataset: &Dataset, size: (usize, usize)) -> Result<Vec<Vec<u8>>, RasterError> {
    let unreadable = |_| RasterError::gdal(FILE_UNREADABLE, "the pixels cannot be read");
    let alpha = alpha(dataset, size)?;
    let first = dataset.rasterband(1).map_err(unreadable)?;
    if let Some(table) = first.color_table() {
        let values = values(dataset, 1, size, ResampleAlg::NearestNeighbour)?;
        return Ok(with_alpha(paint(&values, &table), &alpha));
    }
    let colours = if dataset.raster_count() >= 3 { 3 } else { 1 };
    let byte = ffi::pixel_type(dataset, 1).name() == "uint8";
    let mut planes = Vec::new();
    for index in 1..=colours {
        let values = values(dataset, index, size, ResampleAlg::Average)?;
        planes.push(if byte { to_bytes(&values, 0.0, 255.0) } else { stretch(&values, &alpha) });
    }
    Ok(with_alpha(planes, &alpha))
}

fn values(
    dataset: &Dataset,
    index: usize,
    size: (usize, usize),
    resampling: ResampleAlg,
) -> Result<Vec<f64>, RasterError> {
    let unreadable =
        |_| RasterError::gdal(FILE_UNREADABLE, &format!("the pixels of band {index} cannot be read"));
    let band = dataset.rasterband(index).map_err(unreadable)?;
    // Complex numbers have no average: their real parts are picked.
    let complex = ffi::pixel_type(dataset, index).name().starts_with('c');
    let resampling = if complex { ResampleAlg::NearestNeighbour } else { resampling };
    let read = band.read_as::<f64>((0, 0), band.size(), size, Some(resampling));
    Ok(read.map_err(unreadable)?.data().to_vec())
}

fn alpha(dataset: &Dataset, size: (usize, usize)) -> Result<Vec<u8>, RasterError> {
    let unreadable = |_| RasterError::gdal(FILE_UNREADABLE, "the mask cannot be read");
    let band = dataset.rasterband(1).map_err(unreadable)?;
    let mask = band.open_mask_band().map_err(unreadable)?;
    let nearest = Some(ResampleAlg::NearestNeighbour);
    Ok(mask.read_as::<u8>((0, 0), band.size(), size, nearest).map_err(unreadable)?.data().to_vec())
}

fn with_alpha(mut planes: Vec<Vec<u8>>, alpha: &[u8]) -> Vec<Vec<u8>> {
    if alpha.iter().any(|value| *value != 255) {
        planes.push(alpha.iter().map(|value| if *value == 0 { 0 } else { 255 }).collect());
    }
    planes
}

fn paint(values: &[f64], table: &ColorTable<'_>) -> Vec<Vec<u8>> {
    let colour = |value: &f64| {
        let entry = table.entry_as_rgb(*value as usize);
        entry.map_or([0; 3], |rgba| [rgba.r, rgba.g, rgba.b].map(|part| part.clamp(0, 255) as u8))
    };
    let colours: Vec<[u8; 3]> = values.iter().map(colour).collect();
    (0..3).map(|part| colours.iter().map(|colour| colour[part]).collect()).collect()
}

fn stretch(values: &[f64], alpha: &[u8]) -> Vec<u8> {
    let mut sorted: Vec<f64> =
        values.iter().zip(alpha).filter(|(v, a)| **a != 0 && v.is_finite()).map(|(v, _)| *v).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    if sorted.is_empty() {
        return vec![0; values.len()];
    }
    to_bytes(values, at(TAIL), at(1.0 - TAIL))
}

fn to_bytes(values: &[f64], low: f64, high: f64) -> Vec<u8> {
    let range = if high > low { high - low } else { 1.0 };
    // Casts of floats saturate and turn NaN into 0, which is what is wanted here.
    values.iter().map(|value| ((value - low) / range * 255.0).round() as u8).collect()
}
