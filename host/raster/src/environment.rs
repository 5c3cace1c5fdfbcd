//! GDAL as this process uses it: bounded cache, no sidecar files, no network, errors collected.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use gdal::errors::CplErrType;

use crate::ffi;

/// Drivers that may open user files. Formats that refer to other files (VRT, WMS, ...) are not among them.
pub(crate) const INPUT_DRIVERS: &[&str] = &["GTiff", "COG", "JPEG", "PNG", "JP2OpenJPEG"];

/// Drivers that operations themselves work with: they never open what a user supplied.
const INTERNAL_DRIVERS: &[&str] = &["MEM", "VRT"];

/// Messages kept for the next error.
const KEPT_MESSAGES: usize = 20;

static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static MEMORY_LIMIT: AtomicU64 = AtomicU64::new(0);
static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
static STARVED: AtomicBool = AtomicBool::new(false);
static HIDDEN: Mutex<Vec<(String, &str)>> = Mutex::new(Vec::new());

/// A failure with more of the limit in use than this is one of memory, whatever the library that failed says.
const STARVED_PERCENT: u64 = 80;

/// Sets GDAL up for this process. `cache_mib` bounds its block cache, `memory_bytes` is the limit that is set on
/// the process (0: none), `scratch` takes its temporary files.
pub fn configure(cache_mib: u64, memory_bytes: u64, scratch: Option<&Path>) {
    gdal::DriverManager::register_all();
    ffi::keep_drivers(INPUT_DRIVERS, INTERNAL_DRIVERS);
    ffi::disable_proj_network();
    MEMORY_LIMIT.store(memory_bytes, Ordering::Relaxed);
    let options = [
        ("GDAL_CACHEMAX", cache_mib.to_string()),
        ("GDAL_DISABLE_READDIR_ON_OPEN", "EMPTY_DIR".into()),
        ("GDAL_PAM_ENABLED", "NO".into()),
        // Georeferencing comes from the file alone: no world files, no .aux.xml, no .tab.
        ("GDAL_GEOREF_SOURCES", "INTERNAL".into()),
        ("USE_RRD", "NO".into()),
        ("GDAL_VRT_ENABLE_PYTHON", "NO".into()),
        ("GDAL_VRT_ENABLE_RAWRASTERBAND", "NO".into()),
        ("GDAL_HTTP_MAX_RETRY", "0".into()),
        ("CPL_VSIL_CURL_ALLOWED_EXTENSIONS", ".none".into()),
        ("CPL_DEBUG", "OFF".into()),
    ];
    for (key, value) in options {
        // These keys contain no NUL, the only reason for a refusal.
        let _ = gdal::config::set_config_option(key, &value);
    }
    if let Some(folder) = scratch {
        // One process has one scratch folder.
        let _ = SCRATCH.set(folder.to_owned());
        let _ = gdal::config::set_config_option("CPL_TMPDIR", &folder.to_string_lossy());
    }
    gdal::config::set_error_handler(|kind, _, message| {
        if matches!(kind, CplErrType::Failure | CplErrType::Fatal) {
            remember(message);
        }
    });
}

/// Version of the GDAL that is loaded, such as `3.6.2`.
#[must_use]
pub fn gdal_version() -> String {
    gdal::version::version_info("RELEASE_NAME")
}

/// Folder for temporary files.
pub(crate) fn scratch() -> PathBuf {
    SCRATCH.get().cloned().unwrap_or_else(std::env::temp_dir)
}

/// Bytes of memory that this process may have, where they are limited.
pub(crate) fn memory_limit() -> Option<u64> {
    Some(MEMORY_LIMIT.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
}

/// Replaces `path` by `word` in every message from now on.
pub(crate) fn hide(path: &Path, word: &'static str) {
    if let Ok(mut hidden) = HIDDEN.lock() {
        hidden.push((path.to_string_lossy().into_owned(), word));
        let parent = path.parent().map(PathBuf::from).unwrap_or_default();
        if parent.components().count() > 1 {
            hidden.push((parent.to_string_lossy().into_owned(), "."));
        }
    }
}

/// The messages since the last call, oldest first.
pub(crate) fn take_messages() -> Vec<String> {
    MESSAGES.lock().map(|mut messages| std::mem::take(&mut *messages)).unwrap_or_default()
}

/// Memory ran out at one of the messages so far.
pub(crate) fn starved() -> bool {
    STARVED.load(Ordering::Relaxed)
}

/// Compressors report a failed allocation as a failed compression: only the figures at that moment tell.
fn note_memory() {
    const FIELD: &str = "VmData:";
    let limit = MEMORY_LIMIT.load(Ordering::Relaxed);
    if limit == 0 {
        return;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(FIELD));
    let used_kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
    if used_kib * 1024 * 100 > limit.saturating_mul(STARVED_PERCENT) {
        STARVED.store(true, Ordering::Relaxed);
    }
}

fn remember(message: &str) {
    note_memory();
    let mut text = message.trim().to_owned();
    if let Ok(hidden) = HIDDEN.lock() {
        for (path, word) in hidden.iter() {
            text = text.replace(path.as_str(), word);
        }
    }
    if let Ok(mut messages) = MESSAGES.lock() {
        if messages.len() == KEPT_MESSAGES {
            messages.remove(0);
        }
        messages.push(text);
    }
}
