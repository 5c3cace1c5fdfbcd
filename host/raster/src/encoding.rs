//! Which encodings are possible for which rasters, and the options that GDAL's COG driver takes for them.

use crate::error::{RASTER_UNSUPPORTED, RasterError};
use crate::model::{CogOptions, RasterInfo};

/// Codecs by their name here, with GDAL's name and what they can do.
const CODECS: &[Codec] = &[
    Codec { name: "none", gdal: "NONE", level: false, predictor: false },
    Codec { name: "deflate", gdal: "DEFLATE", level: true, predictor: true },
    Codec { name: "zstd", gdal: "ZSTD", level: true, predictor: true },
    Codec { name: "lzw", gdal: "LZW", level: false, predictor: true },
    Codec { name: "jpeg", gdal: "JPEG", level: false, predictor: false },
    Codec { name: "webp", gdal: "WEBP", level: false, predictor: false },
    Codec { name: "lerc", gdal: "LERC", level: false, predictor: false },
    Codec { name: "lerc_deflate", gdal: "LERC_DEFLATE", level: true, predictor: false },
    Codec { name: "lerc_zstd", gdal: "LERC_ZSTD", level: true, predictor: false },
];

/// Resampling methods of overviews.
pub const OVERVIEW_RESAMPLING: &[&str] = &["nearest", "average", "bilinear", "cubic", "mode", "rms", "gauss"];
/// Resampling methods of the warper.
pub const WARP_RESAMPLING: &[&str] = &["nearest", "average", "bilinear", "cubic", "mode", "rms"];
/// Smallest and largest edge of a block.
pub const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 128..=4096;

/// Quality of lossy codecs where none was asked for: GDAL's.
pub(crate) const DEFAULT_QUALITY: u8 = 75;

#[derive(Debug, Clone, Copy)]
struct Codec {
    name: &'static str,
    gdal: &'static str,
    level: bool,
    predictor: bool,
}

/// A checked encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// `KEY=VALUE` for GDAL's COG driver.
    pub options: Vec<String>,
    /// `KEY=VALUE` for GDAL's GeoTIFF driver: what a file's metadata says of the codec.
    pub described: Vec<String>,
    /// `none`, `horizontal` or `floating-point`.
    pub predictor: &'static str,
    /// Decoded pixels equal the source's.
    pub lossless: bool,
    /// Alpha becomes a mask, since the codec has no fourth band.
    pub alpha_to_mask: bool,
}

/// Checks `options` against the raster and turns them into GDAL's. Every option has an effect or is refused.
///
/// # Errors
/// `RASTER_UNSUPPORTED` with the alternative.
pub fn encoding(raster: &RasterInfo, options: &CogOptions) -> Result<Encoding, RasterError> {
    let names = || CODECS.iter().map(|codec| codec.name).collect::<Vec<_>>().join(", ");
    let codec = CODECS.iter().find(|codec| codec.name == options.compression).ok_or_else(|| {
        refuse(format!("compression '{}' is unknown; use one of {}", options.compression, names()))
    })?;
    check_names(options)?;
    check_codec(raster, codec)?;
    let predictor = predictor(raster, codec, &options.predictor)?;
    let alpha_to_mask = codec.name == "jpeg" && raster.bands.len() == 4;
    let mut list = vec![
        format!("COMPRESS={}", codec.gdal),
        format!("BLOCKSIZE={}", options.block_size),
        format!("OVERVIEW_RESAMPLING={}", options.overview_resampling.to_uppercase()),
        "OVERVIEWS=IGNORE_EXISTING".into(),
        "BIGTIFF=IF_SAFER".into(),
    ];
    if codec.predictor {
        let name = match predictor {
            "horizontal" => "STANDARD",
            "floating-point" => "FLOATING_POINT",
            _ => "NO",
        };
        list.extend([format!("PREDICTOR={name}"), format!("OVERVIEW_PREDICTOR={name}")]);
    }
    list.extend(level(codec, options)?);
    list.extend(quality(codec, options)?);
    if let Some(error) = options.max_z_error {
        if !codec.name.starts_with("lerc") || error.is_nan() || error < 0.0 {
            return Err(refuse("max_z_error is a non-negative number and goes with lerc compressions only"));
        }
        list.push(format!("MAX_Z_ERROR={error}"));
    }
    if options.sparse {
        list.push("SPARSE_OK=YES".into());
    }
    if let Some(crs) = &options.target_crs {
        list.push(format!("TARGET_SRS={crs}"));
        list.push(format!("WARP_RESAMPLING={}", options.resampling.to_uppercase()));
    }
    let lossy = match codec.name {
        "jpeg" => true,
        "webp" => options.quality != Some(100),
        name => name.starts_with("lerc") && options.max_z_error.unwrap_or(0.0) > 0.0,
    };
    let described = described(codec, options);
    Ok(Encoding { options: list, described, predictor, lossless: !lossy, alpha_to_mask })
}

/// Lossy codecs note their quality in the metadata.
fn described(codec: &Codec, options: &CogOptions) -> Vec<String> {
    let quality = options.quality.unwrap_or(DEFAULT_QUALITY);
    match codec.name {
        "jpeg" => vec!["COMPRESS=JPEG".into(), format!("JPEG_QUALITY={quality}")],
        "webp" if quality == 100 => vec!["COMPRESS=WEBP".into(), "WEBP_LOSSLESS=YES".into()],
        "webp" => vec!["COMPRESS=WEBP".into(), format!("WEBP_LEVEL={quality}")],
        _ => Vec::new(),
    }
}

/// Overviews of an image; see [`geoworker_cog::overview_sizes`].
#[must_use]
pub fn overview_count(width: u32, height: u32, block: u32) -> u32 {
    let sizes = geoworker_cog::overview_sizes(width as usize, height as usize, block as usize);
    u32::try_from(sizes.len()).unwrap_or(u32::MAX)
}

fn refuse(message: impl Into<String>) -> RasterError {
    RasterError::permanent(RASTER_UNSUPPORTED, message)
}

fn check_names(options: &CogOptions) -> Result<(), RasterError> {
    if !options.block_size.is_power_of_two() || !BLOCK_SIZES.contains(&options.block_size) {
        let (low, high) = (BLOCK_SIZES.start(), BLOCK_SIZES.end());
        return Err(refuse(format!(
            "block_size {} is not a power of two from {low} to {high}",
            options.block_size
        )));
    }
    for (what, name, known) in [
        ("overview_resampling", &options.overview_resampling, OVERVIEW_RESAMPLING),
        ("resampling", &options.resampling, WARP_RESAMPLING),
    ] {
        if !known.contains(&name.as_str()) {
            return Err(refuse(format!("{what} '{name}' is unknown; use one of {}", known.join(", "))));
        }
    }
    Ok(())
}

fn check_codec(raster: &RasterInfo, codec: &Codec) -> Result<(), RasterError> {
    let kinds: Vec<&str> = raster.bands.iter().map(|band| band.data_type.as_str()).collect();
    let count = kinds.len();
    if count == 0 {
        return Err(refuse("the raster has no band"));
    }
    if kinds.iter().any(|kind| kind != &kinds[0]) {
        return Err(refuse("the bands have different data types; a GeoTIFF has one"));
    }
    let byte = kinds[0] == "uint8";
    let palette = raster.bands.iter().any(|band| band.color_table_entries > 0);
    let alpha = raster.bands.iter().any(|band| band.color_interpretation == "alpha");
    match codec.name {
        "jpeg" if !byte || !(count == 1 || count == 3 || (count == 4 && alpha)) || palette => Err(refuse(
            "jpeg needs 8-bit data with 1 or 3 bands (and alpha or a mask) and no colour table; use deflate, zstd or lzw",
        )),
        "webp" if !byte || !(count == 3 || count == 4) => {
            Err(refuse("webp needs 8-bit data with 3 or 4 bands; use deflate, zstd or lzw"))
        }
        name if name.starts_with("lerc")
            && (kinds[0].starts_with('c') || kinds[0].ends_with("64") && kinds[0] != "float64") =>
        {
            Err(refuse("lerc cannot hold complex numbers or 64-bit integers; use deflate, zstd or lzw"))
        }
        _ => Ok(()),
    }
}

fn predictor(raster: &RasterInfo, codec: &Codec, asked: &str) -> Result<&'static str, RasterError> {
    let kind = raster.bands[0].data_type.as_str();
    let float = kind.starts_with("float");
    let small_integer = kind.ends_with("int8") || kind.ends_with("int16") || kind.ends_with("int32");
    let possible: &[&'static str] = match () {
        () if !codec.predictor => &["none"],
        () if float => &["floating-point", "horizontal", "none"],
        () if small_integer && !kind.starts_with('c') => &["horizontal", "none"],
        () => &["none"],
    };
    if asked == "auto" {
        return Ok(possible[0]);
    }
    let found = possible.iter().find(|name| **name == asked).copied();
    found.ok_or_else(|| {
        refuse(format!(
            "predictor '{asked}' does not go with {} on {kind}; use auto or {}",
            codec.name,
            possible.join(", ")
        ))
    })
}

fn level(codec: &Codec, options: &CogOptions) -> Result<Option<String>, RasterError> {
    let Some(level) = options.level else { return Ok(None) };
    let highest = if codec.gdal.ends_with("ZSTD") { 22 } else { 12 };
    if !codec.level {
        return Err(refuse(format!("{} has no level; leave it away", codec.name)));
    }
    if !(1..=highest).contains(&level) {
        return Err(refuse(format!("level {level} is not from 1 to {highest} for {}", codec.name)));
    }
    Ok(Some(format!("LEVEL={level}")))
}

fn quality(codec: &Codec, options: &CogOptions) -> Result<Vec<String>, RasterError> {
    let Some(quality) = options.quality else { return Ok(Vec::new()) };
    if !matches!(codec.name, "jpeg" | "webp") {
        return Err(refuse(format!("quality does not go with {}; it goes with jpeg and webp", codec.name)));
    }
    if !(1..=100).contains(&quality) {
        return Err(refuse(format!("quality {quality} is not from 1 to 100")));
    }
    Ok(vec![format!("QUALITY={quality}"), format!("OVERVIEW_QUALITY={quality}")])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Band;

    fn raster(kind: &str, bands: u32) -> RasterInfo {
        let band = |index| Band {
            index,
            data_type: kind.into(),
            color_interpretation: if index == 4 { "alpha" } else { "gray" }.into(),
            nodata: None,
            scale: None,
            offset: None,
            unit: None,
            description: None,
            color_table_entries: 0,
        };
        RasterInfo {
            size_bytes: 1,
            last_modified: String::new(),
            driver: "GTiff".into(),
            width: 10,
            height: 10,
            bands: (1..=bands).map(band).collect(),
            crs: None,
            geotransform: Vec::new(),
            gcp_count: 0,
            has_rpc: false,
            bounds_native: None,
            bounds_wgs84: None,
            footprint: None,
            compression: None,
            block_width: 10,
            block_height: 1,
            overview_count: 0,
            mask: "none".into(),
            declares_cog: false,
            datetime: None,
            sampling: "area".into(),
            uncompressed_bytes: 100,
        }
    }

    fn with(compression: &str) -> CogOptions {
        CogOptions { compression: compression.into(), ..CogOptions::default() }
    }

    #[test]
    fn predictors_follow_the_data_type() {
        for (kind, expected) in [
            ("uint8", "horizontal"),
            ("int32", "horizontal"),
            ("float32", "floating-point"),
            ("float64", "floating-point"),
            ("uint64", "none"),
            ("cint16", "none"),
            ("cfloat32", "none"),
        ] {
            assert_eq!(
                encoding(&raster(kind, 1), &with("deflate")).expect("fits").predictor,
                expected,
                "{kind}"
            );
        }
        let asked = CogOptions { predictor: "floating-point".into(), ..with("deflate") };
        assert_eq!(encoding(&raster("int16", 1), &asked).expect_err("is refused").code, RASTER_UNSUPPORTED);
    }

    #[test]
    fn what_a_codec_cannot_hold_is_refused_with_an_alternative() {
        for (compression, kind, bands) in [
            ("jpeg", "uint16", 3),
            ("jpeg", "uint8", 2),
            ("webp", "uint8", 1),
            ("webp", "float32", 3),
            ("lerc", "cfloat32", 1),
            ("lerc", "int64", 1),
            ("gzip", "uint8", 1),
            ("deflate", "uint8", 0),
        ] {
            let error = encoding(&raster(kind, bands), &with(compression)).expect_err("is refused");
            assert_eq!(error.code, RASTER_UNSUPPORTED);
        }
        assert!(encoding(&raster("uint8", 4), &with("jpeg")).expect("fits").alpha_to_mask);
    }

    #[test]
    fn an_option_has_an_effect_or_is_refused() {
        let level = CogOptions { level: Some(9), ..with("deflate") };
        let found = encoding(&raster("uint8", 3), &level).expect("fits");
        assert!(found.options.contains(&"LEVEL=9".to_owned()) && found.lossless);
        for bad in [
            CogOptions { level: Some(9), ..with("jpeg") },
            CogOptions { level: Some(30), ..with("zstd") },
            CogOptions { quality: Some(80), ..with("deflate") },
            CogOptions { quality: Some(0), ..with("jpeg") },
            CogOptions { max_z_error: Some(1.0), ..with("deflate") },
            CogOptions { block_size: 500, ..with("deflate") },
            CogOptions { overview_resampling: "lanczos".into(), ..with("deflate") },
        ] {
            assert!(encoding(&raster("uint8", 3), &bad).is_err(), "{bad:?}");
        }
        let quality = CogOptions { quality: Some(60), ..with("jpeg") };
        let found = encoding(&raster("uint8", 3), &quality).expect("fits");
        assert!(found.options.contains(&"QUALITY=60".to_owned()) && !found.lossless);
    }
}
