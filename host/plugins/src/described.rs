//! What a plugin says it offers, checked before anything of it is published.

use geoworker_machine::stage::{FailurePolicy, StageSpec};
use geoworker_machine::{ErrorInfo, codes};

use crate::bindings::{job_types, task_types};
use crate::guest::clean_line;
use crate::registry::{JobTypeInfo, TaskTypeInfo};
use crate::schema::Schema;

/// Types of each kind that one plugin offers at most.
const MAX_TYPES: usize = 256;
/// Stages, operations, zones or task types that one type names at most.
const MAX_NAMED: usize = 256;
/// Longest version, class, stage, operation or zone, in bytes.
const MAX_NAME: usize = 64;
/// Longest summary, in bytes; the rest is cut.
const MAX_SUMMARY: usize = 500;

/// Names, counts and schemas of everything that a plugin described.
///
/// # Errors
/// `PLUGIN_SCHEMA`.
pub(crate) fn check(
    tasks: Vec<task_types::TaskType>,
    jobs: Vec<job_types::JobType>,
) -> Result<(Vec<TaskTypeInfo>, Vec<JobTypeInfo>), ErrorInfo> {
    bounded("the plugin", "types", tasks.len().max(jobs.len()), MAX_TYPES)?;
    let tasks = tasks.into_iter().map(task_type).collect::<Result<Vec<_>, _>>()?;
    let jobs = jobs.into_iter().map(job_type).collect::<Result<Vec<_>, _>>()?;
    if tasks.is_empty() && jobs.is_empty() {
        return Err(wrong("the plugin describes no task and no job type".into()));
    }
    Ok((tasks, jobs))
}

fn task_type(described: task_types::TaskType) -> Result<TaskTypeInfo, ErrorInfo> {
    check_name(&described.name)?;
    let words = [&described.version, &described.class];
    check_words(&described.name, words.into_iter().chain(&described.operations).chain(&described.zones))?;
    bounded(&described.name, "operations", described.operations.len(), MAX_NAMED)?;
    bounded(&described.name, "zones", described.zones.len(), MAX_NAMED)?;
    Ok(TaskTypeInfo {
        parameters: schema(&described.name, "parameters-schema", &described.parameters_schema)?,
        result_schema: schema(&described.name, "result-schema", &described.result_schema)?,
        name: described.name,
        version: described.version,
        summary: clean_line(&described.summary, MAX_SUMMARY),
        class: described.class,
        operations: described.operations,
        zones: described.zones,
        max_retries: described.max_retries,
        timeout_seconds: described.timeout_seconds,
    })
}

fn job_type(described: job_types::JobType) -> Result<JobTypeInfo, ErrorInfo> {
    check_name(&described.name)?;
    if described.stages.is_empty() {
        return Err(wrong(format!("job type '{}' has no stage", described.name)));
    }
    bounded(&described.name, "stages", described.stages.len(), MAX_NAMED)?;
    bounded(&described.name, "task types", described.task_types.len(), MAX_NAMED)?;
    let words = described.stages.iter().flat_map(|stage| [&stage.name, &stage.on_failure]);
    check_words(&described.name, words.chain([&described.version]).chain(&described.task_types))?;
    let stage = |stage: job_types::Stage| StageSpec {
        on_failure: FailurePolicy::from_name(&stage.on_failure),
        name: stage.name,
    };
    Ok(JobTypeInfo {
        parameters: schema(&described.name, "parameters-schema", &described.parameters_schema)?,
        name: described.name,
        version: described.version,
        summary: clean_line(&described.summary, MAX_SUMMARY),
        stages: described.stages.into_iter().map(stage).collect(),
        task_types: described.task_types,
    })
}

fn check_name(name: &str) -> Result<(), ErrorInfo> {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    let rest = name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if first && rest && name.len() <= 64 {
        return Ok(());
    }
    Err(wrong(format!("'{}' is not a name in lower-case snake case", clean_line(name, MAX_NAME))))
}

fn schema(name: &str, what: &str, text: &str) -> Result<Schema, ErrorInfo> {
    Schema::new(text).map_err(|reason| {
        wrong(format!("{what} of '{name}' is not valid: {}", clean_line(&reason, MAX_SUMMARY)))
    })
}

/// Words are short and printable.
fn check_words<'a>(name: &str, words: impl Iterator<Item = &'a String>) -> Result<(), ErrorInfo> {
    let mut words = words;
    match words.find(|word| word.len() > MAX_NAME || word.chars().any(char::is_control)) {
        Some(word) => {
            let word = clean_line(word, MAX_NAME);
            Err(wrong(format!("'{name}' has a word that is too long or not printable: '{word}'")))
        }
        None => Ok(()),
    }
}

fn bounded(name: &str, what: &str, count: usize, limit: usize) -> Result<(), ErrorInfo> {
    if count > limit {
        return Err(wrong(format!("{name} has {count} {what}; at most {limit}")));
    }
    Ok(())
}

fn wrong(message: String) -> ErrorInfo {
    ErrorInfo::permanent(codes::PLUGIN_SCHEMA, message)
}
