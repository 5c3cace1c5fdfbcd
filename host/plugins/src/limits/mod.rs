//! What a plugin may use, in one structure that worker and command line read alike.

mod policy;

use serde::{Deserialize, Serialize};

pub use policy::{LimitsPolicy, PartialLimits};

/// Bounds of every call into a guest. Time in native operations is not charged to the guest.
///
/// The stack of a guest is not among them: it is 512 KiB for every plugin, since the engine has one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// CPU milliseconds of `describe`, `validate`, `inputs`, `route`, `plan-stage` and `finalize`. Default 2000.
    pub cpu_ms: u64,
    /// CPU milliseconds of `handle`. Default 10 000.
    pub handle_cpu_ms: u64,
    /// Linear memory in MiB. Default 64.
    pub memory_mib: u64,
    /// Elements of one table. Default 20 000.
    pub table_elements: u64,
    /// KiB that pass from guest to host in one call or return. Default 8192.
    pub transfer_kib: u64,
    /// KiB of one string that leaves a guest. Default 4096.
    pub string_kib: u64,
    /// Elements of one list that leaves a guest. Default 50 000.
    pub list_items: u64,
    /// Nesting of JSON documents. Default 64.
    pub json_depth: u64,
    /// KiB of one JSON document. Default 4096.
    pub json_kib: u64,
    /// Host calls of one invocation. Default 10 000.
    pub host_calls: u64,
    /// Log lines of one invocation; more are dropped and counted. Default 1000.
    pub log_lines: u64,
    /// Bytes of one log line; the rest is cut. Default 4096.
    pub log_line_bytes: u64,
    /// KiB of all log lines of one invocation; more lines are dropped. Default 1024.
    pub log_kib: u64,
    /// Tasks of one stage. Default 20 000.
    pub stage_tasks: u64,
    /// MiB of a plugin file; a plugin cannot request it. Default 64.
    pub file_mib: u64,
    /// Milliseconds until a file has described itself and its schemas are checked; compilation is not in it. Default
    /// 10 000.
    pub load_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 2000,
            handle_cpu_ms: 10_000,
            memory_mib: 64,
            table_elements: 20_000,
            transfer_kib: 8192,
            string_kib: 4096,
            list_items: 50_000,
            json_depth: 64,
            json_kib: 4096,
            host_calls: 10_000,
            log_lines: 1000,
            log_line_bytes: 4096,
            log_kib: 1024,
            stage_tasks: 20_000,
            file_mib: 64,
            load_ms: 10_000,
        }
    }
}

/// A limit in KiB as bytes.
pub(crate) fn kib(limit: u64) -> usize {
    usize::try_from(limit.saturating_mul(1024)).unwrap_or(usize::MAX)
}
