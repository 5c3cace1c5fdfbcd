//! Whether two answers are the same.

use geoworker_store::decisions::Document;
use serde_json::{Value, json};

/// What a comparison says.
#[derive(Debug, PartialEq)]
pub(super) enum Comparison {
    /// Nothing changed.
    Same,
    /// Something did.
    Changed { old: Value, new: Value },
    /// There is nothing to compare with.
    NotComparable,
}

/// Compares a recorded answer with the candidate's. One that was too large to be kept is compared by its digest.
pub(super) fn compare(recorded: &Document, new: &Value) -> Comparison {
    if Document::new(new, 0).digest == recorded.digest {
        return Comparison::Same;
    }
    let old = match &recorded.text {
        Some(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        None => json!({"digest": recorded.digest}),
    };
    if essence(&old) == essence(new) {
        return Comparison::Same;
    }
    Comparison::Changed { old, new: new.clone() }
}

/// The answer without what may differ: messages of the host about a plugin name its file.
fn essence(answer: &Value) -> Value {
    let mut plain = answer.clone();
    let code = answer["failed"]["code"].as_str().unwrap_or_default();
    if code.starts_with("PLUGIN_")
        && let Some(failed) = plain["failed"].as_object_mut()
    {
        failed.remove("message");
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(value: &Value) -> Document {
        Document::new(value, 1000)
    }

    #[test]
    fn verdicts_routes_and_results_are_compared_as_a_whole() {
        for (old, new) in [
            (json!({"ok": {"n": 1}}), json!({"ok": {"n": 2}})),
            (json!({"ok": {"n": 1}}), json!({"findings": []})),
            (
                json!({"ok": {"target": "short", "reason": "a"}}),
                json!({"ok": {"target": "long", "reason": "a"}}),
            ),
            (
                json!({"failed": {"code": "X", "message": "a"}}),
                json!({"failed": {"code": "X", "message": "b"}}),
            ),
            (json!({"ok": 1, "operations": [1, 2]}), json!({"ok": 1, "operations": [1]})),
        ] {
            assert_eq!(compare(&recorded(&old), &old), Comparison::Same);
            assert_eq!(compare(&recorded(&old), &new), Comparison::Changed { old, new });
        }
    }

    #[test]
    fn the_name_of_the_file_is_no_change_and_large_answers_are_compared_by_digest() {
        let failed = |message: &str| json!({"failed": {"code": "PLUGIN_TRAP", "message": message}});
        assert_eq!(
            compare(&recorded(&failed("old.wasm: handle")), &failed("new.wasm: handle")),
            Comparison::Same
        );
        let large = json!({"ok": "x".repeat(100)});
        let digest = Document::new(&large, 10);
        assert_eq!(compare(&digest, &large), Comparison::Same);
        assert!(matches!(compare(&digest, &json!({"ok": "y"})), Comparison::Changed { .. }));
    }
}
