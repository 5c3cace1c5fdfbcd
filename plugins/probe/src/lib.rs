//! Work with outputs that the simulation can follow: each task writes two blobs and answers which versions it wrote.

use geoworker_sdk::serde_json::{Value, json};
use geoworker_sdk::{
    BlobRef, Failure, Job, JobType, JobTypeInfo, Planned, StageInfo, Task, TaskType, TaskTypeInfo, blobs,
    export_plugin, params, results,
};

export_plugin! { tasks: [Write], jobs: [Probe] }

struct Write;
struct Probe;

impl TaskType for Write {
    fn name(&self) -> &'static str {
        "probe_write"
    }

    fn describe(&self) -> TaskTypeInfo {
        TaskTypeInfo {
            summary: "Writes two blobs",
            class: "raster",
            parameters: json!({
                "type": "object",
                "properties": {"folder": {"type": "string"}},
                "required": ["folder"],
                "additionalProperties": false
            }),
            result: json!({"type": "object"}),
            operations: &["blobs.put-json"],
            zones: &["silver:write"],
            max_retries: Some(20),
            timeout_seconds: Some(600),
        }
    }

    fn handle(&self, task: &Task) -> Result<Value, Failure> {
        let written = |part: &str| {
            let target = BlobRef {
                zone: "silver".into(),
                container: "probe".into(),
                name: format!("{}/{}/{part}.json", params::text(&task.params, "folder"), task.unit),
            };
            let facts = blobs::put_json(&target, &json!({"unit": task.unit, "part": part}).to_string())?;
            Ok::<_, Failure>(json!({"name": target.name, "etag": facts.etag}))
        };
        Ok(json!({"written": [written("first")?, written("second")?]}))
    }
}

impl JobType for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn describe(&self) -> JobTypeInfo {
        JobTypeInfo {
            summary: "Two stages of tasks that write blobs",
            parameters: json!({
                "type": "object",
                "properties": {
                    "n": {"type": "integer", "minimum": 0, "maximum": 100},
                    "folder": {"type": "string"}
                },
                "required": ["n", "folder"],
                "additionalProperties": false
            }),
            stages: vec![
                StageInfo { name: "first", on_failure: "fail" },
                StageInfo { name: "second", on_failure: "fail" },
            ],
            task_types: &["probe_write"],
        }
    }

    fn plan(&self, job: &Job, stage: u32) -> Result<Vec<Planned>, Failure> {
        // The second stage has as many tasks as results of the first can be seen.
        let count =
            if stage == 1 { job.params["n"].as_u64().unwrap_or(0) } else { u64::from(results::count(1)) };
        let folder = format!("{}/{stage}", params::text(&job.params, "folder"));
        let task = |n: u64| Planned {
            task_type: "probe_write",
            unit: format!("unit-{n}"),
            params: json!({"folder": folder}),
        };
        Ok((0..count).map(task).collect())
    }

    fn finalize(&self, _job: &Job) -> Result<Value, Failure> {
        Ok(json!({"first": results::count(1), "second": results::count(2)}))
    }
}
