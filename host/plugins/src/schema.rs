//! JSON Schemas of parameters and results.

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// A compiled schema with its source.
pub struct Schema {
    source: Value,
    validator: Validator,
}

impl Schema {
    /// Compiles a schema. References to other documents are refused.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let source: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .build(&source)
            .map_err(|error| error.to_string())?;
        Ok(Self { source, validator })
    }

    /// The schema itself.
    #[must_use]
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Checks a document.
    ///
    /// # Errors
    /// One sentence for each thing that is wrong.
    pub fn check(&self, value: &Value) -> Result<(), Vec<String>> {
        let errors: Vec<String> =
            self.validator.iter_errors(value).map(|error| self.sentence(&error)).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn sentence(&self, error: &jsonschema::ValidationError<'_>) -> String {
        let place = error.instance_path().to_string();
        let place = place.trim_start_matches('/');
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let known = self.properties().collect::<Vec<_>>().join(", ");
                format!("unknown parameter '{}'; known are {known}", unexpected.join("', '"))
            }
            ValidationErrorKind::Required { property } => format!("parameter {property} is missing"),
            _ if place.is_empty() => error.to_string(),
            _ => format!("parameter '{place}': {error}"),
        }
    }

    /// Names of the top-level properties.
    pub fn properties(&self) -> impl Iterator<Item = &str> {
        let properties = self.source.get("properties").and_then(Value::as_object);
        properties.into_iter().flat_map(|map| map.keys().map(String::as_str))
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Schema").field(&self.source).finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_name_the_parameter() {
        let text = json!({
            "type": "object",
            "properties": {"n": {"type": "integer", "maximum": 10}},
            "required": ["n"],
            "additionalProperties": false
        });
        let schema = Schema::new(&text.to_string()).expect("is valid");
        let wrong = |value: Value| schema.check(&value).expect_err("is wrong").join("; ");
        assert!(wrong(json!({"n": 1, "m": 2})).contains("unknown parameter 'm'; known are n"));
        assert!(wrong(json!({})).contains("\"n\" is missing"));
        assert!(wrong(json!({"n": "x"})).contains("parameter 'n': "));
        assert!(wrong(json!({"n": 11})).contains("parameter 'n': "));
        assert!(schema.check(&json!({"n": 3})).is_ok());
    }

    #[test]
    fn broken_schemas_and_remote_references_are_refused() {
        assert!(Schema::new("{").is_err());
        assert!(Schema::new(r#"{"type": "nothing"}"#).is_err());
        assert!(Schema::new(r#"{"$ref": "http://127.0.0.1:9/x.json"}"#).is_err());
        assert!(Schema::new(r#"{"$ref": "file:///etc/passwd"}"#).is_err());
    }
}
