//! What can go wrong with a raster. Messages are public: paths are replaced before they get here.

use serde::{Deserialize, Serialize};

/// Code of a source that is no readable raster.
pub(crate) const FILE_UNREADABLE: &str = "FILE_UNREADABLE";
/// Code of a source without bytes.
pub(crate) const FILE_EMPTY: &str = "FILE_EMPTY";
/// Code of settings that the encoder cannot honour for this raster.
pub(crate) const RASTER_UNSUPPORTED: &str = "RASTER_UNSUPPORTED";
/// Code of an output that failed its verification.
pub(crate) const COG_INVALID: &str = "COG_INVALID";
/// Code of a CRS that is not understood.
pub(crate) const CRS_INVALID: &str = "CRS_INVALID";
/// Code of GDAL's own failures.
pub(crate) const GDAL_ERROR: &str = "GDAL_ERROR";
/// Code of memory that ran out.
pub(crate) const MEMORY: &str = "MEMORY";
/// Code of a supervisor that is gone.
pub(crate) const NATIVE_PROTOCOL: &str = "NATIVE_PROTOCOL";
/// Code of a disk that ran full.
pub(crate) const DISK_FULL: &str = "DISK_FULL";

/// A failure with a stable code and a retry class (`permanent`, `transient` or `resource`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct RasterError {
    /// Stable code.
    pub code: String,
    /// One sentence.
    pub message: String,
    /// Retry class.
    pub class: String,
}

impl RasterError {
    pub(crate) fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), class: "permanent".into() }
    }

    /// A failure that GDAL reported; what it said tells memory and disk from the rest.
    pub(crate) fn gdal(code: &str, what: &str) -> Self {
        Self::from_reasons(code, what, &crate::environment::take_messages())
    }

    /// As [`Self::gdal`], from messages that were taken already.
    pub(crate) fn from_reasons(code: &str, what: &str, reasons: &[String]) -> Self {
        // What GDAL could not read explains what it says.
        if let Some(error) = crate::object::failure() {
            return error;
        }
        let find = |words: &[&str]| {
            let says = |reason: &&String| words.iter().any(|word| reason.to_lowercase().contains(word));
            reasons.iter().find(says).cloned()
        };
        if let Some(said) = find(&["no space left", "disk full", "disc full", "write error", "enospc"]) {
            return Self {
                code: DISK_FULL.into(),
                message: format!("{what}: {said}"),
                class: "transient".into(),
            };
        }
        let memory = find(&["out of memory", "cannot allocate", "bad_alloc"]);
        let said = memory
            .clone()
            .or_else(|| reasons.last().cloned())
            .unwrap_or_else(|| "no reason given".to_owned());
        let message = format!("{what}: {said}");
        if memory.is_some() || crate::environment::starved() {
            let message = format!("the operation ran out of memory; {message}");
            return Self { code: MEMORY.into(), message, class: "resource".into() };
        }
        Self::permanent(code, message)
    }
}

impl From<std::io::Error> for RasterError {
    fn from(error: std::io::Error) -> Self {
        if let Some(error) = crate::object::failure() {
            return error;
        }
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self { code: DISK_FULL.into(), message: error.to_string(), class: "transient".into() };
        }
        Self {
            code: GDAL_ERROR.into(),
            message: format!("file access failed: {error}"),
            class: "transient".into(),
        }
    }
}
