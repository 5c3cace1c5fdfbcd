//! Recorded decisions, asked once more of a candidate: what would it have decided?

mod compare;
mod services;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use geoworker_machine::{ErrorInfo, codes};
use geoworker_plugins::{
    FileFacts, JobContext, JobTypeInfo, LoadedPlugin, PluginError, Registry, TaskTypeInfo,
};
use geoworker_store::Store;
use geoworker_store::decisions::{Decision, DecisionKind, DecisionLog, DecisionsPage, Document};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::compare::{Comparison, compare};
use self::services::{Asking, ReplayServices};
use crate::attempt;
use crate::core::{results_of, rfc3339};
use crate::decisions::{answered, planned, verdict};

/// Decisions that are read at a time.
const PAGE: u32 = 200;

/// Which decisions to replay.
#[derive(Debug, Clone, Default)]
pub struct ReplayQuery {
    /// Only those of the last so many milliseconds.
    pub since_ms: Option<i64>,
    /// Only this kind.
    pub kind: Option<DecisionKind>,
    /// Only this task or job type.
    pub type_name: Option<String>,
    /// At most so many, the newest ones.
    pub limit: Option<u64>,
}

/// What became of the decisions of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The candidate decides the same.
    pub same: u64,
    /// It decides otherwise.
    pub changed: u64,
    /// Something that the decision depended on is not there any more.
    pub not_comparable: u64,
}

/// A decision that the candidate makes otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Position in the log.
    pub decision: i64,
    /// When it was made: milliseconds since 1970 UTC.
    pub at: i64,
    /// Which question.
    pub kind: DecisionKind,
    /// Task or job type.
    pub type_name: String,
    /// The job, where there was one.
    pub job_id: Option<String>,
    /// The task, where it was about one.
    pub task_id: Option<String>,
    /// What was decided; its digest where it was too large to be kept.
    pub old: Value,
    /// What the candidate decides.
    pub new: Value,
}

/// What a replay found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ReplayReport {
    /// By kind, in the order of a job's way.
    pub kinds: BTreeMap<DecisionKind, Counts>,
    /// All changes, newest decision first.
    pub changes: Vec<Change>,
    /// Why decisions were not comparable, with how many.
    pub reasons: BTreeMap<String, u64>,
    /// Decisions of types that the candidate does not offer; they are counted nowhere else.
    pub not_offered: u64,
}

impl ReplayReport {
    /// Decisions that were looked at.
    #[must_use]
    pub fn replayed(&self) -> u64 {
        self.kinds.values().map(|counts| counts.same + counts.changed + counts.not_comparable).sum()
    }
}

/// A candidate and the records that it is held against.
pub struct Replay {
    /// Rows of jobs and tasks.
    pub store: Arc<dyn Store>,
    /// What was decided.
    pub log: Arc<dyn DecisionLog>,
    /// The candidate's types, and nothing else.
    pub candidate: Registry,
}

/// The candidate's answer, or why there can be none.
type Answer = Result<Value, Incomparable>;

/// Why a decision cannot be replayed.
enum Incomparable {
    /// Something is missing.
    Missing(&'static str),
    /// Nothing more can be read.
    Store(ErrorInfo),
}

impl Replay {
    /// Replays what `query` names. `progress` is told how many decisions are done.
    ///
    /// # Errors
    /// A failure of the store.
    pub async fn run(
        &self,
        query: &ReplayQuery,
        mut progress: impl FnMut(u64),
    ) -> Result<ReplayReport, ErrorInfo> {
        let mut report = ReplayReport::default();
        let mut left = query.limit.unwrap_or(u64::MAX);
        let mut before = None;
        loop {
            let page = DecisionsPage {
                since_ms: query.since_ms,
                kind: query.kind,
                type_name: query.type_name.as_deref(),
                before,
                limit: PAGE,
            };
            let found = self.log.decisions(page).await.map_err(|error| error.info())?;
            let Some(last) = found.last() else { return Ok(report) };
            before = Some(last.id);
            for decision in &found {
                if left == 0 {
                    return Ok(report);
                }
                if !self.offers(decision) {
                    report.not_offered += 1;
                    continue;
                }
                left -= 1;
                self.one(decision, &mut report).await?;
                progress(report.replayed());
            }
        }
    }

    fn offers(&self, decision: &Decision) -> bool {
        match about_task(decision) {
            true => self.candidate.task_type(&decision.type_name).is_ok(),
            false => self.candidate.job_type(&decision.type_name).is_ok(),
        }
    }

    async fn one(&self, decision: &Decision, report: &mut ReplayReport) -> Result<(), ErrorInfo> {
        let comparison = match self.ask(decision).await {
            Ok(new) => compare(&decision.output, &new),
            Err(Incomparable::Missing(reason)) => {
                *report.reasons.entry(reason.to_owned()).or_default() += 1;
                Comparison::NotComparable
            }
            Err(Incomparable::Store(error)) => return Err(error),
        };
        let counts = report.kinds.entry(decision.kind).or_default();
        match comparison {
            Comparison::Same => counts.same += 1,
            Comparison::NotComparable => counts.not_comparable += 1,
            Comparison::Changed { old, new } => {
                counts.changed += 1;
                report.changes.push(Change {
                    decision: decision.id,
                    at: decision.at,
                    kind: decision.kind,
                    type_name: decision.type_name.clone(),
                    job_id: decision.job_id.as_ref().map(ToString::to_string),
                    task_id: decision.task_id.as_ref().map(ToString::to_string),
                    old,
                    new,
                });
            }
        }
        Ok(())
    }

    /// Asks the candidate what was asked then.
    async fn ask(&self, decision: &Decision) -> Answer {
        let params: Value = read(&decision.input, "its parameters are not kept")?;
        if about_task(decision) {
            let (plugin, info) =
                self.candidate.task_type(&decision.type_name).map_err(Incomparable::Store)?;
            return match decision.kind {
                DecisionKind::Validate => task_verdict(&plugin, &info, &params).await,
                DecisionKind::Route => route(&plugin, decision, &params).await,
                _ => self.handle(&plugin, &info, decision, params).await,
            };
        }
        let (plugin, info) = self.candidate.job_type(&decision.type_name).map_err(Incomparable::Store)?;
        match decision.kind {
            DecisionKind::Validate => job_verdict(&plugin, &info, &params).await,
            _ => self.plan_or_finalize(&plugin, decision, &params).await,
        }
    }

    /// With the recorded results, which are the rows of the job's tasks.
    async fn plan_or_finalize(&self, plugin: &LoadedPlugin, decision: &Decision, params: &Value) -> Answer {
        let id = decision.job_id.as_ref().ok_or(Incomparable::Missing("it names no job"))?;
        let job = self.store.job(id).await.map_err(|error| Incomparable::Store(error.info()))?;
        let job = job.ok_or(Incomparable::Missing("its job is not kept"))?;
        let context = JobContext {
            job_id: id.to_string(),
            job_type: job.job_type.clone(),
            params: params.to_string(),
            submitted_at: rfc3339(job.created_at),
        };
        let services = results_of(&self.store, id);
        let answer = match decision.stage {
            Some(stage) => planned(&plugin.plan_stage(&context, stage, services).await),
            None => answered(&plugin.finalize(&context, services).await),
        };
        answer.ok_or(Incomparable::Missing("the results of its stages cannot be read"))
    }

    /// With the recorded answers of operations.
    async fn handle(
        &self,
        plugin: &LoadedPlugin,
        info: &TaskTypeInfo,
        decision: &Decision,
        params: Value,
    ) -> Answer {
        let missing = Incomparable::Missing("its task is not kept");
        let (Some(task), Some(job)) = (&decision.task_id, &decision.job_id) else { return Err(missing) };
        let stored = |error: geoworker_store::StoreError| Incomparable::Store(error.info());
        let task = self.store.task(task).await.map_err(stored)?;
        let job = self.store.job(job).await.map_err(stored)?;
        let (Some(mut task), Some(job)) = (task, job) else { return Err(missing) };
        task.attempt = decision.attempt.unwrap_or(task.attempt);
        task.parameters = params;
        let answers = match &decision.context {
            Some(answers) => read(answers, "the answers of its operations are not kept")?,
            None => Vec::new(),
        };
        let asking = Arc::new(Mutex::new(Asking::new(answers)));
        let services = Box::new(ReplayServices(Arc::clone(&asking)));
        let answer = plugin.handle(info, &attempt::context(&task, &job), services, Vec::new()).await;
        let asking = asking.lock().map_err(|_| Incomparable::Missing("its replay crashed"))?;
        let mut output =
            answered(&answer).unwrap_or_else(|| json!({"asks_for_something_else": asking.unknown()}));
        output["operations"] = asking.requests();
        Ok(output)
    }
}

/// Whether a task type was asked; else a job type was.
fn about_task(decision: &Decision) -> bool {
    match decision.kind {
        DecisionKind::Validate => decision.task_id.is_some(),
        DecisionKind::Route | DecisionKind::Handle => true,
        DecisionKind::PlanStage | DecisionKind::Finalize => false,
    }
}

fn read<T: DeserializeOwned>(document: &Document, missing: &'static str) -> Result<T, Incomparable> {
    let text = document.text.as_deref().ok_or(Incomparable::Missing(missing))?;
    serde_json::from_str(text).map_err(|_| Incomparable::Missing("its record cannot be read"))
}

/// A schema that refuses what was accepted is a change too.
fn refused(errors: &[String]) -> Value {
    json!({"failed": ErrorInfo::permanent(codes::PARAM_INVALID, errors.join("; "))})
}

/// Guests that only think have nothing to be stopped by.
fn thought(answer: Option<Value>) -> Answer {
    answer.ok_or(Incomparable::Missing("the call was stopped"))
}

async fn task_verdict(plugin: &LoadedPlugin, info: &TaskTypeInfo, params: &Value) -> Answer {
    if let Err(errors) = info.parameters.check(params) {
        return Ok(refused(&errors));
    }
    thought(verdict(&plugin.validate_task(&info.name, params).await))
}

async fn job_verdict(plugin: &LoadedPlugin, info: &JobTypeInfo, params: &Value) -> Answer {
    if let Err(errors) = info.parameters.check(params) {
        return Ok(refused(&errors));
    }
    thought(verdict(&plugin.validate_job(&info.name, params).await))
}

async fn route(plugin: &LoadedPlugin, decision: &Decision, params: &Value) -> Answer {
    let facts =
        decision.context.as_ref().ok_or(Incomparable::Missing("the facts of its inputs are not kept"))?;
    let facts: Vec<FileFacts> = read(facts, "the facts of its inputs are not kept")?;
    let answer: Result<_, PluginError> = plugin.route(&decision.type_name, params, &facts).await;
    thought(answered(&answer))
}
