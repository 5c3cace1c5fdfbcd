//! What a guest does to its host.

use std::sync::atomic::{AtomicU32, Ordering};

use geoworker_sdk::serde_json::{Value, json};
use geoworker_sdk::{BlobRef, Failure, blobs, host, raster};

/// Calls that this instance has served: more than one would mean that state survives.
static CALLS: AtomicU32 = AtomicU32::new(0);

pub(crate) fn misbehave(how: &str) -> Result<Value, Failure> {
    match how {
        "evil_spin" => spin(),
        "evil_calls" => loop {
            host::progress(f32::NAN, "again");
        },
        "evil_log" => Ok(flood()),
        "evil_recursion" => Ok(json!({"fine": recurse(1) > 0})),
        "evil_memory" => Ok(json!({"fine": grow() > 0})),
        "evil_output" => Ok(json!({"fine": true, "much": "x".repeat(1 << 30)})),
        "evil_string" => Ok(json!({"fine": true, "much": "x".repeat(1 << 20)})),
        "evil_list" => Ok(json!({"fine": true, "much": vec![0_u8; 100_000_000]})),
        "evil_huge" => Ok(json!({"fine": true, "much": vec![0_u8; 150_000]})),
        "evil_deep" => Ok((0..100).fold(json!({"fine": true}), |inner, _| json!([inner]))),
        "evil_text" => Ok(json!("not an object")),
        "evil_control" => Err(Failure::permanent("E\u{1b}[2J\n", "\u{7}\u{1b}]0;title\n".repeat(10_000))),
        "evil_operation" => {
            raster::statistics(&blob("bronze"), 0)?;
            Ok(json!({"fine": true}))
        }
        "evil_undeclared" => {
            blobs::stat(&blob("silver"))?;
            Ok(json!({"fine": true}))
        }
        "evil_result" => Ok(json!({"unexpected": 1})),
        "evil_state" => Ok(json!({"fine": true, "calls": CALLS.fetch_add(1, Ordering::Relaxed) + 1})),
        "evil_memory_content" => Ok(json!({"fine": true, "seen": memory_content()})),
        "evil_progress" => {
            for fraction in [f32::NAN, f32::INFINITY, -1.0] {
                host::progress(fraction, "\u{1b}[2J");
            }
            Ok(json!({"fine": true}))
        }
        _ => std::process::abort(),
    }
}

fn blob(zone: &str) -> BlobRef {
    BlobRef { zone: zone.into(), container: "c".into(), name: "n".into() }
}

fn spin() -> ! {
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
}

fn flood() -> Value {
    (0..5000).for_each(|n| host::info(&format!("line {n}\u{1b}[2J\n{}", "y".repeat(10_000))));
    json!({"fine": true})
}

fn grow() -> usize {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    loop {
        kept.push(vec![1; 1 << 20]);
        std::hint::black_box(&kept);
    }
}

#[expect(unconditional_recursion, reason = "until the stack ends is what it is for")]
fn recurse(depth: u64) -> u64 {
    let frame = [depth; 64];
    std::hint::black_box(&frame);
    recurse(depth + 1) + frame[(depth % 64) as usize]
}

/// What memory holds that nobody wrote, and where it is.
fn memory_content() -> Value {
    let fresh: Vec<u8> = Vec::with_capacity(4 << 20);
    let sum = (0..fresh.capacity()).step_by(97).fold(fresh.as_ptr() as u64, |sum, at| {
        // SAFETY: within the allocation; guest memory is zeroed or left by this very instance.
        let byte = unsafe { std::ptr::read_volatile(fresh.as_ptr().add(at)) };
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    json!(sum.to_string())
}
