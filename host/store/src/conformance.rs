//! The suite that every [`Store`] passes. It takes an empty store and panics at the first promise not kept.

#![expect(clippy::expect_used, clippy::panic, reason = "a test suite fails by panicking")]

use async_trait::async_trait;
use geoworker_machine::stage::{FailurePolicy, StageSpec};
use geoworker_machine::{ErrorInfo, JobId, JobState, RetryClass, TaskId, TaskState};
use serde_json::json;

use crate::SqliteDatabase;
use crate::records::{
    Claim, ClaimRequest, Fenced, JournalEntry, NewJob, NewTask, Outcome, Renewal, StagePlan, Submitted,
    Swept, Task,
};
use crate::store::Store;

/// Moves a store's time on, so that nothing has to be waited for.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Makes everything that was due in `ms` due now.
    async fn skip(&self, ms: i64);
}

/// [`Clock`] of SQLite: shifts the stored times.
#[derive(Debug)]
pub struct SqliteClock(pub SqliteDatabase);

#[async_trait]
impl Clock for SqliteClock {
    async fn skip(&self, ms: i64) {
        let mut tx = self.0.write().await.expect("begins");
        for statement in [
            "UPDATE tasks SET lease_until = lease_until - ?1, not_before = max(not_before - ?1, 0), hint_at = hint_at - ?1",
            "UPDATE jobs SET hint_at = hint_at - ?1",
            "UPDATE stages SET ended_at = ended_at - ?1",
        ] {
            sqlx::query(statement).bind(ms).execute(&mut *tx).await.expect("shifts");
        }
        tx.commit().await.expect("commits");
    }
}

const JOBS: &str = "jobs";
const LEASE_MS: i64 = 60_000;

/// Runs the whole suite.
pub async fn run(store: &dyn Store, clock: &dyn Clock) {
    submission_is_idempotent(store).await;
    a_slow_relay_deletes_only_what_it_sent(store).await;
    stages_advance_once(store).await;
    stale_attempts_change_nothing(store, clock).await;
    the_journal_is_fenced(store, clock).await;
    retries_wait_and_give_back_does_not_count(store, clock).await;
    empty_stages_complete_at_once(store).await;
    the_sweeper_drives_forward(store, clock).await;
    results_are_in_planned_order(store).await;
    a_cancelled_job_ends_its_tasks_first(store, clock).await;
}

/// Exactly one of many concurrent claims wins, across two openers of the same data.
pub async fn two_claimants(one: &dyn Store, two: &dyn Store) {
    let tasks = planned(one, "claimants", 20).await;
    for task in &tasks {
        let (a, b) = tokio::join!(one.claim(task, request("a")), two.claim(task, request("b")));
        let won = [a, b].into_iter().filter(|claim| matches!(claim, Ok(Claim::Claimed(_)))).count();
        assert_eq!(won, 1, "one of two claims wins");
    }
}

fn new_job(name: &str, force: bool) -> NewJob {
    let stage = |name: &str| StageSpec { name: name.into(), on_failure: FailurePolicy::Fail };
    NewJob {
        job_type: "conformance".into(),
        parameters: json!({"name": name}),
        stages: vec![stage("one"), stage("two")],
        plugin_digest: "digest".into(),
        correlation_id: Some("corr".into()),
        jobs_queue: JOBS.into(),
        force,
    }
}

fn plan(job: &JobId, number: u32, units: u32) -> StagePlan {
    let task = |n: u32| NewTask {
        task_id: TaskId::derive(job, number, &format!("unit-{n}")),
        unit: format!("unit-{n}"),
        task_type: "t".into(),
        parameters: json!({"n": n}),
        queue: "tasks".into(),
        route_reason: "class: raster".into(),
        max_retries: 3,
        timeout_seconds: 60,
    };
    StagePlan {
        number,
        name: format!("stage {number}"),
        tasks: (0..units).map(task).collect(),
        jobs_queue: JOBS.into(),
        app_name: "app".into(),
    }
}

fn request(worker: &str) -> ClaimRequest<'_> {
    ClaimRequest { worker, lease_ms: LEASE_MS, plugin_digest: "digest" }
}

async fn submitted(store: &dyn Store, name: &str) -> JobId {
    store.submit(new_job(name, false)).await.expect("submits").job_id
}

async fn planned(store: &dyn Store, name: &str, units: u32) -> Vec<TaskId> {
    let job = submitted(store, name).await;
    assert!(store.plan_stage(&job, plan(&job, 1, units)).await.expect("plans"));
    drain(store).await;
    store.tasks(&job, 100_000).await.expect("lists").into_iter().map(|task| task.task_id).collect()
}

/// Plays the relay: takes all messages out of the outbox.
async fn drain(store: &dyn Store) -> Vec<String> {
    let rows = store.outbox(100_000).await.expect("lists");
    let ids: Vec<i64> = rows.iter().map(|row| row.id).collect();
    store.outbox_sent(&ids).await.expect("marks");
    rows.into_iter().map(|row| row.body).collect()
}

async fn claimed(store: &dyn Store, id: &TaskId, worker: &str) -> Task {
    match store.claim(id, request(worker)).await.expect("claims") {
        Claim::Claimed(task) => *task,
        other => panic!("not claimed: {other:?}"),
    }
}

async fn finish(store: &dyn Store, task: &Task, outcome: Outcome) -> Fenced {
    store.finish(&task.task_id, task.lease_epoch, outcome, JOBS, "app").await.expect("finishes")
}

/// R12.
async fn submission_is_idempotent(store: &dyn Store) {
    let first = store.submit(new_job("same", false)).await.expect("submits");
    let again = store.submit(new_job("same", false)).await.expect("submits");
    assert_eq!(again, Submitted { job_id: first.job_id.clone(), existing: true });
    let forced = store.submit(new_job("same", true)).await.expect("submits");
    assert_ne!(forced.job_id, first.job_id);
    let job = store.job(&forced.job_id).await.expect("reads").expect("is there");
    assert_eq!((job.run_ordinal, job.previous_run), (2, Some(first.job_id.clone())));
    let bodies = drain(store).await;
    assert_eq!(bodies.len(), 2, "one message per run");
    assert!(bodies[0].contains(first.job_id.as_str()));
    let error = ErrorInfo::permanent("X", "over");
    for id in [first.job_id, forced.job_id] {
        assert!(store.end_job(&id, 0, JobState::Failed, None, Some(error.clone())).await.expect("ends"));
        assert!(!store.end_job(&id, 0, JobState::Completed, None, None).await.expect("is final"));
    }
}

/// Two relays list the same row; the slower one reports it sent after newer messages were written.
async fn a_slow_relay_deletes_only_what_it_sent(store: &dyn Store) {
    let job = submitted(store, "relays").await;
    let slow: Vec<i64> = store.outbox(10).await.expect("lists").iter().map(|row| row.id).collect();
    drain(store).await;
    assert!(store.plan_stage(&job, plan(&job, 1, 1)).await.expect("plans"));
    store.outbox_sent(&slow).await.expect("marks");
    assert_eq!(drain(store).await.len(), 1, "the task's message is still there to be sent");
    let task = store.tasks(&job, 1).await.expect("lists").remove(0);
    let held = claimed(store, &task.task_id, "w").await;
    finish(store, &held, Outcome::Completed(json!({}))).await;
    drain(store).await;
}

/// R8: whoever ends last signals once; duplicates and late signals change nothing.
async fn stages_advance_once(store: &dyn Store) {
    let job = submitted(store, "advance").await;
    assert!(store.plan_stage(&job, plan(&job, 1, 3)).await.expect("plans"));
    assert!(!store.plan_stage(&job, plan(&job, 1, 3)).await.expect("is a duplicate"));
    assert!(!store.plan_stage(&job, plan(&job, 2, 1)).await.expect("is too early"));
    drain(store).await;
    let tasks = store.tasks(&job, 10).await.expect("lists");
    assert!(tasks.iter().all(|task| task.state == TaskState::Queued), "the relay marked them");
    for (position, task) in tasks.iter().enumerate() {
        let held = claimed(store, &task.task_id, "w").await;
        assert_eq!(finish(store, &held, Outcome::Completed(json!({}))).await, Fenced::Accepted);
        let messages = drain(store).await;
        assert_eq!(messages.len(), usize::from(position == 2), "only the last one signals");
        assert_eq!(finish(store, &held, Outcome::Completed(json!({}))).await, Fenced::Stale);
        assert!(matches!(store.claim(&task.task_id, request("w")).await, Ok(Claim::Over)));
    }
    assert!(store.plan_stage(&job, plan(&job, 2, 1)).await.expect("advances"));
    assert!(!store.plan_stage(&job, plan(&job, 2, 1)).await.expect("is a duplicate"));
    drain(store).await;
    let early = store.end_job(&job, 2, JobState::Completed, None, None).await.expect("is refused");
    assert!(!early, "a running stage keeps the job open");
    let last = store.tasks(&job, 10).await.expect("lists").pop().expect("is there");
    let held = claimed(store, &last.task_id, "w").await;
    finish(store, &held, Outcome::Failed(ErrorInfo::permanent("X", "no"))).await;
    assert_eq!(drain(store).await.len(), 1, "a failed task turns out the lights too");
    let stages = store.stages(&job).await.expect("lists");
    assert_eq!((stages[1].failed, stages[1].remaining), (1, 0));
    assert!(store.end_job(&job, 2, JobState::Completed, Some(json!(1)), None).await.expect("ends"));
    assert!(!store.plan_stage(&job, plan(&job, 3, 1)).await.expect("is over"));
}

/// B2.
async fn stale_attempts_change_nothing(store: &dyn Store, clock: &dyn Clock) {
    let tasks = planned(store, "stale", 1).await;
    let first = claimed(store, &tasks[0], "one").await;
    assert!(matches!(store.claim(&tasks[0], request("two")).await, Ok(Claim::Busy(ms)) if ms > 0));
    clock.skip(LEASE_MS + 1).await;
    let second = claimed(store, &tasks[0], "two").await;
    assert_eq!((second.attempt, second.lease_epoch), (2, first.lease_epoch + 1));
    let retry = Outcome::Retry { error: ErrorInfo::transient("X", "late"), delay_ms: 0 };
    for outcome in [Outcome::Completed(json!({})), retry, Outcome::GiveBack("late".into())] {
        assert_eq!(finish(store, &first, outcome).await, Fenced::Stale);
    }
    let renewed = store.renew(&tasks[0], first.lease_epoch, LEASE_MS, None).await.expect("answers");
    assert_eq!(renewed, Renewal::Stale);
    let progress = Some((0.5, "half".to_owned()));
    let renewed = store.renew(&tasks[0], second.lease_epoch, LEASE_MS, progress).await.expect("answers");
    assert_eq!(renewed, Renewal::Held);
    let row = store.task(&tasks[0]).await.expect("reads").expect("is there");
    assert_eq!((row.progress, row.progress_message.as_deref()), (0.5, Some("half")));
    finish(store, &second, Outcome::Completed(json!({"by": "two"}))).await;
    drain(store).await;
}

/// B1: finished operations answer on the next attempt, unless the plugin changed.
async fn the_journal_is_fenced(store: &dyn Store, clock: &dyn Clock) {
    let tasks = planned(store, "journal", 1).await;
    let first = claimed(store, &tasks[0], "one").await;
    let entry = |sequence| JournalEntry {
        sequence,
        operation: "raster.inspect".into(),
        request_hash: "h".into(),
        outcome: json!({"ok": 1}),
        duration_ms: 5,
    };
    for sequence in 0..2 {
        let recorded = store.record(&tasks[0], first.lease_epoch, entry(sequence)).await.expect("answers");
        assert_eq!(recorded, Fenced::Accepted);
    }
    clock.skip(LEASE_MS + 1).await;
    let second = claimed(store, &tasks[0], "two").await;
    let stale = store.record(&tasks[0], first.lease_epoch, entry(2)).await.expect("answers");
    assert_eq!(stale, Fenced::Stale);
    assert_eq!(store.journal(&tasks[0]).await.expect("reads"), [entry(0), entry(1)]);
    store.record(&tasks[0], second.lease_epoch, entry(0)).await.expect("answers");
    assert_eq!(store.journal(&tasks[0]).await.expect("reads"), [entry(0)], "what followed is discarded");
    clock.skip(LEASE_MS + 1).await;
    let changed = ClaimRequest { plugin_digest: "other", ..request("three") };
    let Ok(Claim::Claimed(third)) = store.claim(&tasks[0], changed).await else { panic!("not claimed") };
    assert!(store.journal(&tasks[0]).await.expect("reads").is_empty(), "a changed plugin starts afresh");
    finish(store, &third, Outcome::Completed(json!({}))).await;
    drain(store).await;
}

/// R15, R17.
async fn retries_wait_and_give_back_does_not_count(store: &dyn Store, clock: &dyn Clock) {
    let tasks = planned(store, "retry", 1).await;
    let held = claimed(store, &tasks[0], "w").await;
    assert_eq!(finish(store, &held, Outcome::GiveBack("shutdown".into())).await, Fenced::Accepted);
    let held = claimed(store, &tasks[0], "w").await;
    assert_eq!(held.attempt, 1, "an interrupted attempt does not count");
    let error = ErrorInfo::transient("GDAL_ERROR", "flaky");
    let retry = Outcome::Retry { error: error.clone(), delay_ms: 30_000 };
    assert_eq!(finish(store, &held, retry).await, Fenced::Accepted);
    assert!(matches!(store.claim(&tasks[0], request("w")).await, Ok(Claim::NotDue(ms)) if ms > 0));
    let message = store.outbox(10).await.expect("lists").pop().expect("the next attempt is scheduled");
    assert!(message.not_before > 0);
    drain(store).await;
    clock.skip(30_001).await;
    let held = claimed(store, &tasks[0], "w").await;
    assert_eq!((held.attempt, held.error), (2, Some(error)));
    let last = ErrorInfo::new("MEMORY", RetryClass::Resource, "too big");
    let held = store.task(&held.task_id).await.expect("reads").expect("is there");
    finish(store, &held, Outcome::Failed(last)).await;
    drain(store).await;
}

async fn empty_stages_complete_at_once(store: &dyn Store) {
    let job = submitted(store, "empty").await;
    drain(store).await;
    assert!(store.plan_stage(&job, plan(&job, 1, 0)).await.expect("plans"));
    let messages = drain(store).await;
    assert!(messages.len() == 1 && messages[0].contains("stage_complete"), "{messages:?}");
    assert!(store.plan_stage(&job, plan(&job, 2, 0)).await.expect("advances"));
    drain(store).await;
    assert!(store.end_job(&job, 2, JobState::Completed, None, None).await.expect("ends"));
}

/// Lost messages, lost workers and lost signals are driven forward; healthy work is left alone.
async fn the_sweeper_drives_forward(store: &dyn Store, clock: &dyn Clock) {
    const QUIET_MS: i64 = 30_000;
    let sweep = || async { store.sweep(QUIET_MS, JOBS, "app").await.expect("sweeps") };
    clock.skip(QUIET_MS + 1).await;
    sweep().await; // whatever earlier parts of the suite left open
    drain(store).await;

    let job = submitted(store, "sweep").await;
    drain(store).await;
    assert_eq!(sweep().await, Swept::default(), "nothing is overdue");
    clock.skip(QUIET_MS + 1).await;
    let swept = sweep().await;
    assert!(swept.jobs >= 1, "a job that nobody planned");
    drain(store).await;

    assert!(store.plan_stage(&job, plan(&job, 1, 1)).await.expect("plans"));
    drain(store).await;
    let id = store.tasks(&job, 1).await.expect("lists").remove(0).task_id;
    clock.skip(QUIET_MS + 1).await;
    sweep().await;
    assert!(drain(store).await.iter().any(|body| body.contains(id.as_str())), "a hint the broker lost");

    let held = claimed(store, &id, "w").await;
    clock.skip(QUIET_MS + 1).await;
    sweep().await;
    assert!(
        !drain(store).await.iter().any(|body| body.contains(id.as_str())),
        "a healthy lease is left alone"
    );
    clock.skip(LEASE_MS).await;
    sweep().await;
    assert!(drain(store).await.iter().any(|body| body.contains(id.as_str())), "an expired lease");

    finish(store, &held, Outcome::Completed(json!({}))).await;
    drain(store).await; // the signal is lost
    clock.skip(QUIET_MS + 1).await;
    sweep().await;
    let bodies = drain(store).await;
    assert!(
        bodies.iter().any(|body| body.contains("stage_complete") && body.contains(job.as_str())),
        "{bodies:?}"
    );
}

/// R11: numeric order, not text order.
async fn results_are_in_planned_order(store: &dyn Store) {
    let tasks = planned(store, "order", 12).await;
    for (n, id) in tasks.iter().enumerate().rev() {
        let held = claimed(store, id, "w").await;
        finish(store, &held, Outcome::Completed(json!({"n": n}))).await;
    }
    drain(store).await;
    let job = store.task(&tasks[0]).await.expect("reads").expect("is there").job_id;
    assert_eq!(store.stage_size(&job, 1).await.expect("counts"), 12);
    let page = store.stage_results(&job, 1, 9, 10).await.expect("reads");
    let units: Vec<&str> = page.iter().map(|result| result.unit.as_str()).collect();
    assert_eq!(units, ["unit-9", "unit-10", "unit-11"]);
    assert_eq!(page[2].output.as_deref(), Some(r#"{"n":11}"#));
}

/// B9: waiting tasks end at once, a running one when its worker sees it, a lost one when the sweeper does.
async fn a_cancelled_job_ends_its_tasks_first(store: &dyn Store, clock: &dyn Clock) {
    let tasks = planned(store, "cancel", 3).await;
    let lost = claimed(store, &tasks[1], "dead").await;
    clock.skip(LEASE_MS / 2).await;
    let running = claimed(store, &tasks[0], "w").await;
    let job = &running.job_id;
    assert!(store.cancel_job(job, JOBS, "app").await.expect("cancels"));
    assert!(drain(store).await.is_empty(), "tasks are still running");
    assert!(!store.plan_stage(job, plan(job, 2, 1)).await.expect("is refused"));
    assert!(matches!(store.claim(&tasks[2], request("w")).await, Ok(Claim::Over)));
    clock.skip(LEASE_MS / 2 + 1).await;
    assert_eq!(store.sweep(LEASE_MS, JOBS, "app").await.expect("sweeps").cancelled, 1, "the lost one");
    let renewed = store.renew(&tasks[0], running.lease_epoch, LEASE_MS, None).await.expect("answers");
    assert_eq!(renewed, Renewal::Cancelling);
    drain(store).await;
    assert_eq!(finish(store, &running, Outcome::Cancelled).await, Fenced::Accepted);
    assert!(
        drain(store).await.iter().any(|body| body.contains("stage_complete") && body.contains(job.as_str()))
    );
    assert_eq!(finish(store, &lost, Outcome::Completed(json!({}))).await, Fenced::Stale);
    assert!(store.end_job(job, 1, JobState::Cancelled, None, None).await.expect("ends"));
    assert!(!store.cancel_job(job, JOBS, "app").await.expect("is over"));
    let states: Vec<TaskState> =
        store.tasks(job, 10).await.expect("lists").into_iter().map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Cancelled; 3]);
}
