//! Requests and answers. Field names are those of the plugin contract in `wit/`, which documents each.

use serde::{Deserialize, Serialize};

#[expect(missing_docs, reason = "wit/plugin.wit documents each field")]
mod records {
    use super::{Deserialize, Serialize};

    /// A rectangle in the units of its CRS.
    #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
    pub struct Bounds {
        pub west: f64,
        pub south: f64,
        pub east: f64,
        pub north: f64,
    }

    /// A coordinate reference system.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Crs {
        pub code: Option<String>,
        pub name: String,
        pub wkt: String,
        pub projjson: Option<String>,
        pub geographic: bool,
    }

    /// One band of a raster.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct Band {
        pub index: u32,
        pub data_type: String,
        pub color_interpretation: String,
        pub nodata: Option<String>,
        pub scale: Option<f64>,
        pub offset: Option<f64>,
        pub unit: Option<String>,
        pub description: Option<String>,
        pub color_table_entries: u32,
    }

    /// What the header of a raster says.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct RasterInfo {
        pub size_bytes: u64,
        pub last_modified: String,
        pub driver: String,
        pub width: u32,
        pub height: u32,
        pub bands: Vec<Band>,
        pub crs: Option<Crs>,
        pub geotransform: Vec<f64>,
        pub gcp_count: u32,
        pub has_rpc: bool,
        pub bounds_native: Option<Bounds>,
        pub bounds_wgs84: Option<Bounds>,
        pub footprint: Option<String>,
        pub compression: Option<String>,
        pub block_width: u32,
        pub block_height: u32,
        pub overview_count: u32,
        pub mask: String,
        pub declares_cog: bool,
        pub datetime: Option<String>,
        pub sampling: String,
        pub uncompressed_bytes: u64,
    }

    /// Statistics of one band over the sampled pixels.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct BandStatistics {
        pub index: u32,
        pub sampled: u64,
        pub valid: u64,
        pub minimum: Option<f64>,
        pub maximum: Option<f64>,
        pub mean: Option<f64>,
        pub stddev: Option<f64>,
        pub distinct: u32,
        pub roughness: f64,
        pub integral: bool,
        pub extreme: u64,
        pub undeclared_nodata: u64,
    }

    /// How to encode.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct CogOptions {
        pub compression: String,
        pub level: Option<u8>,
        pub quality: Option<u8>,
        pub predictor: String,
        pub max_z_error: Option<f64>,
        pub block_size: u32,
        pub overview_resampling: String,
        pub resampling: String,
        pub input_crs: Option<String>,
        pub target_crs: Option<String>,
        /// Which encoder; guests have no say in it.
        #[serde(default)]
        pub engine: Engine,
        /// Decode the whole result and compare it with the source, instead of a sample of it. Default: yes.
        #[serde(default = "yes")]
        pub verify_pixels: bool,
        /// Store no tiles that hold nothing but nodata (or zeros): GDAL makes them up, other readers may not.
        #[serde(default)]
        pub sparse: bool,
    }

    fn yes() -> bool {
        true
    }

    /// Who encodes.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    pub enum Engine {
        /// The single-pass encoder, and GDAL where that one does not do what is asked for.
        #[default]
        Auto,
        /// The single-pass encoder, or a refusal.
        Native,
        /// GDAL's COG driver.
        Gdal,
    }

    /// What was made, after verification.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    pub struct CogReport {
        pub size_bytes: u64,
        pub sha256: String,
        pub width: u32,
        pub height: u32,
        pub compression: String,
        pub predictor: String,
        pub block_size: u32,
        pub overview_count: u32,
        pub overview_resampling: String,
        pub crs: Option<String>,
        pub pixel_sha256: String,
        pub pixels_verified: bool,
        pub not_carried: Vec<String>,
        pub encode_ms: u64,
        /// Who encoded: `native` or `gdal`.
        pub engine: Engine,
        /// Why it was not the single-pass encoder, where that was a choice.
        pub engine_reason: Option<String>,
        /// Codec and level, as chosen.
        pub codec: String,
        /// Tiles without data, which are not stored.
        pub empty_tiles: u64,
    }

    /// A requirement that a file does not meet.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct CogProblem {
        pub requirement: String,
        pub message: String,
    }

    /// Verdict on a file.
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    pub struct CogVerdict {
        pub valid: bool,
        pub problems: Vec<CogProblem>,
        pub warnings: Vec<CogProblem>,
    }

    /// A picture that was made.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
    pub struct PreviewReport {
        pub size_bytes: u64,
        pub width: u32,
        pub height: u32,
    }
}

pub use records::{
    Band, BandStatistics, Bounds, CogOptions, CogProblem, CogReport, CogVerdict, Crs, Engine, PreviewReport,
    RasterInfo,
};

impl Default for CogOptions {
    /// DEFLATE at its default level, predictor by data type, 512 blocks, average overviews.
    fn default() -> Self {
        Self {
            compression: "deflate".into(),
            level: None,
            quality: None,
            predictor: "auto".into(),
            max_z_error: None,
            block_size: 512,
            overview_resampling: "average".into(),
            resampling: "bilinear".into(),
            input_crs: None,
            target_crs: None,
            engine: Engine::Auto,
            verify_pixels: true,
            sparse: false,
        }
    }
}
