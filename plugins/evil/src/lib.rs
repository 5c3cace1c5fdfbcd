//! A hostile guest for tests: each task type misbehaves in the way its name says, in the export that the parameter
//! `where` names. The job type `evil_job` does what its parameter `how` names. A copy of the file whose
//! [marker](variant) was changed misbehaves while it starts or describes itself.

mod behaviours;
mod variant;

use geoworker_sdk::serde_json::{Value, json};
use geoworker_sdk::{
    BlobRef, Failure, Finding, Job, JobType, JobTypeInfo, Planned, Route, StageInfo, Task, TaskType,
    TaskTypeInfo, export_plugin, params, results,
};

use behaviours::misbehave;

export_plugin! {
    tasks: [
        Evil("evil_spin"), Evil("evil_calls"), Evil("evil_log"), Evil("evil_recursion"), Evil("evil_memory"),
        Evil("evil_output"), Evil("evil_list"), Evil("evil_string"), Evil("evil_deep"),
        Evil("evil_huge"), Evil("evil_text"), Evil("evil_control"), Evil("evil_panic"), Evil("evil_operation"),
        Evil("evil_undeclared"), Evil("evil_result"), Evil("evil_state"), Evil("evil_memory_content"),
        Evil("evil_findings"), Evil("evil_progress")
    ],
    jobs: [EvilJob]
}

struct Evil(&'static str);
struct EvilJob;

fn is_here(values: &Value, place: &str) -> bool {
    params::text(values, "where") == place
}

impl TaskType for Evil {
    fn name(&self) -> &'static str {
        if variant::is("name") { "Evil\u{1b}[2J" } else { self.0 }
    }

    fn describe(&self) -> TaskTypeInfo {
        TaskTypeInfo {
            summary: "Misbehaves",
            class: "raster",
            parameters: variant::schema(),
            result: json!({"type": "object", "properties": {"fine": {"type": "boolean"}}, "required": ["fine"]}),
            operations: variant::operations(),
            zones: &["bronze:read"],
            max_retries: Some(0),
            timeout_seconds: Some(60),
        }
    }

    fn validate(&self, values: Value) -> Result<Value, Vec<Finding>> {
        if !is_here(&values, "validate") {
            return Ok(values);
        }
        if self.0 == "evil_findings" {
            return Err((0..100_000).map(|_| Finding::error("EVIL", "/x", "y")).collect());
        }
        if self.0 == "evil_control" {
            return Err(vec![Finding::error("E\n\u{1b}", "/\u{7}", "z\u{1b}[2J".repeat(10_000))]);
        }
        misbehave(self.0).map_err(|_| Vec::new())
    }

    fn inputs(&self, values: &Value) -> Vec<BlobRef> {
        let blob = |_| BlobRef { zone: String::new(), container: String::new(), name: String::new() };
        match (is_here(values, "inputs"), self.0) {
            (false, _) => Vec::new(),
            (true, "evil_list") => (0..100_000).map(blob).collect(),
            (true, how) => {
                let name = misbehave(how).unwrap_or_default().to_string();
                vec![BlobRef { name, ..blob(0) }]
            }
        }
    }

    fn route(
        &self,
        values: &Value,
        _: &[geoworker_sdk::bindings::geoworker::plugin::types::BlobFacts],
    ) -> Route {
        if !is_here(values, "route") {
            return Route { target: String::new(), reason: String::new() };
        }
        let reason = misbehave(self.0).unwrap_or_default().to_string();
        Route { target: "long".into(), reason }
    }

    fn handle(&self, task: &Task) -> Result<Value, Failure> {
        if is_here(&task.params, "nowhere") { Ok(json!({"fine": true})) } else { misbehave(self.0) }
    }
}

impl JobType for EvilJob {
    fn name(&self) -> &'static str {
        "evil_job"
    }

    fn describe(&self) -> JobTypeInfo {
        JobTypeInfo {
            summary: "Misbehaves",
            parameters: json!({"type": "object"}),
            stages: vec![StageInfo { name: "only", on_failure: "fail" }],
            task_types: &["evil_spin"],
        }
    }

    fn validate(&self, values: Value) -> Result<Value, Vec<Finding>> {
        if is_here(&values, "validate") {
            misbehave(params::text(&values, "how")).map_err(|_| Vec::new())
        } else {
            Ok(values)
        }
    }

    fn plan(&self, job: &Job, _: u32) -> Result<Vec<Planned>, Failure> {
        let task = |task_type, unit: u32| Planned { task_type, unit: unit.to_string(), params: json!({}) };
        match params::text(&job.params, "how") {
            "evil_fan_out" => Ok((0..1_000_000).map(|unit| task("evil_spin", unit)).collect()),
            "evil_more_tasks" => Ok((0..1000).map(|unit| task("evil_spin", unit)).collect()),
            "evil_units" => Ok(vec![task("evil_spin", 1), task("evil_spin", 1)]),
            "evil_task_type" => Ok(vec![task("nobody_has_it", 1)]),
            "evil_stage" => {
                results::page(4_000_000_000, 4_000_000_000, u32::MAX);
                Ok(vec![Planned { params: json!({"found": results::count(99)}), ..task("evil_spin", 1) }])
            }
            how => Ok(vec![Planned { params: misbehave(how)?, ..task("evil_spin", 1) }]),
        }
    }

    fn finalize(&self, job: &Job) -> Result<Value, Failure> {
        misbehave(params::text(&job.params, "how"))
    }
}
