//! A dataset as the encoder sees it, or why it cannot.

use gdal::raster::ColorInterpretation;
use gdal::{Dataset, Metadata};
use geoworker_cog::overview::{Band, Colour, Image, Nodata};
use geoworker_cog::sample::SampleType;

use crate::ffi::pixel_type;
use crate::inspect;
use crate::verify::has_dataset_mask;

/// Size, type and bands of a dataset; a sentence where the encoder does not do such ones.
pub(crate) fn image(dataset: &Dataset) -> Result<Image, String> {
    let (width, height) = dataset.raster_size();
    let count = dataset.raster_count();
    let name = pixel_type(dataset, 1).name();
    let sample = sample_type(name).ok_or_else(|| format!("samples of type {name}"))?;
    if (2..=count).any(|band| pixel_type(dataset, band) != pixel_type(dataset, 1)) {
        return Err("bands of different types".into());
    }
    let mut bands = Vec::with_capacity(count);
    for number in 1..=count {
        bands.push(band(dataset, number, name, sample)?);
    }
    if bands.windows(2).any(|pair| !same_nodata(pair[0].nodata, pair[1].nodata)) {
        return Err("bands with different nodata values".into());
    }
    let palette = palette(dataset);
    if palette.is_some() && count > 1 {
        return Err("a colour table and several bands".into());
    }
    Ok(Image { width, height, sample, bands, mask: has_dataset_mask(dataset), palette })
}

fn band(dataset: &Dataset, number: usize, kind: &str, sample: SampleType) -> Result<Band, String> {
    let band = dataset.rasterband(number).map_err(|_| "a band that cannot be opened".to_owned())?;
    let structure = band.metadata_domain("IMAGE_STRUCTURE").unwrap_or_default();
    // Samples with fewer bits than their type, and signed bytes of older versions.
    if structure.iter().any(|item| item.starts_with("NBITS=") || item.starts_with("PIXELTYPE=")) {
        return Err("samples with an unusual number of bits".into());
    }
    let alpha = band.color_interpretation() == ColorInterpretation::AlphaBand;
    let nodata = inspect::nodata(&band, kind).map(|text| nodata(&text, sample)).transpose()?;
    Ok(Band { nodata, alpha })
}

fn nodata(text: &str, sample: SampleType) -> Result<Nodata, String> {
    let parsed = match sample {
        SampleType::I64 => text.parse().ok().map(Nodata::Int),
        SampleType::U64 => text.parse().ok().map(Nodata::UInt),
        _ => text.parse().ok().map(Nodata::Float),
    };
    parsed.ok_or_else(|| format!("nodata that is no {sample:?}"))
}

/// Takes the alpha band of a raster of colours away and has it as a mask; answers its number.
pub(crate) fn alpha_to_mask(image: &mut Image) -> Option<usize> {
    if image.bands.len() != 4 || image.mask {
        return None;
    }
    image.bands.pop_if(|last| last.alpha)?;
    image.mask = true;
    Some(image.bands.len() + 1)
}

fn same_nodata(one: Option<Nodata>, other: Option<Nodata>) -> bool {
    match (one, other) {
        (Some(Nodata::Float(one)), Some(Nodata::Float(other))) => one.to_bits() == other.to_bits(),
        (one, other) => one == other,
    }
}

fn palette(dataset: &Dataset) -> Option<Vec<Colour>> {
    let band = dataset.rasterband(1).ok()?;
    let table = band.color_table()?;
    let byte = |value: i16| u8::try_from(value.clamp(0, 255)).unwrap_or(0);
    let colour = |index| {
        let entry = table.entry_as_rgb(index);
        entry.map_or([0; 4], |entry| [entry.r, entry.g, entry.b, entry.a].map(byte))
    };
    Some((0..table.entry_count()).map(colour).collect())
}

fn sample_type(name: &str) -> Option<SampleType> {
    Some(match name {
        "uint8" => SampleType::U8,
        "int8" => SampleType::I8,
        "uint16" => SampleType::U16,
        "int16" => SampleType::I16,
        "uint32" => SampleType::U32,
        "int32" => SampleType::I32,
        "uint64" => SampleType::U64,
        "int64" => SampleType::I64,
        "float32" => SampleType::F32,
        "float64" => SampleType::F64,
        "cint16" => SampleType::ComplexI16,
        "cint32" => SampleType::ComplexI32,
        "cfloat32" => SampleType::ComplexF32,
        "cfloat64" => SampleType::ComplexF64,
        _ => return None,
    })
}

/// What an empty tile is read as: nodata, or zero. None where nodata is no value of the type.
pub(crate) fn fill(image: &Image) -> Option<[u8; 16]> {
    let mut fill = [0; 16];
    let Some(nodata) = image.bands.first().and_then(|band| band.nodata) else { return Some(fill) };
    let bytes: Vec<u8> = match (nodata, image.sample) {
        (Nodata::Int(value), SampleType::I64) => value.to_ne_bytes().to_vec(),
        (Nodata::UInt(value), SampleType::U64) => value.to_ne_bytes().to_vec(),
        (Nodata::Float(value), SampleType::F32) => {
            let narrow = value as f32;
            (f64::from(narrow) == value || value.is_nan()).then(|| narrow.to_ne_bytes().to_vec())?
        }
        (Nodata::Float(value), SampleType::F64) => value.to_ne_bytes().to_vec(),
        (Nodata::Float(value), sample) => integer(value, sample)?,
        _ => return None,
    };
    fill[..bytes.len()].copy_from_slice(&bytes);
    Some(fill)
}

fn integer(value: f64, sample: SampleType) -> Option<Vec<u8>> {
    if value.fract() != 0.0 || value.abs() > f64::from(u32::MAX) {
        return None;
    }
    let value = value as i64;
    Some(match sample {
        SampleType::U8 => u8::try_from(value).ok()?.to_ne_bytes().to_vec(),
        SampleType::I8 => i8::try_from(value).ok()?.to_ne_bytes().to_vec(),
        SampleType::U16 => u16::try_from(value).ok()?.to_ne_bytes().to_vec(),
        SampleType::I16 => i16::try_from(value).ok()?.to_ne_bytes().to_vec(),
        SampleType::U32 => u32::try_from(value).ok()?.to_ne_bytes().to_vec(),
        SampleType::I32 => i32::try_from(value).ok()?.to_ne_bytes().to_vec(),
        _ => return None,
    })
}
