//! Rasters for the unit tests of the decisions.

use geoworker_sdk::raster::{Band, BandStatistics, RasterInfo};

/// `count` bands of one data type, with nothing special.
pub fn raster(kind: &str, count: u32) -> RasterInfo {
    let band = |index| Band {
        index,
        data_type: kind.into(),
        color_interpretation: "gray".into(),
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
        bands: (1..=count).map(band).collect(),
        crs: None,
        geotransform: Vec::new(),
        gcp_count: 0,
        has_rpc: false,
        bounds_native: None,
        bounds_wgs84: None,
        footprint: None,
        compression: None,
        block_width: 10,
        block_height: 10,
        overview_count: 0,
        mask: "none".into(),
        declares_cog: false,
        datetime: None,
        sampling: "area".into(),
        uncompressed_bytes: 100,
    }
}

/// Statistics of one band.
pub fn statistics(index: u32, distinct: u32, roughness: f64) -> BandStatistics {
    BandStatistics {
        index,
        sampled: 100,
        valid: 100,
        minimum: Some(0.0),
        maximum: Some(1.0),
        mean: None,
        stddev: None,
        distinct,
        roughness,
        integral: true,
        extreme: 0,
        undeclared_nodata: 0,
    }
}
