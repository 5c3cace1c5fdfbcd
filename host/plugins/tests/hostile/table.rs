//! Behaviour × export → outcome; an empty cell is not applicable.

pub(crate) const EXPORTS: [&str; 6] = ["validate", "inputs", "route", "handle", "plan-stage", "finalize"];

const CPU: &str = "PLUGIN_CPU_LIMIT";
const MEMORY: &str = "PLUGIN_MEMORY_LIMIT";
const OUTPUT: &str = "PLUGIN_OUTPUT_LIMIT";
const CALLS: &str = "PLUGIN_CALL_LIMIT";
const INVALID: &str = "PLUGIN_OUTPUT_INVALID";
const TRAP: &str = "PLUGIN_TRAP";

pub(crate) const ROWS: &[(&str, [&str; 6])] = &[
    ("evil_spin", [CPU; 6]),
    ("evil_calls", [CALLS; 6]),
    ("evil_log", [CALLS; 6]),
    ("evil_recursion", [TRAP; 6]),
    ("evil_panic", [TRAP; 6]),
    ("evil_memory", [MEMORY; 6]),
    ("evil_output", [MEMORY; 6]),
    ("evil_string", [OUTPUT; 6]),
    ("evil_list", [MEMORY, OUTPUT, MEMORY, MEMORY, MEMORY, MEMORY]),
    ("evil_deep", [INVALID, "ok", "ok", INVALID, INVALID, INVALID]),
    ("evil_huge", [INVALID, "ok", "ok", INVALID, INVALID, INVALID]),
    ("evil_findings", [OUTPUT, "", "", "", "", ""]),
    ("evil_operation", ["", "", "", "OPERATION_NOT_DECLARED", "", ""]),
    ("evil_undeclared", ["", "", "", "BLOB_ACCESS_DENIED", "", ""]),
    ("evil_result", ["", "", "", INVALID, "", ""]),
    ("evil_text", ["", "", "", INVALID, "", ""]),
    ("evil_progress", ["", "", "", "ok", "", ""]),
    ("evil_fan_out", ["", "", "", "", MEMORY, ""]),
    ("evil_more_tasks", ["", "", "", "", INVALID, ""]),
    ("evil_units", ["", "", "", "", INVALID, ""]),
    ("evil_stage", ["", "", "", "", "ok", ""]),
];

/// The table as documents show it.
pub(crate) fn markdown() -> String {
    let mut lines = vec![format!("| behaviour | {} |", EXPORTS.join(" | ")), "|---".repeat(7) + "|"];
    lines.extend(ROWS.iter().map(|(behaviour, outcomes)| {
        let cells =
            outcomes.map(|outcome| if outcome.is_empty() { "–".into() } else { format!("`{outcome}`") });
        format!("| `{behaviour}` | {} |", cells.join(" | "))
    }));
    lines.join("\n") + "\n"
}
