//! The three messages on the queues. Field names are fixed, so that another implementation can share the queues (R7).

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ids::{JobId, TaskId};

/// Starts a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobMessage {
    /// Which run.
    pub job_id: JobId,
    /// Its type.
    pub job_type: String,
    /// Parameters; the row is the truth.
    #[serde(default)]
    pub parameters: Map<String, Value>,
    /// Stage to start, from 1.
    pub stage: u32,
    /// For tracing across systems, at most 16 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// When it was written.
    pub timestamp: DateTime<Utc>,
}

/// Asks a worker to run a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// Which task.
    pub task_id: TaskId,
    /// Its job.
    pub parent_job_id: JobId,
    /// The job's type.
    pub job_type: String,
    /// The task's type.
    pub task_type: String,
    /// Stage, from 1.
    pub stage: u32,
    /// Position in the plan, as text.
    pub task_index: String,
    /// Left out where large: the row is the truth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Map<String, Value>>,
    /// Attempts that failed before.
    #[serde(default)]
    pub retry_count: u32,
    /// When it was written.
    pub timestamp: DateTime<Utc>,
    /// For tracing across systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// Says that the last task of a stage has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageComplete {
    /// Always `stage_complete`.
    pub message_type: String,
    /// Which run.
    pub job_id: JobId,
    /// Its type.
    pub job_type: String,
    /// The stage that is over, from 1.
    pub completed_stage: u32,
    /// When it ended.
    pub completed_at: DateTime<Utc>,
    /// `APP_NAME` of whoever ended it.
    pub completed_by_app: String,
    /// For tracing across systems.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// Value of `message_type` in [`StageComplete`].
pub const STAGE_COMPLETE: &str = "stage_complete";

/// A message on the jobs queue. One without `message_type` is a job message.
#[derive(Debug, Clone, PartialEq)]
pub enum JobsQueueMessage {
    /// Start a job.
    Job(JobMessage),
    /// A stage is over.
    StageComplete(StageComplete),
}

impl JobsQueueMessage {
    /// Parses a body. Unknown extra fields are ignored.
    ///
    /// # Errors
    /// What is missing or of the wrong type, in words.
    pub fn parse(body: &str) -> Result<Self, serde_json::Error> {
        let value: Value = serde_json::from_str(body)?;
        let kind = value.get("message_type").and_then(Value::as_str);
        if kind == Some(STAGE_COMPLETE) {
            return Ok(Self::StageComplete(serde_json::from_value(value)?));
        }
        Ok(Self::Job(serde_json::from_value(value)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn messages_of_other_implementations_are_understood() {
        let job = format!(
            r#"{{"job_id":"{ID}","job_type":"hello_world","parameters":{{"n":3}},"stage":1,
                "timestamp":"2026-01-02T03:04:05Z","extra":true}}"#
        );
        assert!(matches!(JobsQueueMessage::parse(&job), Ok(JobsQueueMessage::Job(m)) if m.stage == 1));
        let done = format!(
            r#"{{"message_type":"stage_complete","job_id":"{ID}","job_type":"t","completed_stage":2,
                "completed_at":"2026-01-02T03:04:05.25+00:00","completed_by_app":"w"}}"#
        );
        let parsed = JobsQueueMessage::parse(&done);
        assert!(matches!(parsed, Ok(JobsQueueMessage::StageComplete(m)) if m.completed_stage == 2));
        assert!(JobsQueueMessage::parse("{}").is_err());
    }

    #[test]
    fn a_task_message_has_the_fixed_fields() {
        let message = TaskMessage {
            task_id: ID.parse().expect("an id"),
            parent_job_id: ID.parse().expect("an id"),
            job_type: "j".into(),
            task_type: "t".into(),
            stage: 1,
            task_index: "10".into(),
            parameters: None,
            retry_count: 0,
            timestamp: DateTime::UNIX_EPOCH,
            correlation_id: None,
        };
        let value = serde_json::to_value(&message).expect("serialises");
        let mut keys: Vec<&str> = value.as_object().expect("an object").keys().map(String::as_str).collect();
        keys.sort_unstable();
        let fixed = [
            "job_type",
            "parent_job_id",
            "retry_count",
            "stage",
            "task_id",
            "task_index",
            "task_type",
            "timestamp",
        ];
        assert_eq!(keys, fixed);
    }
}
