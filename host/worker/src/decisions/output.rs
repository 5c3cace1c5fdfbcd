//! Answers as documents of the decision log.

use geoworker_plugins::{PluginError, TaskDefinition, Validation};
use serde::Serialize;
use serde_json::{Value, json};

/// An answer, or its failure; none where the call was stopped.
pub(crate) fn answered<T: Serialize>(answer: &Result<T, PluginError>) -> Option<Value> {
    match answer {
        Ok(value) => Some(json!({"ok": value})),
        Err(PluginError::Failed(info)) => Some(json!({"failed": info})),
        Err(PluginError::Stopped(_)) => None,
    }
}

/// A verdict on parameters.
pub(crate) fn verdict(answer: &Result<Validation, PluginError>) -> Option<Value> {
    match answer {
        Ok(Err(findings)) => Some(json!({"findings": findings})),
        Ok(Ok(normalised)) => Some(json!({"ok": normalised})),
        Err(PluginError::Failed(info)) => Some(json!({"failed": info})),
        Err(PluginError::Stopped(_)) => None,
    }
}

/// Planned tasks.
pub(crate) fn planned(answer: &Result<Vec<(TaskDefinition, Value)>, PluginError>) -> Option<Value> {
    let plain = |tasks: &Vec<(TaskDefinition, Value)>| -> Vec<Value> {
        let task = |(task, params): &(TaskDefinition, Value)| json!({"task_type": task.task_type, "unit": task.unit, "params": params});
        tasks.iter().map(task).collect()
    };
    answered(&answer.as_ref().map(plain).map_err(Clone::clone))
}
