//! From the contract's functions to the traits.

use serde_json::Value;

use crate::bindings::exports::geoworker::plugin::{job_types, task_types};
use crate::bindings::geoworker::plugin::types::{BlobFacts, BlobRef};
use crate::types::{Failure, Finding, Job, JobType, Route, Task, TaskType};

/// What [`crate::export_plugin!`] implements.
pub trait Dispatch {
    /// All task types.
    fn tasks() -> &'static [&'static dyn TaskType];
    /// All job types.
    fn jobs() -> &'static [&'static dyn JobType];
}

fn task<D: Dispatch>(name: &str) -> Option<&'static dyn TaskType> {
    D::tasks().iter().copied().find(|task| task.name() == name)
}

fn job<D: Dispatch>(name: &str) -> Option<&'static dyn JobType> {
    D::jobs().iter().copied().find(|job| job.name() == name)
}

fn unknown(code: &str, name: &str) -> Failure {
    Failure::permanent(code, format!("this plugin has no '{name}'"))
}

fn json(text: &str) -> Value {
    // The host only passes documents that it parsed itself.
    serde_json::from_str(text).unwrap_or_default()
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

impl<D: Dispatch> task_types::Guest for D {
    fn describe() -> Vec<task_types::TaskType> {
        let describe = |task: &&dyn TaskType| {
            let info = task.describe();
            task_types::TaskType {
                name: task.name().to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                summary: info.summary.to_owned(),
                class: info.class.to_owned(),
                parameters_schema: info.parameters.to_string(),
                result_schema: info.result.to_string(),
                operations: texts(info.operations),
                zones: texts(info.zones),
                max_retries: info.max_retries,
                timeout_seconds: info.timeout_seconds,
            }
        };
        D::tasks().iter().map(describe).collect()
    }

    fn validate(name: String, params: String) -> Result<String, Vec<Finding>> {
        let Some(task) = task::<D>(&name) else {
            return Err(vec![Finding::error(
                "TASK_TYPE_UNKNOWN",
                "",
                format!("this plugin has no '{name}'"),
            )]);
        };
        task.validate(json(&params)).map(|value| value.to_string())
    }

    fn inputs(name: String, params: String) -> Vec<BlobRef> {
        task::<D>(&name).map(|task| task.inputs(&json(&params))).unwrap_or_default()
    }

    fn route(name: String, params: String, inputs: Vec<BlobFacts>) -> Route {
        let none = Route { target: String::new(), reason: String::new() };
        task::<D>(&name).map_or(none, |task| task.route(&json(&params), &inputs))
    }

    fn handle(context: task_types::TaskContext) -> Result<String, Failure> {
        let task =
            task::<D>(&context.task_type).ok_or_else(|| unknown("TASK_TYPE_UNKNOWN", &context.task_type))?;
        let work = Task {
            unit: context.unit,
            attempt: context.attempt,
            job_id: context.job_id,
            submitted_at: context.submitted_at,
            params: json(&context.params),
        };
        task.handle(&work).map(|value| value.to_string())
    }
}

impl<D: Dispatch> job_types::Guest for D {
    fn describe() -> Vec<job_types::JobType> {
        let describe = |job: &&dyn JobType| {
            let info = job.describe();
            let stage = |stage: &crate::types::StageInfo| job_types::Stage {
                name: stage.name.to_owned(),
                on_failure: stage.on_failure.to_owned(),
            };
            job_types::JobType {
                name: job.name().to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                summary: info.summary.to_owned(),
                parameters_schema: info.parameters.to_string(),
                stages: info.stages.iter().map(stage).collect(),
                task_types: texts(info.task_types),
            }
        };
        D::jobs().iter().map(describe).collect()
    }

    fn validate(name: String, params: String) -> Result<String, Vec<Finding>> {
        let Some(job) = job::<D>(&name) else {
            return Err(vec![Finding::error("JOB_TYPE_UNKNOWN", "", format!("this plugin has no '{name}'"))]);
        };
        job.validate(json(&params)).map(|value| value.to_string())
    }

    fn inputs(name: String, params: String) -> Vec<BlobRef> {
        job::<D>(&name).map(|job| job.inputs(&json(&params))).unwrap_or_default()
    }

    fn plan_stage(
        context: job_types::JobContext,
        stage: u32,
    ) -> Result<Vec<job_types::TaskDefinition>, Failure> {
        let job =
            job::<D>(&context.job_type).ok_or_else(|| unknown("JOB_TYPE_UNKNOWN", &context.job_type))?;
        let work = Job { job_id: context.job_id, params: json(&context.params) };
        let planned = job.plan(&work, stage)?;
        let definition = |planned: crate::types::Planned| job_types::TaskDefinition {
            task_type: planned.task_type.to_owned(),
            unit: planned.unit,
            params: planned.params.to_string(),
        };
        Ok(planned.into_iter().map(definition).collect())
    }

    fn finalize(context: job_types::JobContext) -> Result<String, Failure> {
        let job =
            job::<D>(&context.job_type).ok_or_else(|| unknown("JOB_TYPE_UNKNOWN", &context.job_type))?;
        let work = Job { job_id: context.job_id, params: json(&context.params) };
        job.finalize(&work).map(|value| value.to_string())
    }
}
