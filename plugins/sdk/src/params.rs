//! Reading parameters that a schema has checked.

use serde_json::{Map, Value};

use crate::types::Failure;

/// A text, or the empty one.
#[must_use]
pub fn text<'a>(params: &'a Value, key: &str) -> &'a str {
    params.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A text that may be missing; an empty one counts as missing.
#[must_use]
pub fn optional(params: &Value, key: &str) -> Option<String> {
    Some(text(params, key)).filter(|value| !value.is_empty()).map(str::to_owned)
}

/// A flag, false where missing.
#[must_use]
pub fn flag(params: &Value, key: &str) -> bool {
    params.get(key).and_then(Value::as_bool).unwrap_or(false)
}

/// The members of `params` named in `keys`.
#[must_use]
pub fn pick(params: &Value, keys: &[&str]) -> Map<String, Value> {
    let found = keys.iter().filter_map(|key| params.get(key).map(|value| ((*key).to_owned(), value.clone())));
    found.collect()
}

/// A document that another task of the same plugin wrote.
///
/// # Errors
/// `PLUGIN_OUTPUT_INVALID` where it is not what it should be.
pub fn parse<T: serde::de::DeserializeOwned>(what: &str, value: Value) -> Result<T, Failure> {
    serde_json::from_value(value).map_err(|error| {
        Failure::permanent("PLUGIN_OUTPUT_INVALID", format!("{what} cannot be read: {error}"))
    })
}

/// The JSON text that a task of an earlier stage answered.
///
/// # Errors
/// `PLUGIN_OUTPUT_INVALID` where it is not JSON of the wanted shape.
pub fn parse_text<T: serde::de::DeserializeOwned>(what: &str, text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| {
        Failure::permanent("PLUGIN_OUTPUT_INVALID", format!("{what} cannot be read: {error}"))
    })
}
