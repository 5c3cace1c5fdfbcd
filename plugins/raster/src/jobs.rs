//! `validate_raster_job` and `process_raster`.

use geoworker_sdk::serde_json::{Map, Value, json};
use geoworker_sdk::{
    BlobRef, Failure, Finding, Job, JobType, JobTypeInfo, Planned, StageInfo, params, results,
};

use crate::cog::output_properties;
use crate::naming;
use crate::settings::COMPRESSIONS;
use crate::validate::source_properties;

pub struct ValidateRasterJob;
pub struct ProcessRaster;

const VALIDATE_KEYS: &[&str] = &["container_name", "blob_name", "input_crs", "raster_type", "strict_mode"];
const COG_KEYS: &[&str] = &[
    "container_name",
    "blob_name",
    "input_crs",
    "target_crs",
    "output_tier",
    "compression",
    "jpeg_quality",
    "resampling",
    "overview_resampling",
    "output_folder",
];

impl JobType for ValidateRasterJob {
    fn name(&self) -> &'static str {
        "validate_raster_job"
    }

    fn describe(&self) -> JobTypeInfo {
        JobTypeInfo {
            summary: "Checks a raster and recommends how to encode it",
            parameters: json!({
                "type": "object",
                "properties": source_properties(),
                "required": ["container_name", "blob_name"],
                "additionalProperties": false
            }),
            stages: vec![StageInfo { name: "validate_raster", on_failure: "fail" }],
            task_types: &["validate_raster"],
        }
    }

    fn inputs(&self, values: &Value) -> Vec<BlobRef> {
        vec![naming::source(values)]
    }

    fn plan(&self, job: &Job, _stage: u32) -> Result<Vec<Planned>, Failure> {
        Ok(vec![validate(job)])
    }

    fn finalize(&self, _job: &Job) -> Result<Value, Failure> {
        output(1)
    }
}

impl JobType for ProcessRaster {
    fn name(&self) -> &'static str {
        "process_raster"
    }

    fn describe(&self) -> JobTypeInfo {
        let mut properties = source_properties();
        let more = json!({
            "collection_id": {"type": "string", "minLength": 1, "maxLength": 128, "description": "STAC collection of the item"},
            "item_id": {"type": "string", "minLength": 1, "maxLength": 256, "description": "Id of the STAC item; made of the name where missing"}
        });
        if let Some(all) = properties.as_object_mut() {
            for part in [output_properties(), more] {
                all.extend(part.as_object().cloned().unwrap_or_default());
            }
        }
        let stage = |name| StageInfo { name, on_failure: "fail" };
        JobTypeInfo {
            summary: "Makes a verified COG, a STAC item and a preview of a raster",
            parameters: json!({
                "type": "object",
                "properties": properties,
                "required": ["container_name", "blob_name"],
                "additionalProperties": false
            }),
            stages: vec![stage("validate_raster"), stage("create_cog"), stage("extract_stac_metadata")],
            task_types: &["validate_raster", "create_cog", "extract_stac_metadata"],
        }
    }

    fn validate(&self, values: Value) -> Result<Value, Vec<Finding>> {
        let compression = params::text(&values, "compression");
        let lossy = matches!(compression, "jpeg" | "webp");
        let lossless = COMPRESSIONS.contains(&compression) && !lossy;
        let mut findings = Vec::new();
        if values.get("jpeg_quality").is_some() && lossless {
            let message =
                format!("jpeg_quality has no effect on {compression}; leave it away, or use jpeg or webp");
            findings.push(Finding::error("PARAM_INCOMPATIBLE", "/jpeg_quality", message));
        }
        if params::text(&values, "output_tier") == "archive" && lossy {
            let message = format!(
                "output_tier archive is lossless and compression {compression} is not; use visualization"
            );
            findings.push(Finding::error("PARAM_INCOMPATIBLE", "/compression", message));
        }
        if !naming::is_folder(params::text(&values, "output_folder")) {
            let message = "output_folder is a relative folder without '..', empty parts, names that begin with '.', control \
                 characters and any of \\ : * ? \" < > |";
            findings.push(Finding::error("BLOB_NAME_INVALID", "/output_folder", message));
        }
        if findings.is_empty() { Ok(values) } else { Err(findings) }
    }

    fn inputs(&self, values: &Value) -> Vec<BlobRef> {
        vec![naming::source(values)]
    }

    fn plan(&self, job: &Job, stage: u32) -> Result<Vec<Planned>, Failure> {
        let planned = match stage {
            1 => validate(job),
            2 => create_cog(job, &output(1)?),
            _ => extract(job, &output(1)?, &output(2)?),
        };
        Ok(vec![planned])
    }

    fn finalize(&self, _job: &Job) -> Result<Value, Failure> {
        let (validation, encoded, described) = (output(1)?, output(2)?, output(3)?);
        Ok(json!({
            "cog": encoded["cog"],
            "raster_type": encoded["raster_type"],
            "output_tier": encoded["output_tier"],
            "item_id": described["item_id"],
            "item": described["item"],
            "preview": described["preview"],
            "findings": validation["findings"]
        }))
    }
}

fn unit(job: &Job) -> String {
    let source = naming::source(&job.params);
    format!("{}/{}", source.container, source.name)
}

fn validate(job: &Job) -> Planned {
    let values = Value::Object(params::pick(&job.params, VALIDATE_KEYS));
    Planned { task_type: "validate_raster", unit: unit(job), params: values }
}

fn create_cog(job: &Job, validation: &Value) -> Planned {
    let mut values = params::pick(&job.params, COG_KEYS);
    let kind = params::text(validation, "resolved_type");
    // An unknown type is left to the task: it falls back to the general rule.
    let kind = if kind == "unknown" { "auto" } else { kind };
    values.insert("raster_type".into(), json!(kind));
    Planned { task_type: "create_cog", unit: unit(job), params: Value::Object(values) }
}

fn extract(job: &Job, validation: &Value, encoded: &Value) -> Planned {
    let mut values: Map<String, Value> = params::pick(&job.params, &["collection_id", "item_id"]);
    values.insert("cog".into(), encoded["cog"].clone());
    values.insert("raster_type".into(), encoded["raster_type"].clone());
    values.insert("source".into(), json!(naming::source(&job.params)));
    values.insert("source_modified".into(), validation["info"]["last_modified"].clone());
    values.insert("datetime".into(), validation["info"]["datetime"].clone());
    Planned { task_type: "extract_stac_metadata", unit: unit(job), params: Value::Object(values) }
}

/// The result of the one task of a stage.
fn output(stage: u32) -> Result<Value, Failure> {
    let text = results::page(stage, 0, 1).into_iter().next().and_then(|unit| unit.output);
    let text =
        text.ok_or_else(|| Failure::permanent("STAGE_FAILED", format!("stage {stage} has no result")))?;
    params::parse_text("the result of a stage", &text)
}
