//! A hostile guest for tests: each task type misbehaves in the way its name says, wherever `where` points to.

use geoworker_sdk::serde_json::{Value, json};
use geoworker_sdk::{
    BlobRef, Failure, Finding, Task, TaskType, TaskTypeInfo, blobs, export_plugin, host, params,
};

export_plugin! {
    tasks: [
        Evil("evil_spin"), Evil("evil_memory"), Evil("evil_output"), Evil("evil_deep"), Evil("evil_log"),
        Evil("evil_calls"), Evil("evil_panic"), Evil("evil_recursion"), Evil("evil_undeclared"), Evil("evil_result")
    ],
    jobs: []
}

struct Evil(&'static str);

impl TaskType for Evil {
    fn name(&self) -> &'static str {
        self.0
    }

    fn describe(&self) -> TaskTypeInfo {
        TaskTypeInfo {
            summary: "Misbehaves",
            class: "raster",
            parameters: json!({"type": "object"}),
            result: json!({"type": "object", "properties": {"fine": {"type": "boolean"}}, "required": ["fine"]}),
            operations: &["blobs.stat"],
            zones: &["bronze:read"],
            max_retries: Some(0),
            timeout_seconds: Some(60),
        }
    }

    fn validate(&self, values: Value) -> Result<Value, Vec<Finding>> {
        if params::text(&values, "where") == "validate" {
            return Ok(misbehave(self.0).unwrap_or_default());
        }
        Ok(values)
    }

    fn handle(&self, _task: &Task) -> Result<Value, Failure> {
        misbehave(self.0)
    }
}

fn misbehave(how: &str) -> Result<Value, Failure> {
    match how {
        "evil_spin" => spin(),
        "evil_memory" => Ok(json!({"fine": grow() > 0})),
        "evil_output" => Ok(json!({"fine": true, "much": "x".repeat(20 << 20)})),
        "evil_deep" => Ok((0..200).fold(json!({"fine": true}), |inner, _| json!([inner]))),
        "evil_log" => {
            (0..5000).for_each(|n| host::info(&format!("line {n}\u{1b}[2J\n{}", "y".repeat(10_000))));
            Ok(json!({"fine": true}))
        }
        "evil_calls" => loop {
            host::progress(f32::NAN, "again");
        },
        "evil_recursion" => Ok(json!({"fine": recurse(1) > 0})),
        "evil_undeclared" => {
            let blob = BlobRef { zone: "silver".into(), container: "c".into(), name: "n".into() };
            blobs::stat(&blob)?;
            Ok(json!({"fine": true}))
        }
        "evil_result" => Ok(json!({"unexpected": 1})),
        _ => None::<Value>.ok_or_else(trap),
    }
}

/// Ends the guest at once, as a panic does.
fn trap() -> Failure {
    std::process::abort()
}

fn spin() -> ! {
    let mut n = 0_u64;
    loop {
        n = std::hint::black_box(n.wrapping_add(1));
    }
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
