//! The marker by which a test makes file variants of this guest without compiling it again.

use geoworker_sdk::host;
use geoworker_sdk::serde_json::{Value, json};

use crate::behaviours::misbehave;

/// The text that tests look for, and after it the variant's name, filled up with dots.
static MARKER: [u8; 48] = *b"geoworker-evil-variant:none.....................";
const NAME: usize = 23;

/// Whether this file is that variant.
pub(crate) fn is(variant: &str) -> bool {
    // SAFETY: a static that is never written; volatile, since the compiler believes to know what is in it.
    let marker = unsafe { std::ptr::read_volatile(&raw const MARKER) };
    let name = marker[NAME..].split(|byte| *byte == b'.').next();
    name == Some(variant.as_bytes())
}

/// Runs when an instance starts, before any call.
#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    if is("start") {
        let _ = misbehave("evil_spin");
    }
    if is("start_memory") {
        let _ = misbehave("evil_memory");
    }
}

/// The schema of the parameters, or what the variant makes of it.
pub(crate) fn schema() -> Value {
    for how in ["evil_spin", "evil_calls", "evil_recursion", "evil_memory", "evil_panic", "evil_string"] {
        if is(how) {
            return misbehave(how).unwrap_or_default();
        }
    }
    if is("schema") {
        return json!({"type": "nothing"});
    }
    if is("reference") {
        return json!({"$ref": "file:///etc/passwd"});
    }
    if is("log") {
        (0..100).for_each(|_| host::info("\u{1b}[2J"));
    }
    json!({"type": "object"})
}

/// The operations that are declared, or more of them than anybody needs.
pub(crate) fn operations() -> &'static [&'static str] {
    if is("operations") { vec!["blobs.stat"; 10_000].leak() } else { &["blobs.stat"] }
}
