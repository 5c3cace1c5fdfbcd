//! Exit codes, documented in docs/operators.md.

use std::process::ExitCode;

use geoworker_machine::{ErrorInfo, codes};

/// Done.
pub(crate) const OK: u8 = 0;
/// The job failed, or the file is not valid.
pub(crate) const NEGATIVE: u8 = 1;
/// Refused or not possible; a code says why.
pub(crate) const ERROR: u8 = 2;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 64;
/// Interrupted by Ctrl-C.
pub(crate) const INTERRUPTED: u8 = 130;

/// What a command answers.
pub(crate) type Outcome = Result<u8, ErrorInfo>;

/// Prints an error, where there is one, and turns the outcome into the process's exit code.
pub(crate) fn finish(outcome: Outcome, json: bool) -> ExitCode {
    let error = match outcome {
        Ok(code) => return code.into(),
        Err(error) => error,
    };
    let code = match error.code.as_str() {
        codes::USAGE => USAGE,
        codes::INTERRUPTED => INTERRUPTED,
        _ => ERROR,
    };
    if json {
        crate::output::json(&serde_json::json!({"error": error}));
    } else {
        let hint =
            error.hint.clone().or_else(|| codes::find(&error.code).map(|known| known.action.to_owned()));
        eprintln!("error [{}]: {}", error.code, error.message);
        if let Some(hint) = hint {
            eprintln!("  {hint}");
        }
    }
    code.into()
}
