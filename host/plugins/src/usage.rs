//! What a call into a guest has used, and who is told.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::error::PluginError;

/// What one invocation has used; the counterparts of [`Limits`](crate::Limits).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Usage {
    /// Milliseconds of guest CPU, in whole ticks of the engine's clock (5 ms). Native operations are not in it.
    pub cpu_ms: u64,
    /// Most linear memory, in bytes.
    pub memory_bytes: u64,
    /// Most elements of one table.
    pub table_elements: u64,
    /// Calls of the host.
    pub host_calls: u64,
    /// Log lines, those that were dropped included.
    pub log_lines: u64,
    /// Instructions, where the engine counts them ([`PluginEngine::metered`](crate::PluginEngine::metered)).
    pub fuel: Option<u64>,
}

/// One call that is over.
#[derive(Debug)]
pub struct CallReport<'a> {
    /// File name of the plugin.
    pub plugin: &'a str,
    /// SHA-256 of its file.
    pub digest: &'a str,
    /// Function of the contract, such as `plan-stage`.
    pub export: &'static str,
    /// Task or job type; empty for `describe`.
    pub type_name: &'a str,
    /// `ok`, `stopped` where the host ended the attempt, or the code of the failure.
    pub outcome: &'a str,
    /// From the store's creation to the answer, native operations included.
    pub duration: Duration,
    /// What it used.
    pub usage: Usage,
}

/// Is told of every call.
pub trait CallObserver: Send + Sync {
    /// A call is over. Runs on the caller's thread and must not block.
    fn called(&self, report: &CallReport<'_>);
}

/// The observer of an engine; without one nobody is told.
pub(crate) type Observer = Option<Arc<dyn CallObserver>>;

/// Name of an outcome in reports and metrics.
pub(crate) fn outcome_name<T>(outcome: &Result<T, PluginError>) -> &str {
    match outcome {
        Ok(_) => "ok",
        Err(PluginError::Failed(info)) => &info.code,
        Err(PluginError::Stopped(_)) => "stopped",
    }
}
