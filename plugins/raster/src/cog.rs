//! `create_cog`: settings by type and tier, then the host's encoder.

use geoworker_sdk::raster::{self, CogRequest};
use geoworker_sdk::serde_json::{Value, json};
use geoworker_sdk::{BlobRef, Failure, Task, TaskType, TaskTypeInfo, host, params};

use crate::detect;
use crate::naming;
use crate::settings::{self, COMPRESSIONS, OVERVIEW_RESAMPLING, RESAMPLING, TIERS};
use crate::validate::{SAMPLE_PIXELS, source_properties};

pub struct CreateCog;

/// Properties that shape the output; shared by the schemas of the task and the job.
pub fn output_properties() -> Value {
    json!({
        "target_crs": {"type": "string", "minLength": 3, "maxLength": 64,
                       "description": "Reproject to this CRS; the source's is kept where missing"},
        "output_tier": {"enum": TIERS, "description": "analysis (lossless, default), visualization (lossy) or archive (smallest lossless)"},
        "compression": {"enum": COMPRESSIONS, "description": "Overrides the tier's compression"},
        "jpeg_quality": {"type": "integer", "minimum": 1, "maximum": 100, "description": "Quality of jpeg and webp (default 85)"},
        "resampling": {"enum": RESAMPLING, "description": "For reprojection; by raster type where missing"},
        "overview_resampling": {"enum": OVERVIEW_RESAMPLING, "description": "For overviews; by raster type where missing"},
        "output_folder": {"type": "string", "minLength": 1, "maxLength": 512,
                          "description": "Folder of the outputs in the silver zone"}
    })
}

impl TaskType for CreateCog {
    fn name(&self) -> &'static str {
        "create_cog"
    }

    fn describe(&self) -> TaskTypeInfo {
        let mut properties = source_properties();
        if let (Some(all), Value::Object(more)) = (properties.as_object_mut(), output_properties()) {
            all.remove("strict_mode");
            all.extend(more);
        }
        TaskTypeInfo {
            summary: "Makes a Cloud Optimized GeoTIFF of a raster",
            class: "raster",
            parameters: json!({
                "type": "object",
                "properties": properties,
                "required": ["container_name", "blob_name"],
                "additionalProperties": false
            }),
            result: json!({"type": "object", "properties": {"cog": {"type": "object"}}, "required": ["cog"]}),
            operations: &["raster.inspect", "raster.statistics", "raster.create-cog"],
            zones: &["bronze:read", "silver:write"],
            max_retries: None,
            timeout_seconds: Some(6 * 3600),
        }
    }

    fn inputs(&self, values: &Value) -> Vec<BlobRef> {
        vec![naming::source(values)]
    }

    fn handle(&self, task: &Task) -> Result<Value, Failure> {
        let source = naming::source(&task.params);
        let input_crs = params::optional(&task.params, "input_crs");
        let info = raster::inspect(&source, input_crs.as_deref())?;
        let asked = params::optional(&task.params, "raster_type").unwrap_or_else(|| "auto".into());
        let kind = if asked == "auto" {
            let statistics = raster::statistics(&source, SAMPLE_PIXELS)?;
            detect::detect(&info, &statistics).kind.to_owned()
        } else {
            asked
        };
        let settings = settings::decide(&info, &kind, &task.params)?;
        host::info(&format!(
            "{kind}: {} with {} overviews, tier {}",
            settings.compression, settings.overview_resampling, settings.tier
        ));
        let report = raster::create_cog(&CogRequest {
            source,
            target: naming::target(&task.params, &settings.tier),
            compression: settings.compression,
            level: settings.level,
            quality: settings.quality,
            predictor: "auto".into(),
            max_z_error: None,
            block_size: 512,
            overview_resampling: settings.overview_resampling,
            resampling: settings.resampling,
            input_crs,
            target_crs: params::optional(&task.params, "target_crs"),
        })?;
        for lost in &report.not_carried {
            host::warn(&format!("not carried over: {lost}"));
        }
        Ok(json!({"cog": report, "raster_type": kind, "output_tier": settings.tier}))
    }
}
