//! `submit`: a job for the server on this data directory.

use std::io::Read;

use geoworker_machine::{ErrorInfo, codes};
use geoworker_plugins::Registry;
use geoworker_store::records::Submitted;
use geoworker_worker::{Platform, Submission};
use serde_json::{Map, Value, json};

use super::signals::{Signals, interrupted};
use super::wait::{print_end, wait};
use crate::cli::{JobArgs, SubmitArgs};
use crate::config::Config;
use crate::context::Context;
use crate::exit::{OK, Outcome};
use crate::output;

pub(crate) async fn run(config: &Config, args: &SubmitArgs, json: bool) -> Outcome {
    let mut signals = Signals::listen()?;
    let context = Context::open(config).await?;
    let submitted = submit(&context.platform, &args.job).await?;
    follow_with(context, &submitted, args.wait, json, &mut signals).await
}

/// Hands the messages of a new run on, then prints its id, or waits for its end.
///
/// # Errors
/// Where the store does not answer.
pub(crate) async fn follow(context: Context, submitted: &Submitted, wait: bool, json: bool) -> Outcome {
    let mut signals = Signals::listen()?;
    context.platform.relay_once().await?;
    follow_with(context, submitted, wait, json, &mut signals).await
}

async fn follow_with(
    context: Context,
    submitted: &Submitted,
    wait_for_end: bool,
    json: bool,
    signals: &mut Signals,
) -> Outcome {
    if !wait_for_end {
        print(submitted, json);
        context.close().await;
        return Ok(OK);
    }
    let job = tokio::select! {
        job = wait(&context.platform, &submitted.job_id) => job?,
        () = signals.next() => return Err(interrupted().with_hint(format!(
            "the job goes on; `geoworker jobs show {}` shows it", submitted.job_id.short()))),
    };
    let code = print_end(&context.platform, &job, json).await?;
    context.close().await;
    Ok(code)
}

/// Submits, and hands the message on at once.
///
/// # Errors
/// What the platform refuses.
pub(crate) async fn submit(platform: &Platform, args: &JobArgs) -> Result<Submitted, ErrorInfo> {
    let parameters = parameters(&platform.registry(), args)?;
    let submission =
        Submission { job_type: args.job_type.clone(), parameters, force: args.force, correlation_id: None };
    let submitted = platform.submit(submission).await;
    if submitted.is_err() {
        // This process ends without running anything: nobody else writes what was decided.
        platform.flush_decisions().await;
    }
    let submitted = submitted?;
    if submitted.existing {
        // On standard error, so that it also stands beside the result of an old run.
        eprintln!("note: this job was submitted before; --force makes a new run");
    }
    platform.relay_once().await?;
    Ok(submitted)
}

fn print(submitted: &Submitted, json: bool) {
    if json {
        output::json(&json!({"job_id": submitted.job_id, "existing": submitted.existing}));
    } else {
        output::line(&format!("job {}", submitted.job_id));
    }
}

fn parameters(registry: &Registry, args: &JobArgs) -> Result<Map<String, Value>, ErrorInfo> {
    let mut map = match &args.file {
        Some(path) => read_file(path)?,
        None => Map::new(),
    };
    let (_, info) = registry.job_type(&args.job_type)?;
    for pair in &args.parameters {
        let (key, text) = pair.split_once('=').ok_or_else(|| {
            ErrorInfo::permanent(codes::USAGE, format!("--param '{pair}' is not KEY=VALUE"))
        })?;
        map.insert(key.to_owned(), typed(info.parameters.source(), key, text));
    }
    Ok(map)
}

fn read_file(path: &std::path::Path) -> Result<Map<String, Value>, ErrorInfo> {
    let invalid =
        |reason: String| ErrorInfo::permanent(codes::USAGE, format!("--params {}: {reason}", path.display()));
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text).map(|_| ())
    } else {
        std::fs::read_to_string(path).map(|content| text = content)
    };
    read.map_err(|error| invalid(error.to_string()))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(invalid("is not a JSON object".into())),
        Err(error) => Err(invalid(error.to_string())),
    }
}

/// A value of the type that the schema wants; the schema check refuses what does not fit.
fn typed(schema: &Value, key: &str, text: &str) -> Value {
    let wanted = schema.pointer(&format!("/properties/{key}/type"));
    let is_text = wanted.is_none_or(|kind| kind == "string") && !key.starts_with('_');
    if is_text {
        return Value::from(text);
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_take_the_type_of_the_schema() {
        let schema = json!({"properties": {"n": {"type": "integer"}, "name": {"type": "string"}, "kind": {"enum": ["1"]}}});
        assert_eq!(typed(&schema, "n", "3"), json!(3));
        assert_eq!(typed(&schema, "n", "x"), json!("x"));
        assert_eq!(typed(&schema, "name", "3"), json!("3"));
        assert_eq!(typed(&schema, "kind", "1"), json!("1"));
        assert_eq!(typed(&schema, "_route_to_docker", "true"), json!(true));
    }
}
