//! Encoder settings by raster type and output tier. Precedence: explicit parameter, then type rule, then default.

use geoworker_sdk::raster::RasterInfo;
use geoworker_sdk::serde_json::Value;
use geoworker_sdk::{Failure, params};

/// Output tiers.
pub const TIERS: &[&str] = &["analysis", "visualization", "archive"];
/// Compressions that can be asked for.
pub const COMPRESSIONS: &[&str] =
    &["none", "deflate", "zstd", "lzw", "jpeg", "webp", "lerc", "lerc_deflate", "lerc_zstd"];
/// Resampling methods of overviews.
pub const OVERVIEW_RESAMPLING: &[&str] = &["nearest", "average", "bilinear", "cubic", "mode", "rms", "gauss"];
/// Resampling methods of the warp.
pub const RESAMPLING: &[&str] = &["nearest", "average", "bilinear", "cubic", "mode", "rms"];

/// Quality of lossy codecs in the visualization tier.
const QUALITY: u8 = 85;
/// Highest level of DEFLATE that is worth its time.
const ARCHIVE_LEVEL: u8 = 9;
/// Level of DEFLATE in the analysis tier.
const ANALYSIS_LEVEL: u8 = 6;

/// What goes to the encoder.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub tier: String,
    pub compression: String,
    pub level: Option<u8>,
    pub quality: Option<u8>,
    pub overview_resampling: String,
    pub resampling: String,
}

/// Decides for a raster of type `kind`.
pub fn decide(info: &RasterInfo, kind: &str, values: &Value) -> Result<Settings, Failure> {
    let tier = params::optional(values, "output_tier").unwrap_or_else(|| "analysis".into());
    let explicit = params::optional(values, "compression");
    let compression = match &explicit {
        Some(name) => name.clone(),
        None => tier_compression(&tier, info)?,
    };
    check_codec(&compression, info)?;
    let lossy = matches!(compression.as_str(), "jpeg" | "webp");
    let asked_quality =
        values.get("jpeg_quality").and_then(Value::as_u64).map(|quality| quality.clamp(1, 100) as u8);
    if asked_quality.is_some() && !lossy {
        return Err(incompatible(format!(
            "jpeg_quality has no effect on {compression}; leave it away, or use compression jpeg or webp"
        )));
    }
    let (overview, warp) = resampling_rule(kind, info);
    let overview_resampling =
        params::optional(values, "overview_resampling").unwrap_or_else(|| overview.into());
    if kind == "categorical" && !matches!(overview_resampling.as_str(), "mode" | "nearest") {
        return Err(incompatible(format!(
            "overview_resampling {overview_resampling} would invent classes; use mode or nearest for categorical rasters"
        )));
    }
    Ok(Settings {
        level: level(&tier, &compression, explicit.is_some()),
        quality: lossy.then(|| asked_quality.unwrap_or(QUALITY)),
        overview_resampling,
        resampling: params::optional(values, "resampling").unwrap_or_else(|| warp.into()),
        tier,
        compression,
    })
}

/// Overview and warp resampling of a raster type.
fn resampling_rule(kind: &str, info: &RasterInfo) -> (&'static str, &'static str) {
    let complex = info.bands.first().is_some_and(|band| band.data_type.starts_with('c'));
    let palette = info.bands.iter().any(|band| band.color_table_entries > 0);
    match kind {
        _ if complex => ("nearest", "nearest"),
        "categorical" => ("mode", "nearest"),
        _ if palette => ("nearest", "nearest"),
        "rgb" | "rgba" => ("average", "cubic"),
        _ => ("average", "bilinear"),
    }
}

fn tier_compression(tier: &str, info: &RasterInfo) -> Result<String, Failure> {
    if tier != "visualization" {
        return Ok("deflate".into());
    }
    let name = if can_jpeg(info) && info.bands.len() == 3 { "jpeg" } else { "webp" };
    if name == "webp" && !can_webp(info) {
        let kind = info.bands.first().map_or("no data", |band| band.data_type.as_str());
        return Err(incompatible(format!(
            "output_tier visualization needs 8-bit data with 3 or 4 bands; this raster has {} of {kind}; use analysis or \
             archive",
            info.bands.len()
        )));
    }
    Ok(name.into())
}

fn check_codec(compression: &str, info: &RasterInfo) -> Result<(), Failure> {
    let kind = info.bands.first().map_or("", |band| band.data_type.as_str());
    let fits = match compression {
        "jpeg" => can_jpeg(info),
        "webp" => can_webp(info),
        name if name.starts_with("lerc") => !kind.starts_with('c') && !matches!(kind, "int64" | "uint64"),
        _ => true,
    };
    if fits {
        return Ok(());
    }
    let count = info.bands.len();
    Err(incompatible(format!(
        "compression {compression} cannot hold {count} band(s) of {kind}; use deflate, zstd or lzw"
    )))
}

fn can_jpeg(info: &RasterInfo) -> bool {
    let alpha = info.bands.iter().any(|band| band.color_interpretation == "alpha");
    let plain = info.bands.iter().all(|band| band.data_type == "uint8" && band.color_table_entries == 0);
    plain && (matches!(info.bands.len(), 1 | 3) || (info.bands.len() == 4 && alpha))
}

fn can_webp(info: &RasterInfo) -> bool {
    matches!(info.bands.len(), 3 | 4) && info.bands.iter().all(|band| band.data_type == "uint8")
}

fn level(tier: &str, compression: &str, explicit: bool) -> Option<u8> {
    match (tier, compression) {
        ("archive", "deflate") => Some(ARCHIVE_LEVEL),
        ("analysis", "deflate") if !explicit => Some(ANALYSIS_LEVEL),
        _ => None,
    }
}

fn incompatible(message: String) -> Failure {
    Failure::permanent("PARAM_INCOMPATIBLE", message)
}

#[cfg(test)]
mod tests {
    use geoworker_sdk::serde_json::json;

    use super::*;
    use crate::fixtures::raster;

    fn decided(info: &RasterInfo, kind: &str, values: Value) -> Settings {
        decide(info, kind, &values).unwrap_or_else(|failure| unreachable!("{failure:?}"))
    }

    #[test]
    fn tiers_and_types_decide() {
        let rgb = decided(&raster("uint8", 3), "rgb", json!({"output_tier": "visualization"}));
        assert_eq!((rgb.compression.as_str(), rgb.quality), ("jpeg", Some(85)));
        let rgba = decided(&raster("uint8", 4), "rgba", json!({"output_tier": "visualization"}));
        assert_eq!(rgba.compression, "webp");
        let archive = decided(&raster("int16", 1), "dem", json!({"output_tier": "archive"}));
        assert_eq!((archive.compression.as_str(), archive.level), ("deflate", Some(9)));
        let dem = decided(&raster("float32", 1), "dem", json!({}));
        assert_eq!(
            (dem.level, dem.overview_resampling.as_str(), dem.resampling.as_str()),
            (Some(6), "average", "bilinear")
        );
        let classes = decided(&raster("uint8", 1), "categorical", json!({}));
        assert_eq!((classes.overview_resampling.as_str(), classes.resampling.as_str()), ("mode", "nearest"));
        let complex = decided(&raster("cint16", 1), "unknown", json!({}));
        assert_eq!(complex.overview_resampling, "nearest");
    }

    /// Explicit parameter, then type rule.
    #[test]
    fn explicit_parameters_win() {
        let asked = json!({"compression": "zstd", "resampling": "cubic", "overview_resampling": "nearest"});
        let found = decided(&raster("uint8", 1), "categorical", asked);
        assert_eq!(found.compression, "zstd");
        assert_eq!(
            (found.resampling.as_str(), found.overview_resampling.as_str(), found.level),
            ("cubic", "nearest", None)
        );
    }

    #[test]
    fn what_does_not_fit_names_the_alternatives() {
        let refused = |info: &RasterInfo, kind, values| {
            decide(info, kind, &values).err().map(|failure| failure.message)
        };
        let float = raster("float32", 1);
        assert!(
            refused(&float, "dem", json!({"output_tier": "visualization"}))
                .is_some_and(|m| m.contains("analysis"))
        );
        assert!(
            refused(&float, "dem", json!({"compression": "jpeg"})).is_some_and(|m| m.contains("deflate"))
        );
        assert!(refused(&float, "dem", json!({"jpeg_quality": 80})).is_some());
        let classes = raster("uint8", 1);
        assert!(
            refused(&classes, "categorical", json!({"overview_resampling": "average"}))
                .is_some_and(|m| m.contains("mode"))
        );
    }
}
