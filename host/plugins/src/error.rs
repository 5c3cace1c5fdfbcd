//! Failures of plugins, and how traps become codes.

use geoworker_machine::{ErrorInfo, RetryClass, codes};

/// A call into a plugin that gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PluginError {
    /// The guest, or something it asked for, failed.
    #[error(transparent)]
    Failed(#[from] ErrorInfo),
    /// The host stopped the call: the lease was lost or the worker shuts down. Nothing is wrong with the task.
    #[error("the call was stopped: {0}")]
    Stopped(String),
}

/// Why the host trapped a guest.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Stop {
    /// CPU deadline.
    #[error("more than {0} ms of CPU time")]
    Cpu(u64),
    /// Memory or tables.
    #[error("more than {0}")]
    Memory(String),
    /// A string or list that is too long.
    #[error("more than {0}")]
    Output(String),
    /// Too many host calls.
    #[error("more than {0} host calls")]
    Calls(u64),
    /// The attempt is over for reasons of the host.
    #[error("{0}")]
    Aborted(String),
}

/// Turns a trap into a coded failure.
pub(crate) fn from_trap(plugin: &str, export: &str, error: &wasmtime::Error) -> PluginError {
    let failed = |code: &str, reason: String| {
        PluginError::Failed(ErrorInfo::new(
            code,
            RetryClass::Permanent,
            format!("{plugin}: {export}: {reason}"),
        ))
    };
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::Cpu(_) => failed(codes::PLUGIN_CPU_LIMIT, stop.to_string()),
            Stop::Memory(_) => failed(codes::PLUGIN_MEMORY_LIMIT, stop.to_string()),
            Stop::Output(_) => failed(codes::PLUGIN_OUTPUT_LIMIT, stop.to_string()),
            Stop::Calls(_) => failed(codes::PLUGIN_CALL_LIMIT, stop.to_string()),
            Stop::Aborted(reason) => PluginError::Stopped(reason.clone()),
        };
    }
    let reason = error.root_cause().to_string();
    if reason.contains("too much data") || reason.contains("fuel allocated for hostcalls") {
        return failed(codes::PLUGIN_OUTPUT_LIMIT, reason);
    }
    failed(codes::PLUGIN_TRAP, reason)
}
