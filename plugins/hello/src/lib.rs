//! `hello_world`: n greetings, then one reply to each. `failure_rate` injects failures: the chaos knob.

use geoworker_sdk::serde_json::{Value, json};
use geoworker_sdk::{
    Failure, Job, JobType, JobTypeInfo, Planned, StageInfo, Task, TaskType, TaskTypeInfo, export_plugin,
    host, params, results,
};

export_plugin! { tasks: [Greet, Reply], jobs: [HelloWorld] }

/// Results that are read at a time.
const PAGE: u32 = 200;
/// Replies that the job's result quotes.
const QUOTED: usize = 10;

struct Greet;
struct Reply;
struct HelloWorld;

impl TaskType for Greet {
    fn name(&self) -> &'static str {
        "hello_greet"
    }

    fn describe(&self) -> TaskTypeInfo {
        TaskTypeInfo {
            summary: "Greets one number",
            class: "raster",
            parameters: json!({
                "type": "object",
                "properties": {
                    "number": {"type": "integer", "minimum": 1},
                    "failure_rate": {"type": "number", "minimum": 0, "maximum": 1}
                },
                "required": ["number"],
                "additionalProperties": false
            }),
            result: json!({"type": "object", "properties": {"greeting": {"type": "string"}}, "required": ["greeting"]}),
            operations: &[],
            zones: &[],
            max_retries: Some(5),
            timeout_seconds: Some(60),
        }
    }

    fn handle(&self, task: &Task) -> Result<Value, Failure> {
        let rate = task.params.get("failure_rate").and_then(Value::as_f64).unwrap_or(0.0);
        if chance(&format!("{}/{}/{}", task.job_id, task.unit, task.attempt)) < rate {
            return Err(Failure::transient("HELLO_CHAOS", "failed on request: failure_rate is above 0"));
        }
        let number = task.params["number"].as_u64().unwrap_or_default();
        host::progress(1.0, "greeted");
        Ok(json!({"greeting": greeting(number)}))
    }
}

fn greeting(number: u64) -> String {
    if cfg!(feature = "planted") && number % 7 == 0 {
        return format!("good day, number {number}");
    }
    format!("hello, number {number}")
}

impl TaskType for Reply {
    fn name(&self) -> &'static str {
        "hello_reply"
    }

    fn describe(&self) -> TaskTypeInfo {
        TaskTypeInfo {
            summary: "Replies to one greeting",
            class: "raster",
            parameters: json!({
                "type": "object",
                "properties": {"greeting": {"type": "string"}},
                "required": ["greeting"],
                "additionalProperties": false
            }),
            result: json!({"type": "object", "properties": {"reply": {"type": "string"}}, "required": ["reply"]}),
            operations: &[],
            zones: &[],
            max_retries: None,
            timeout_seconds: Some(60),
        }
    }

    fn handle(&self, task: &Task) -> Result<Value, Failure> {
        Ok(json!({"reply": format!("you said: {}", params::text(&task.params, "greeting"))}))
    }
}

impl JobType for HelloWorld {
    fn name(&self) -> &'static str {
        "hello_world"
    }

    fn describe(&self) -> JobTypeInfo {
        JobTypeInfo {
            summary: "Greets n numbers and replies to each: shows that the platform works",
            parameters: json!({
                "type": "object",
                "properties": {
                    "n": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 3,
                          "description": "How many greetings"},
                    "failure_rate": {"type": "number", "minimum": 0, "maximum": 1, "default": 0,
                                     "description": "Share of attempts that fail on purpose"}
                },
                "additionalProperties": false
            }),
            stages: vec![
                StageInfo { name: "greet", on_failure: "continue" },
                StageInfo { name: "reply", on_failure: "fail" },
            ],
            task_types: &["hello_greet", "hello_reply"],
        }
    }

    fn validate(&self, mut params: Value) -> Result<Value, Vec<geoworker_sdk::Finding>> {
        for (key, default) in [("n", json!(3)), ("failure_rate", json!(0))] {
            if params.get(key).is_none() {
                params[key] = default;
            }
        }
        Ok(params)
    }

    fn plan(&self, job: &Job, stage: u32) -> Result<Vec<Planned>, Failure> {
        if stage == 1 {
            let n = job.params["n"].as_u64().unwrap_or(3);
            let rate = &job.params["failure_rate"];
            let greet = |number| Planned {
                task_type: "hello_greet",
                unit: format!("greeting-{number}"),
                params: json!({"number": number, "failure_rate": rate}),
            };
            return Ok((1..=n).map(greet).collect());
        }
        let reply = |(unit, output): (String, Value)| Planned {
            task_type: "hello_reply",
            unit,
            params: json!({"greeting": output["greeting"]}),
        };
        Ok(completed(1).into_iter().map(reply).collect())
    }

    fn finalize(&self, _job: &Job) -> Result<Value, Failure> {
        let replies = completed(2);
        let quoted: Vec<&Value> = replies.iter().take(QUOTED).map(|(_, output)| &output["reply"]).collect();
        Ok(json!({"greetings": results::count(1), "replies": replies.len(), "first_replies": quoted}))
    }
}

/// Outputs of a stage's completed tasks, in planned order.
fn completed(stage: u32) -> Vec<(String, Value)> {
    let total = results::count(stage);
    let pages = (0..total).step_by(PAGE as usize);
    pages
        .flat_map(|offset| results::page(stage, offset, PAGE))
        .filter_map(|unit| {
            let output = unit.output.and_then(|text| geoworker_sdk::serde_json::from_str(&text).ok())?;
            Some((unit.unit, output))
        })
        .collect()
}

/// A number from 0 to 1 that depends on the text alone (FNV-1a): guests have no randomness.
fn chance(text: &str) -> f64 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}
