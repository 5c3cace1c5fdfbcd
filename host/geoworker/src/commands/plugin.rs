//! `plugin`: what was loaded.

use geoworker_machine::{ErrorInfo, codes};
use geoworker_plugins::{LoadReport, Registry};
use serde_json::{Value, json};

use super::{plugin_lock, plugin_precompile, plugin_trust};
use crate::cli::PluginCommand;
use crate::config::Config;
use crate::context::load_plugins;
use crate::exit::{NEGATIVE, OK, Outcome};
use crate::output;

pub(crate) async fn run(config: &Config, command: &PluginCommand, json: bool) -> Outcome {
    match command {
        PluginCommand::List => Ok(list(&*load_plugins(config).await?, json)),
        PluginCommand::Inspect { name } => inspect(&*load_plugins(config).await?, name, json),
        PluginCommand::Lock { check } => plugin_lock::run(&config.plugins, *check, json),
        PluginCommand::Keygen { out } => plugin_trust::keygen(out, json),
        PluginCommand::Sign { file, key } => plugin_trust::sign(file, key, json),
        PluginCommand::Precompile { out } => plugin_precompile::run(config, out.as_deref(), json).await,
        PluginCommand::Replay(args) => super::plugin_replay::run(config, args, json).await,
    }
}

/// Exit status 1 where a file failed to load.
pub(super) fn list(registry: &Registry, json: bool) -> u8 {
    let reports = registry.reports();
    if json {
        output::json(&reports);
    } else {
        let heading = ["FILE", "STATE", "DIGEST", "KB", "LOAD", "OFFERS"].map(str::to_owned).to_vec();
        output::table(&std::iter::once(heading).chain(reports.iter().map(row)).collect::<Vec<_>>());
        for (report, error) in reports.iter().filter_map(|report| Some((report, report.error.as_ref()?))) {
            eprintln!("error [{}]: {}: {}", error.code, report.file, error.message);
        }
    }
    if reports.iter().any(|report| report.error.is_some()) { NEGATIVE } else { OK }
}

fn row(report: &LoadReport) -> Vec<String> {
    let state = match &report.error {
        None => "ready".to_owned(),
        Some(error) => error.code.clone(),
    };
    let digest = report.digest.as_deref().map_or_else(|| "-".into(), |digest| digest[..12].to_owned());
    let offers: Vec<String> = report
        .job_types
        .iter()
        .map(|name| format!("job {name}"))
        .chain(report.task_types.iter().map(|name| format!("task {name}")))
        .collect();
    vec![
        report.file.clone(),
        state,
        digest,
        (report.size_bytes / 1024).to_string(),
        format!("{:.1} ms", report.load_ms),
        offers.join(", "),
    ]
}

fn inspect(registry: &Registry, name: &str, json: bool) -> Outcome {
    let value = describe(registry, name).ok_or_else(|| {
        ErrorInfo::permanent(codes::TASK_TYPE_UNKNOWN, format!("no plugin offers '{}'", name.escape_debug()))
    })?;
    if json {
        output::json(&value);
        return Ok(OK);
    }
    for key in
        ["name", "kind", "version", "summary", "plugin", "digest", "class", "stages", "operations", "zones"]
    {
        match value.get(key) {
            Some(Value::String(text)) => output::line(&format!("{key:11}{text}")),
            Some(other) => output::line(&format!("{key:11}{other}")),
            None => {}
        }
    }
    print_parameters(&value["parameters"]);
    Ok(OK)
}

fn describe(registry: &Registry, name: &str) -> Option<Value> {
    if let Ok((plugin, info)) = registry.job_type(name) {
        let stages: Vec<&str> = info.stages.iter().map(|stage| stage.name.as_str()).collect();
        return Some(json!({
            "name": info.name, "kind": "job type", "version": info.version, "summary": info.summary,
            "plugin": plugin.name, "digest": plugin.digest, "stages": stages.join(" → "),
            "task_types": info.task_types, "parameters": info.parameters.source()
        }));
    }
    let (plugin, info) = registry.task_type(name).ok()?;
    Some(json!({
        "name": info.name, "kind": "task type", "version": info.version, "summary": info.summary,
        "plugin": plugin.name, "digest": plugin.digest, "class": info.class,
        "operations": info.operations.join(", "), "zones": info.zones.join(", "),
        "parameters": info.parameters.source(), "result": info.result_schema.source()
    }))
}

fn print_parameters(schema: &Value) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut rows = vec![["PARAMETER", "REQUIRED", "TYPE", "DESCRIPTION"].map(str::to_owned).to_vec()];
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let kind = match (&property["enum"], &property["type"]) {
            (Value::Array(values), _) => {
                values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | ")
            }
            (_, Value::String(kind)) => kind.clone(),
            (_, other) => other.to_string(),
        };
        let needed = if required.contains(&name.as_str()) { "yes" } else { "" };
        let about = property["description"].as_str().unwrap_or_default();
        rows.push(vec![name.clone(), needed.into(), kind, about.into()]);
    }
    output::table(&rows);
}
