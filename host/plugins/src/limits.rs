//! What a plugin may use, in one structure that worker and command line read alike.

use std::path::Path;

use geoworker_machine::{ErrorInfo, codes};
use serde::{Deserialize, Serialize};

/// Bounds of every call into a guest. Time in native operations is not charged to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// CPU milliseconds of `describe`, `validate`, `inputs`, `route`, `plan-stage` and `finalize`. Default 2000.
    pub cpu_ms: u64,
    /// CPU milliseconds of `handle`. Default 10 000.
    pub handle_cpu_ms: u64,
    /// Linear memory in MiB. Default 64.
    pub memory_mib: u64,
    /// Elements of all tables. Default 20 000.
    pub table_elements: u64,
    /// KiB that pass from guest to host in one call or return. Default 8192.
    pub transfer_kib: u64,
    /// Nesting of JSON documents. Default 64.
    pub json_depth: usize,
    /// Host calls of one invocation. Default 10 000.
    pub host_calls: u64,
    /// Log lines of one invocation; more are dropped and counted. Default 1000.
    pub log_lines: u64,
    /// Bytes of one log line; the rest is cut. Default 4096.
    pub log_line_bytes: usize,
    /// Tasks of one stage. Default 20 000.
    pub stage_tasks: usize,
    /// MiB of a plugin file. Default 64.
    pub file_mib: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 2000,
            handle_cpu_ms: 10_000,
            memory_mib: 64,
            table_elements: 20_000,
            transfer_kib: 8192,
            json_depth: 64,
            host_calls: 10_000,
            log_lines: 1000,
            log_line_bytes: 4096,
            stage_tasks: 20_000,
            file_mib: 64,
        }
    }
}

impl Limits {
    /// Reads a limits file; what it does not name keeps its default.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where the file cannot be read or names an unknown limit.
    pub fn read(path: &Path) -> Result<Self, ErrorInfo> {
        let invalid = |reason: String| {
            ErrorInfo::permanent(codes::CONFIG_INVALID, format!("the limits file is not valid: {reason}"))
        };
        let text = std::fs::read_to_string(path).map_err(|error| invalid(error.to_string()))?;
        toml::from_str(&text).map_err(|error| invalid(error.message().to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_overrides_what_it_names_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("limits.toml");
        std::fs::write(&path, "cpu_ms = 5\n").expect("writes");
        assert_eq!(Limits::read(&path), Ok(Limits { cpu_ms: 5, ..Limits::default() }));
        std::fs::write(&path, "cpu = 5\n").expect("writes");
        assert_eq!(Limits::read(&path).expect_err("is refused").code, codes::CONFIG_INVALID);
    }
}
