//! `validate_raster`: header first, data second, then findings.

use geoworker_sdk::raster::{self, BandStatistics, Crs, RasterInfo};
use geoworker_sdk::serde_json::{Value, json};
use geoworker_sdk::{BlobRef, Failure, Finding, Task, TaskType, TaskTypeInfo, host, params};

use crate::detect::{self, Detected};
use crate::naming;
use crate::settings;

/// Pixels per band that are looked at.
pub const SAMPLE_PIXELS: u64 = 4 << 20;
/// Share of empty pixels that is an error.
const EMPTY_ERROR: f64 = 0.99;
/// Share of empty pixels that is worth a warning.
const EMPTY_WARNING: f64 = 0.90;
/// Most bands that a raster may have.
const MAX_BANDS: usize = 100;
/// Bytes that encoding needs besides the block rows in flight, and bytes of block rows per column and band.
const MEMORY_BASE: u64 = 256 << 20;

pub struct ValidateRaster;

/// Properties that name the source; shared by the schemas of tasks and jobs.
pub fn source_properties() -> Value {
    json!({
        "container_name": {"type": "string", "minLength": 1, "description": "Container of the source in the bronze zone"},
        "blob_name": {"type": "string", "minLength": 1, "description": "Name of the source within its container"},
        "input_crs": {"type": "string", "minLength": 3, "maxLength": 64,
                      "description": "CRS of the source, where the file does not say it (EPSG:32618)"},
        "raster_type": {"enum": detect::TYPES, "description": "What the raster is; auto looks at it"},
        "strict_mode": {"type": "boolean", "description": "Warnings fail too"}
    })
}

impl TaskType for ValidateRaster {
    fn name(&self) -> &'static str {
        "validate_raster"
    }

    fn describe(&self) -> TaskTypeInfo {
        TaskTypeInfo {
            summary: "Checks a raster and says what it is",
            class: "raster",
            parameters: json!({
                "type": "object",
                "properties": source_properties(),
                "required": ["container_name", "blob_name"],
                "additionalProperties": false
            }),
            result: json!({
                "type": "object",
                "properties": {
                    "info": {"type": "object"},
                    "raster_type": {"type": "object"},
                    "findings": {"type": "array"},
                    "recommended": {"type": ["object", "null"]}
                },
                "required": ["info", "raster_type", "findings"]
            }),
            operations: &["raster.inspect", "raster.statistics"],
            zones: &["bronze:read"],
            max_retries: None,
            timeout_seconds: Some(1800),
        }
    }

    fn inputs(&self, values: &Value) -> Vec<BlobRef> {
        vec![naming::source(values)]
    }

    fn handle(&self, task: &Task) -> Result<Value, Failure> {
        let source = naming::source(&task.params);
        let declared = raster::inspect(&source, None)?;
        let asked_crs = params::optional(&task.params, "input_crs");
        let info = match &asked_crs {
            Some(crs) => raster::inspect(&source, Some(crs))?,
            None => declared.clone(),
        };
        host::progress(0.3, "header read");
        let mut findings = Vec::new();
        header_findings(&declared, &info, &mut findings);
        let statistics = if info.bands.is_empty() || info.bands.len() > MAX_BANDS {
            Vec::new()
        } else {
            raster::statistics(&source, SAMPLE_PIXELS)?
        };
        host::progress(0.9, "pixels sampled");
        let detected = detect::detect(&info, &statistics);
        let asked = params::optional(&task.params, "raster_type").unwrap_or_else(|| "auto".into());
        let kind = type_findings(&asked, &detected, &info, &mut findings);
        data_findings(&info, &statistics, &kind, &mut findings);
        verdict(&findings, params::flag(&task.params, "strict_mode"))?;
        Ok(report(&info, &statistics, &detected, &kind, &findings))
    }
}

/// Fails with the first finding that must not pass; the message lists the others.
fn verdict(findings: &[Finding], strict: bool) -> Result<(), Failure> {
    let fatal = |finding: &&Finding| finding.severity == "error" || (strict && finding.severity == "warning");
    let mut bad = findings.iter().filter(fatal);
    let Some(first) = bad.next() else { return Ok(()) };
    let others: Vec<String> = bad.map(|finding| format!("{}: {}", finding.code, finding.message)).collect();
    let mut message = first.message.clone();
    if !others.is_empty() {
        message = format!("{message} Also: {}", others.join(" "));
    }
    Err(Failure::permanent(&first.code, message))
}

fn header_findings(declared: &RasterInfo, info: &RasterInfo, findings: &mut Vec<Finding>) {
    let count = info.bands.len();
    if count == 0 || count > MAX_BANDS {
        findings.push(Finding::error(
            "RASTER_BAND_INVALID",
            "",
            format!("The raster has {count} bands; 1 to {MAX_BANDS} are possible."),
        ));
    }
    match (&declared.crs, &info.crs) {
        (_, None) => findings.push(Finding::error(
            "CRS_MISSING",
            "/input_crs",
            "The raster names no coordinate reference system; submit it with input_crs, for example EPSG:32618.",
        )),
        // The host keeps what the raster declares where input_crs means the same.
        (Some(found), Some(asked)) if found.wkt != asked.wkt => {
            let name = |crs: &Crs| crs.code.clone().unwrap_or_else(|| crs.name.clone());
            let message = format!(
                "The raster says {} and input_crs says {}; leave input_crs away or correct the source.",
                name(found),
                name(asked)
            );
            findings.push(Finding::error("CRS_MISMATCH", "/input_crs", message));
        }
        _ => {}
    }
    bounds_findings(info, findings);
    let nodata: Vec<&Option<String>> = info.bands.iter().map(|band| &band.nodata).collect();
    if nodata.iter().any(|value| *value != nodata[0]) {
        findings.push(Finding::warning(
            "RASTER_NODATA_CONFLICT",
            "",
            "The bands have different nodata values; a GeoTIFF has one, that of the first band.",
        ));
    }
}

fn bounds_findings(info: &RasterInfo, findings: &mut Vec<Finding>) {
    let suspicious = |message: &str| Finding::warning("BOUNDS_SUSPICIOUS", "", message);
    if info.geotransform.len() != 6 {
        if info.gcp_count == 0 && !info.has_rpc {
            findings.push(Finding::error(
                "BOUNDS_SUSPICIOUS",
                "",
                "The raster has no geotransform, no ground control points and no RPCs: nothing says where it lies.",
            ));
        }
        return;
    }
    let t = &info.geotransform;
    if t[2] != 0.0 || t[4] != 0.0 {
        findings.push(suspicious("The raster is rotated; it is kept as it is."));
    } else if t[5] > 0.0 {
        findings.push(suspicious("The raster is stored south-up; it is kept as it is."));
    }
    if t[1] * t[5] - t[2] * t[4] == 0.0 {
        findings.push(Finding::error(
            "BOUNDS_SUSPICIOUS",
            "",
            "The geotransform has no area: pixels have no size.",
        ));
    } else if info.crs.is_some() && info.footprint.is_none() {
        findings.push(suspicious("The bounds have no place on Earth in the raster's CRS."));
    }
}

/// Decides the type to go on with.
fn type_findings(asked: &str, detected: &Detected, info: &RasterInfo, findings: &mut Vec<Finding>) -> String {
    if asked == "auto" {
        return detected.kind.to_owned();
    }
    if let Some(reason) = detect::contradiction(asked, info) {
        findings.push(Finding::error("RASTER_TYPE_MISMATCH", "/raster_type", format!("As asked, {reason}.")));
    } else if detected.kind != asked && detected.confidence >= 0.7 {
        let message = format!("It looks like '{}' ({}), not '{asked}'.", detected.kind, detected.evidence);
        findings.push(Finding::warning("RASTER_TYPE_MISMATCH", "/raster_type", message));
    }
    asked.to_owned()
}

fn data_findings(info: &RasterInfo, statistics: &[BandStatistics], kind: &str, findings: &mut Vec<Finding>) {
    let sampled: u64 = statistics.iter().map(|band| band.sampled).sum();
    let valid: u64 = statistics.iter().map(|band| band.valid).sum();
    if sampled > 0 {
        let empty = 1.0 - valid as f64 / sampled as f64;
        let message = format!("{:.1} % of the sampled pixels are nodata.", empty * 100.0);
        if empty >= EMPTY_ERROR {
            findings.push(Finding::error("RASTER_EMPTY", "", message));
        } else if empty >= EMPTY_WARNING {
            findings.push(Finding::warning("RASTER_EMPTY", "", message));
        }
    }
    if kind != "categorical" && statistics.iter().any(|band| band.extreme > 0) {
        findings.push(Finding::warning(
            "RASTER_EXTREME_VALUES",
            "",
            "Values of 1e30 or more; they are mostly an undeclared nodata value.",
        ));
    }
    // One in a thousand: a lone pixel of that value may be data.
    if statistics.iter().any(|band| band.undeclared_nodata * 1000 > band.sampled) {
        findings.push(Finding::warning(
            "RASTER_NODATA_CONFLICT",
            "",
            "Many pixels have a value that usually means nodata, but none is declared.",
        ));
    }
    for (band, found) in info.bands.iter().zip(statistics) {
        let wide = matches!(band.data_type.as_str(), "float64" | "int64" | "uint64")
            || band.data_type.starts_with('c');
        let whole = band.data_type.starts_with("float") && found.integral && found.valid > 1;
        if wide || whole {
            let reason = if whole { "holds whole numbers only" } else { "is wider than most values need" };
            let message = format!("Band {} is {} and {reason}.", band.index, band.data_type);
            findings.push(Finding {
                severity: "info".into(),
                ..Finding::warning("BIT_DEPTH_WASTE", "", message)
            });
            break;
        }
    }
}

fn report(
    info: &RasterInfo,
    statistics: &[BandStatistics],
    detected: &Detected,
    kind: &str,
    findings: &[Finding],
) -> Value {
    let recommended = settings::decide(info, kind, &json!({})).ok().map(|settings| {
        json!({
            "compression": settings.compression,
            "level": settings.level,
            "overview_resampling": settings.overview_resampling,
            "resampling": settings.resampling
        })
    });
    let pixels = u64::from(info.width) * u64::from(info.height);
    let sample_bytes = info.uncompressed_bytes.checked_div(pixels).unwrap_or(1);
    let block_row = (u64::from(info.width) * 512).saturating_mul(sample_bytes);
    json!({
        "info": info,
        "statistics": statistics,
        "raster_type": detected.to_json(),
        "resolved_type": kind,
        "findings": findings,
        "recommended": recommended,
        "estimate": {
            "memory_bytes": MEMORY_BASE.saturating_add(block_row.saturating_mul(3)),
            "scratch_bytes": info.uncompressed_bytes / 3,
            "output_bytes": info.uncompressed_bytes.saturating_add(info.uncompressed_bytes / 3)
        }
    })
}
