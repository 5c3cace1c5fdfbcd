//! `config show`.

use serde_json::Value;

use crate::config::Config;
use crate::exit::{OK, Outcome};
use crate::output;

pub(crate) fn run(config: &Config, json: bool) -> Outcome {
    let value = config.to_json();
    if json {
        output::json(&value);
        return Ok(OK);
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Null => "-".into(),
            other => other.to_string(),
        };
        output::line(&format!("{key:26}{text}"));
    }
    Ok(OK)
}
