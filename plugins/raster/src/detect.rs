//! What kind of raster it is, from its header and statistics.

use geoworker_sdk::raster::{BandStatistics, RasterInfo};
use geoworker_sdk::serde_json::{Value, json};

/// Kinds that can be asked for.
pub const TYPES: &[&str] = &["auto", "rgb", "rgba", "dem", "categorical", "multispectral", "nir"];

/// Neighbours that differ by less than this share of the range are smooth (a surface, not classes or noise).
const SMOOTH: f64 = 0.08;
/// A fourth band with at most this many values is alpha.
const ALPHA_VALUES: u32 = 16;
/// From here on values are not classes.
const CLASSES: u32 = 256;

/// A verdict with its grounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// One of [`TYPES`] without `auto`, or `unknown`.
    pub kind: &'static str,
    /// 0 to 1.
    pub confidence: f64,
    /// Why.
    pub evidence: String,
}

impl Detected {
    /// For the result of a task.
    pub fn to_json(&self) -> Value {
        json!({"type": self.kind, "confidence": self.confidence, "evidence": self.evidence})
    }
}

/// Decides from the header and, where at hand, the statistics.
pub fn detect(info: &RasterInfo, statistics: &[BandStatistics]) -> Detected {
    let verdict = |kind, confidence, evidence: String| Detected { kind, confidence, evidence };
    let kind = info.bands.first().map_or("", |band| band.data_type.as_str());
    match info.bands.len() {
        1 => single(info, kind, statistics.first()),
        3 if matches!(kind, "uint8" | "uint16") => verdict("rgb", 0.9, format!("3 bands of {kind}")),
        4 => {
            let alpha = info.bands[3].color_interpretation == "alpha";
            let distinct = statistics.get(3).map_or(CLASSES, |band| band.distinct);
            if alpha {
                verdict("rgba", 0.95, "band 4 is declared as alpha".into())
            } else if distinct <= ALPHA_VALUES {
                verdict("rgba", 0.7, format!("band 4 has {distinct} distinct values"))
            } else {
                verdict("nir", 0.7, "4 bands, the fourth with many values".into())
            }
        }
        count if count >= 5 => verdict("multispectral", 0.9, format!("{count} bands")),
        count => verdict("unknown", 0.3, format!("{count} bands of {kind}")),
    }
}

fn single(info: &RasterInfo, kind: &str, statistics: Option<&BandStatistics>) -> Detected {
    let verdict = |kind, confidence, evidence: String| Detected { kind, confidence, evidence };
    if info.bands[0].color_table_entries > 0 {
        return verdict("categorical", 0.95, "the band has a colour table".into());
    }
    let Some(band) = statistics.filter(|band| band.valid > 0) else {
        return verdict("unknown", 0.2, "no valid pixels to judge by".into());
    };
    let integer = kind.contains("int") && !kind.starts_with('c');
    let smooth = band.roughness < SMOOTH;
    let measured =
        format!("{} distinct values, neighbours differ by {:.3} of the range", band.distinct, band.roughness);
    if integer && band.distinct < CLASSES && !smooth {
        return verdict("categorical", 0.7, measured);
    }
    let deep = kind.starts_with("float") || kind.ends_with("16") || kind.ends_with("32");
    if deep && !kind.starts_with('c') && smooth {
        return verdict("dem", if band.distinct >= CLASSES { 0.8 } else { 0.6 }, measured);
    }
    verdict("unknown", 0.3, measured)
}

/// Whether a raster can be what it was called, judged by its structure; the kinds it can be, where not.
pub fn contradiction(asked: &str, info: &RasterInfo) -> Option<String> {
    let count = info.bands.len();
    let integer = info.bands.first().is_some_and(|band| band.data_type.contains("int"));
    let fits = match asked {
        "rgb" => count == 3,
        "rgba" | "nir" => count == 4,
        "dem" => count == 1,
        "categorical" => count == 1 && integer,
        "multispectral" => count >= 2,
        _ => true,
    };
    let kind = info.bands.first().map_or("no data", |band| band.data_type.as_str());
    (!fits)
        .then(|| format!("the raster has {count} band(s) of {kind}, which '{asked}' cannot have; use auto"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{raster, statistics};

    fn kind(info: &RasterInfo, distinct: u32, roughness: f64) -> &'static str {
        let bands: Vec<_> =
            info.bands.iter().map(|band| statistics(band.index, distinct, roughness)).collect();
        detect(info, &bands).kind
    }

    #[test]
    fn verdicts_follow_bands_types_and_neighbours() {
        assert_eq!(kind(&raster("uint8", 3), 256, 0.1), "rgb");
        assert_eq!(kind(&raster("uint16", 3), 256, 0.1), "rgb");
        assert_eq!(kind(&raster("float32", 3), 256, 0.1), "unknown");
        assert_eq!(kind(&raster("uint8", 4), 200, 0.1), "nir");
        assert_eq!(kind(&raster("uint8", 4), 2, 0.1), "rgba");
        assert_eq!(kind(&raster("uint16", 7), 200, 0.1), "multispectral");
        assert_eq!(kind(&raster("float32", 1), 257, 0.01), "dem");
        assert_eq!(kind(&raster("int16", 1), 257, 0.01), "dem");
        assert_eq!(kind(&raster("uint8", 1), 12, 0.3), "categorical");
        assert_eq!(kind(&raster("float32", 1), 257, 0.4), "unknown");
        let mut alpha = raster("uint16", 4);
        alpha.bands[3].color_interpretation = "alpha".into();
        assert_eq!(kind(&alpha, 257, 0.1), "rgba");
        let mut palette = raster("uint8", 1);
        palette.bands[0].color_table_entries = 4;
        assert_eq!(kind(&palette, 4, 0.0), "categorical");
        assert_eq!(detect(&raster("int16", 1), &[]).kind, "unknown", "nothing to judge by");
    }

    #[test]
    fn a_structure_can_contradict_the_name() {
        assert!(contradiction("rgb", &raster("uint8", 1)).is_some());
        assert!(contradiction("categorical", &raster("float32", 1)).is_some());
        assert!(contradiction("dem", &raster("float32", 1)).is_none());
        assert!(contradiction("auto", &raster("uint8", 9)).is_none());
    }
}
