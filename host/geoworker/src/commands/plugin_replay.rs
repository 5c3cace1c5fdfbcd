//! `plugin replay`: recorded decisions, asked once more of a candidate.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;

use geoworker_machine::ErrorInfo;
use geoworker_plugins::{Registry, load_file};
use geoworker_store::decisions::DecisionKind;
use geoworker_worker::replay::{Change, Counts, Replay, ReplayQuery, ReplayReport};
use serde_json::{Value, json};

use crate::cli::ReplayArgs;
use crate::config::Config;
use crate::context::{Context, engine, limits};
use crate::exit::{NEGATIVE, OK, Outcome};
use crate::output;

/// Changes that are printed without `--all`.
const SHOWN: usize = 20;
/// Characters of an answer in text for people.
const ANSWER_CHARS: usize = 300;
/// Decisions between two lines of progress.
const STEP: u64 = 50;

pub(crate) async fn run(config: &Config, args: &ReplayArgs, json: bool) -> Outcome {
    let candidate = load(config, args).await?;
    let context = Context::open_to_look(config).await?;
    let replay =
        Replay { store: Arc::clone(&context.platform.store), log: Arc::clone(&context.decisions), candidate };
    let query = ReplayQuery {
        since_ms: args.since,
        kind: args.kind,
        type_name: args.type_name.clone(),
        limit: args.limit,
    };
    let visible = stderr().is_terminal();
    let report = replay.run(&query, |done| tell(visible, done)).await?;
    if visible {
        eprint!("\r\x1b[K");
    }
    context.close().await;
    let shown = if args.all { usize::MAX } else { SHOWN };
    if json {
        print_json(&report, shown);
    } else {
        print(&report, shown);
    }
    Ok(if report.changes.is_empty() { OK } else { NEGATIVE })
}

/// The candidate alone, held to the operator's limits.
async fn load(config: &Config, args: &ReplayArgs) -> Result<Registry, ErrorInfo> {
    let mut registry = Registry::with_limits(limits(config)?);
    load_file(&engine()?, &args.candidate, Some(&config.data_dir.join("cache")), &mut registry).await;
    match registry.reports().first().and_then(|report| report.error.clone()) {
        Some(error) => Err(error),
        None => Ok(registry),
    }
}

fn tell(visible: bool, done: u64) {
    if visible && done.is_multiple_of(STEP) {
        eprint!("\r{done} decisions replayed");
    }
}

fn print_json(report: &ReplayReport, shown: usize) {
    output::json(&json!({
        "replayed": report.replayed(),
        "kinds": report.kinds,
        "changed": report.changes.len(),
        "changes": report.changes.iter().take(shown).collect::<Vec<_>>(),
        "not_comparable": report.reasons,
        "not_offered": report.not_offered
    }));
}

fn print(report: &ReplayReport, shown: usize) {
    let heading = ["KIND", "SAME", "CHANGED", "NOT COMPARABLE"].map(str::to_owned).to_vec();
    let row = |(kind, counts): (&DecisionKind, &Counts)| {
        vec![
            kind.as_str().to_owned(),
            counts.same.to_string(),
            counts.changed.to_string(),
            counts.not_comparable.to_string(),
        ]
    };
    output::table(&std::iter::once(heading).chain(report.kinds.iter().map(row)).collect::<Vec<_>>());
    for (reason, count) in &report.reasons {
        output::line(&format!("not comparable: {count} ({reason})"));
    }
    if report.not_offered > 0 {
        output::line(&format!("left out: {} of types that the candidate does not offer", report.not_offered));
    }
    report.changes.iter().take(shown).for_each(print_change);
    let more = report.changes.len().saturating_sub(shown);
    if more > 0 {
        output::line(&format!("{more} more changes; --all prints them"));
    }
}

fn print_change(change: &Change) {
    let about = |name: &str, id: &Option<String>| {
        id.as_deref().map_or_else(String::new, |id| format!(", {name} {}", id.get(..12).unwrap_or(id)))
    };
    output::line(&format!(
        "changed: {} of {}{}{}, {}",
        change.kind.as_str(),
        change.type_name,
        about("job", &change.job_id),
        about("task", &change.task_id),
        output::time(Some(change.at))
    ));
    output::line(&format!("  old {}", brief(&change.old)));
    output::line(&format!("  new {}", brief(&change.new)));
}

fn brief(answer: &Value) -> String {
    let text = answer.to_string();
    match text.char_indices().nth(ANSWER_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
