//! `explain`: what a code means and what to do.

use geoworker_machine::codes::{CATALOGUE, Code, find};
use geoworker_machine::{ErrorInfo, codes};
use serde_json::json;

use crate::exit::{OK, Outcome};
use crate::output;

pub(crate) fn run(code: Option<&str>, json: bool) -> Outcome {
    let value = |code: &Code| json!({"code": code.name, "meaning": code.meaning, "action": code.action});
    let Some(name) = code else {
        if json {
            output::json(&CATALOGUE.iter().map(value).collect::<Vec<_>>());
        } else {
            output::table(
                &CATALOGUE.iter().map(|code| vec![code.name.into(), code.meaning.into()]).collect::<Vec<_>>(),
            );
        }
        return Ok(OK);
    };
    let known = find(name).ok_or_else(|| {
        ErrorInfo::permanent(codes::USAGE, format!("there is no code '{}'", name.escape_debug()))
            .with_hint("`geoworker explain` lists all; a plugin's own codes are explained by its author")
    })?;
    if json {
        output::json(&value(known));
    } else {
        output::line(&format!("{}\n  {}\n  {}", known.name, known.meaning, known.action));
    }
    Ok(OK)
}
