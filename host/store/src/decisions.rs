//! The decision log: what plugins were asked and what they answered, for replay against a candidate.

use async_trait::async_trait;
use geoworker_machine::json::canonical;
use geoworker_machine::{JobId, TaskId, ids};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::StoreError;

type Result<T> = std::result::Result<T, StoreError>;

/// Decisions beside the truth: nothing of the platform depends on them, and some of them may be lost.
#[async_trait]
pub trait DecisionLog: Send + Sync {
    /// Writes decisions in one transaction, each document once.
    async fn record_decisions(&self, batch: &[NewDecision]) -> Result<()>;
    /// A page of decisions with their documents, newest first.
    async fn decisions(&self, page: DecisionsPage<'_>) -> Result<Vec<Decision>>;
    /// The handler's latest decision on a task.
    async fn latest_handle(&self, task: &TaskId) -> Result<Option<Decision>>;
    /// Removes the oldest decisions that are not to be kept, at most `limit`, with documents that nothing else needs;
    /// answers how many.
    async fn prune_decisions(&self, retention: Retention, limit: u32) -> Result<u64>;
    /// Documents that are kept.
    async fn documents(&self) -> Result<u64>;
}

/// Which question a plugin was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionKind {
    /// `validate`: of a task where the decision names one, else of a job.
    Validate,
    /// `route`.
    Route,
    /// `plan-stage`.
    PlanStage,
    /// `finalize`.
    Finalize,
    /// `handle`.
    Handle,
}

impl DecisionKind {
    /// All kinds, in the order of a job's way.
    pub const ALL: &[Self] = &[Self::Validate, Self::Route, Self::PlanStage, Self::Handle, Self::Finalize];

    /// Name of the function in the contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Route => "route",
            Self::PlanStage => "plan-stage",
            Self::Finalize => "finalize",
            Self::Handle => "handle",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == name)
    }
}

/// A JSON document by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Hex SHA-256 of the canonical text.
    pub digest: String,
    /// The canonical text; none where it was too large to be kept.
    pub text: Option<String>,
}

impl Document {
    /// A document, without its text above `limit` bytes.
    #[must_use]
    pub fn new(value: &Value, limit: usize) -> Self {
        let text = canonical(value);
        Self { digest: ids::digest(&[&text]), text: (text.len() <= limit).then_some(text) }
    }
}

/// A decision to write.
#[derive(Debug, Clone)]
pub struct NewDecision {
    /// Which question.
    pub kind: DecisionKind,
    /// Task or job type.
    pub type_name: String,
    /// SHA-256 of the plugin's file.
    pub plugin_digest: String,
    /// Package and version of the contract.
    pub contract: String,
    /// Version of the host.
    pub host_version: String,
    /// The job, where there was one.
    pub job_id: Option<JobId>,
    /// The task, where it was about one.
    pub task_id: Option<TaskId>,
    /// From 1.
    pub stage: Option<u32>,
    /// Of `handle`, from 1.
    pub attempt: Option<u32>,
    /// The parameters.
    pub input: Document,
    /// What the answer depended on beside them: facts of the inputs for `route`, answers of operations for `handle`.
    pub context: Option<Document>,
    /// `{"ok": …}`, `{"findings": […]}` or `{"failed": …}`; of `handle` with `operations`.
    pub output: Document,
    /// Last lines of the guest's log, as a JSON list.
    pub log: Option<String>,
    /// How long ago it was, in milliseconds.
    pub age_ms: i64,
    /// How long it took, native operations included.
    pub duration_ms: f64,
}

/// A decision that was made.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Position in the log.
    pub id: i64,
    /// When, by the database's clock: milliseconds since 1970 UTC.
    pub at: i64,
    /// Which question.
    pub kind: DecisionKind,
    /// Task or job type.
    pub type_name: String,
    /// SHA-256 of the plugin's file.
    pub plugin_digest: String,
    /// Package and version of the contract.
    pub contract: String,
    /// Version of the host.
    pub host_version: String,
    /// The job, where there was one.
    pub job_id: Option<JobId>,
    /// The task, where it was about one.
    pub task_id: Option<TaskId>,
    /// From 1.
    pub stage: Option<u32>,
    /// Of `handle`, from 1.
    pub attempt: Option<u32>,
    /// See [`NewDecision::input`].
    pub input: Document,
    /// See [`NewDecision::context`].
    pub context: Option<Document>,
    /// See [`NewDecision::output`].
    pub output: Document,
    /// See [`NewDecision::log`].
    pub log: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
}

/// Which decisions to list, newest first.
#[derive(Debug, Clone, Copy, Default)]
pub struct DecisionsPage<'a> {
    /// Only those of the last so many milliseconds.
    pub since_ms: Option<i64>,
    /// Only this kind.
    pub kind: Option<DecisionKind>,
    /// Only this task or job type.
    pub type_name: Option<&'a str>,
    /// Only those before this position.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

/// What is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Decisions of the last so many milliseconds.
    pub keep_ms: i64,
    /// At most so many decisions.
    pub rows: i64,
}
