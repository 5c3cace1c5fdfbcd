//! Counts the bands of a raster: one task type, and one job type that uses it.

use geoworker_sdk::serde_json::{Value, json};
use geoworker_sdk::{
    BlobRef, Failure, Job, JobType, JobTypeInfo, Planned, StageInfo, Task, TaskType, TaskTypeInfo,
    export_plugin, host, params, raster, results,
};

export_plugin! { tasks: [CountBands], jobs: [CountBandsJob] }

struct CountBands;
struct CountBandsJob;

/// JSON Schema of the parameters: the host checks it and refuses everything else.
fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "container_name": {"type": "string", "minLength": 1, "description": "Container in the bronze zone"},
            "blob_name": {"type": "string", "minLength": 1, "description": "Name of the raster"}
        },
        "required": ["container_name", "blob_name"],
        "additionalProperties": false
    })
}

fn source(values: &Value) -> BlobRef {
    BlobRef {
        zone: "bronze".into(),
        container: params::text(values, "container_name").into(),
        name: params::text(values, "blob_name").into(),
    }
}

impl TaskType for CountBands {
    fn name(&self) -> &'static str {
        "count_bands"
    }

    fn describe(&self) -> TaskTypeInfo {
        TaskTypeInfo {
            summary: "Counts the bands of a raster",
            class: "raster",
            parameters: parameters(),
            result: json!({"type": "object", "properties": {"bands": {"type": "integer"}}, "required": ["bands"]}),
            operations: &["raster.inspect"],
            zones: &["bronze:read"],
            max_retries: None,
            timeout_seconds: Some(60),
        }
    }

    fn inputs(&self, values: &Value) -> Vec<BlobRef> {
        vec![source(values)]
    }

    fn handle(&self, task: &Task) -> Result<Value, Failure> {
        // Runs natively, in a process of its own; after a crash the journal answers.
        let info = raster::inspect(&source(&task.params), None)?;
        host::info(&format!("{} × {} pixels", info.width, info.height));
        Ok(json!({"bands": info.bands.len()}))
    }
}

impl JobType for CountBandsJob {
    fn name(&self) -> &'static str {
        "count_bands_job"
    }

    fn describe(&self) -> JobTypeInfo {
        JobTypeInfo {
            summary: "Counts the bands of a raster",
            parameters: parameters(),
            stages: vec![StageInfo { name: "count", on_failure: "fail" }],
            task_types: &["count_bands"],
        }
    }

    fn inputs(&self, values: &Value) -> Vec<BlobRef> {
        vec![source(values)]
    }

    fn plan(&self, job: &Job, _stage: u32) -> Result<Vec<Planned>, Failure> {
        let unit = params::text(&job.params, "blob_name").to_owned();
        Ok(vec![Planned { task_type: "count_bands", unit, params: job.params.clone() }])
    }

    fn finalize(&self, _job: &Job) -> Result<Value, Failure> {
        let counted = results::page(1, 0, 1).into_iter().next().and_then(|unit| unit.output);
        let text = counted.ok_or_else(|| Failure::permanent("STAGE_FAILED", "nothing was counted"))?;
        params::parse_text("the count", &text)
    }
}
