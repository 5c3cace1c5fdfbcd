//! `extract_stac_metadata`: a STAC 1.1 item and a preview for a COG.

use geoworker_sdk::raster::{self, BandStatistics, CogReport, PreviewRequest, RasterInfo};
use geoworker_sdk::serde_json::{self, Map, Value, json};
use geoworker_sdk::{BlobRef, Failure, Task, TaskType, TaskTypeInfo, catalog, host, params};

use crate::naming;
use crate::validate::SAMPLE_PIXELS;

const EXTENSIONS: &[&str] = &[
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
];
/// Longest edge of the preview in pixels.
const PREVIEW_EDGE: u32 = 512;
/// Multihash prefix of SHA-256: function 0x12, length 0x20.
const SHA256_MULTIHASH: &str = "1220";

pub struct ExtractStacMetadata;

impl TaskType for ExtractStacMetadata {
    fn name(&self) -> &'static str {
        "extract_stac_metadata"
    }

    fn describe(&self) -> TaskTypeInfo {
        TaskTypeInfo {
            summary: "Writes a STAC item and a preview beside a COG",
            class: "raster",
            parameters: json!({
                "type": "object",
                "properties": {
                    "cog": {"type": "object", "description": "The report of create_cog"},
                    "raster_type": {"type": "string"},
                    "source": {"type": "object"},
                    "source_modified": {"type": "string"},
                    "datetime": {"type": ["string", "null"]},
                    "collection_id": {"type": "string", "minLength": 1},
                    "item_id": {"type": "string", "minLength": 1}
                },
                "required": ["cog", "source", "source_modified"],
                "additionalProperties": false
            }),
            result: json!({
                "type": "object",
                "properties": {"item_id": {"type": "string"}, "item": {"type": "object"}, "preview": {"type": "object"}},
                "required": ["item_id", "item", "preview"]
            }),
            operations: &["raster.inspect", "raster.statistics", "raster.preview", "catalog.publish-item"],
            zones: &["silver:read", "silver:write"],
            max_retries: None,
            timeout_seconds: Some(1800),
        }
    }

    fn handle(&self, task: &Task) -> Result<Value, Failure> {
        let cog: CogReport = params::parse("the report of create_cog", task.params["cog"].clone())?;
        let info = raster::inspect(&cog.target, None)?;
        let statistics = raster::statistics(&cog.target, SAMPLE_PIXELS)?;
        host::progress(0.5, "COG read");
        let preview = raster::preview(&PreviewRequest {
            source: cog.target.clone(),
            target: naming::beside(&cog.target, "png"),
            max_edge: PREVIEW_EDGE,
        })?;
        let item_id =
            params::optional(&task.params, "item_id").unwrap_or_else(|| naming::item_id(&cog.target));
        let item = item(&item_id, &task.params, &cog, &info, &statistics)?;
        let published = catalog::publish_item(&item.to_string(), &naming::beside(&cog.target, "json"))?;
        Ok(json!({"item_id": item_id, "item": published.blob, "preview": preview.target}))
    }
}

fn item(
    id: &str,
    values: &Value,
    cog: &CogReport,
    info: &RasterInfo,
    statistics: &[BandStatistics],
) -> Result<Value, Failure> {
    let mut properties = projection(info)?;
    let (datetime, origin) = datetime(values);
    properties.insert("datetime".into(), json!(datetime));
    properties.insert("geoworker:datetime_from".into(), json!(origin));
    let source: BlobRef = params::parse("the source", values["source"].clone())?;
    properties.insert(
        "geoworker:source".into(),
        json!(format!("{}:{}/{}", source.zone, source.container, source.name)),
    );
    if let Some(kind) = params::optional(values, "raster_type") {
        properties.insert("geoworker:raster_type".into(), json!(kind));
    }
    let mut item = json!({
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": EXTENSIONS,
        "id": id,
        "geometry": footprint(info)?,
        "properties": properties,
        "links": [],
        "assets": {
            "data": {
                "href": format!("./{}", file_name(&cog.target)),
                "type": "image/tiff; application=geotiff; profile=cloud-optimized",
                "roles": ["data"],
                "bands": bands(info, statistics),
                "file:size": cog.size_bytes,
                "file:checksum": format!("{SHA256_MULTIHASH}{}", cog.sha256)
            },
            "thumbnail": {
                "href": format!("./{}", file_name(&naming::beside(&cog.target, "png"))),
                "type": "image/png",
                "roles": ["thumbnail"]
            }
        }
    });
    if let Some(bounds) = &info.bounds_wgs84 {
        item["bbox"] = json!([bounds.west, bounds.south, bounds.east, bounds.north]);
    }
    if let Some(collection) = params::optional(values, "collection_id") {
        item["collection"] = json!(collection);
        // The standard wants a link to the collection; its place is the catalogue's to know.
        item["links"] = json!([{"rel": "collection", "href": format!("./{collection}.json"), "type": "application/json"}]);
    }
    Ok(item)
}

fn projection(info: &RasterInfo) -> Result<Map<String, Value>, Failure> {
    let mut properties = Map::new();
    let code = info.crs.as_ref().and_then(|crs| crs.code.clone());
    properties.insert("proj:code".into(), json!(code));
    if let (None, Some(crs)) = (&code, &info.crs) {
        match &crs.projjson {
            Some(text) => properties.insert("proj:projjson".into(), parse("PROJJSON", text)?),
            None => properties.insert("proj:wkt2".into(), json!(crs.wkt)),
        };
    }
    properties.insert("proj:shape".into(), json!([info.height, info.width]));
    if let [x, dx, rx, y, ry, dy] = info.geotransform[..] {
        properties.insert("proj:transform".into(), json!([dx, rx, x, ry, dy, y]));
    }
    if let Some(bounds) = &info.bounds_native {
        properties.insert("proj:bbox".into(), json!([bounds.west, bounds.south, bounds.east, bounds.north]));
    }
    Ok(properties)
}

/// The footprint, or null where the raster has no place (STAC then wants no bbox either).
fn footprint(info: &RasterInfo) -> Result<Value, Failure> {
    info.footprint.as_deref().map_or(Ok(Value::Null), |text| parse("the footprint", text))
}

fn parse(what: &str, text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::permanent("STAC_INVALID", format!("{what} is not JSON: {error}")))
}

/// When the data is from, and who says so: the file's own tag, else the source's time of writing.
fn datetime(values: &Value) -> (String, &'static str) {
    let tag = params::optional(values, "datetime").and_then(|text| tiff_datetime(&text));
    match tag {
        Some(time) => (time, "TIFFTAG_DATETIME"),
        None => (params::text(values, "source_modified").to_owned(), "last-modified"),
    }
}

/// `YYYY:MM:DD HH:MM:SS` as RFC 3339; none for anything else.
pub fn tiff_datetime(text: &str) -> Option<String> {
    let (date, time) = text.trim().split_once(' ')?;
    let number = |part: &str, length: usize, low: u32, high: u32| {
        let value: u32 = part.parse().ok().filter(|_| part.len() == length)?;
        (low..=high).contains(&value).then_some(value)
    };
    let date: Vec<&str> = date.split(':').collect();
    let time: Vec<&str> = time.split(':').collect();
    let ([year, month, day], [hour, minute, second]) = (&date[..], &time[..]) else { return None };
    let year = number(year, 4, 1, 9999)?;
    let month = number(month, 2, 1, 12)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let day = number(day, 2, 1, days)?;
    let (hour, minute, second) =
        (number(hour, 2, 0, 23)?, number(minute, 2, 0, 59)?, number(second, 2, 0, 59)?);
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

fn bands(info: &RasterInfo, statistics: &[BandStatistics]) -> Vec<Value> {
    let one = |band: &raster::Band| {
        let mut value =
            json!({"name": band.description.clone().unwrap_or_else(|| format!("band_{}", band.index))});
        value["data_type"] = json!(band.data_type);
        value["raster:sampling"] = json!(info.sampling);
        if let Some(nodata) = &band.nodata {
            value["nodata"] = nodata_value(nodata);
        }
        if let Some(unit) = &band.unit {
            value["unit"] = json!(unit);
        }
        for (key, number) in [("raster:scale", band.scale), ("raster:offset", band.offset)] {
            if let Some(number) = number.filter(|number| number.is_finite()) {
                value[key] = json!(number);
            }
        }
        if let Some(found) = statistics.iter().find(|found| found.index == band.index) {
            value["statistics"] = band_statistics(found);
        }
        if value["statistics"].is_null() {
            value.as_object_mut().map(|map| map.remove("statistics"));
        }
        value
    };
    info.bands.iter().map(one).collect()
}

fn nodata_value(text: &str) -> Value {
    match text.parse::<f64>() {
        Ok(number) if number.is_nan() => json!("nan"),
        Ok(number) if number.is_infinite() => json!(if number > 0.0 { "inf" } else { "-inf" }),
        _ => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
    }
}

fn band_statistics(found: &BandStatistics) -> Value {
    let mut map = Map::new();
    let numbers = [
        ("minimum", found.minimum),
        ("maximum", found.maximum),
        ("mean", found.mean),
        ("stddev", found.stddev),
    ];
    for (key, number) in numbers {
        if let Some(number) = number.filter(|number| number.is_finite()) {
            map.insert(key.into(), json!(number));
        }
    }
    if found.sampled > 0 {
        map.insert("valid_percent".into(), json!(found.valid as f64 / found.sampled as f64 * 100.0));
    }
    if map.is_empty() { Value::Null } else { Value::Object(map) }
}

fn file_name(blob: &BlobRef) -> &str {
    blob.name.rsplit('/').next().unwrap_or(&blob.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_tag_is_a_datetime() {
        assert_eq!(tiff_datetime("2024:02:29 23:59:58").as_deref(), Some("2024-02-29T23:59:58Z"));
        for bad in [
            "",
            "2024-02-29",
            "2023:02:29 00:00:00",
            "2024:13:01 00:00:00",
            "0000:00:00 00:00:00",
            "x:y:z a:b:c",
        ] {
            assert_eq!(tiff_datetime(bad), None, "{bad}");
        }
    }

    #[test]
    fn nodata_stays_exact() {
        assert_eq!(nodata_value("-9999"), json!(-9999));
        assert_eq!(nodata_value("18446744073709551615"), json!(18_446_744_073_709_551_615_u64));
        assert_eq!(nodata_value("nan"), json!("nan"));
    }
}
