//! The suite that every [`Store`] passes. It takes an empty store and panics at the first promise not kept.

#![expect(clippy::expect_used, clippy::panic, reason = "a test suite fails by panicking")]

use std::collections::BTreeMap;

use async_trait::async_trait;
use geoworker_machine::stage::{FailurePolicy, StageSpec};
use geoworker_machine::{ErrorInfo, JobId, JobState, RetryClass, TaskId, TaskState};
use serde_json::json;

use crate::decisions::{DecisionKind, DecisionLog, DecisionsPage, Document, NewDecision, Retention};
use crate::records::{
    Beat, Claim, ClaimRequest, Fenced, Job, JobsPage, JournalEntry, NewJob, NewTask, Outcome, Renewal, Rerun,
    StagePlan, Submitted, Swept, Task, TasksPage,
};
use crate::store::Store;
use crate::{PostgresDatabase, SqliteDatabase};

/// Moves a store's time on, so that nothing has to be waited for.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Makes everything that was due in `ms` due now.
    async fn skip(&self, ms: i64);
}

/// Times that are due later, moved into the past by `$1` milliseconds.
const SHIFTS: [&str; 6] = [
    "UPDATE tasks SET lease_until = lease_until - $1, hint_at = hint_at - $1,
         not_before = CASE WHEN not_before > $1 THEN not_before - $1 ELSE 0 END",
    "UPDATE jobs SET hint_at = hint_at - $1",
    "UPDATE stages SET ended_at = ended_at - $1",
    "UPDATE outbox SET held_until = held_until - $1",
    "UPDATE leases SET held_until = held_until - $1",
    "UPDATE decisions SET at = at - $1",
];

macro_rules! clock {
    ($(#[$doc:meta])* $name:ident, $database:ty) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(pub $database);

        #[async_trait]
        impl Clock for $name {
            async fn skip(&self, ms: i64) {
                let mut tx = self.0.write().await.expect("begins");
                for statement in SHIFTS {
                    sqlx::query(statement).bind(ms).execute(&mut *tx).await.expect("shifts");
                }
                tx.commit().await.expect("commits");
            }
        }
    };
}

clock!(/// [`Clock`] of SQLite: shifts the stored times.
    SqliteClock, SqliteDatabase);
clock!(/// [`Clock`] of PostgreSQL: shifts the stored times.
    PostgresClock, PostgresDatabase);

const JOBS: &str = "jobs";
const LEASE_MS: i64 = 60_000;

/// Runs the whole suite.
pub async fn run(store: &dyn Store, clock: &dyn Clock) {
    submission_is_idempotent(store).await;
    a_slow_relay_deletes_only_what_it_sent(store, clock).await;
    stages_advance_once(store).await;
    stale_attempts_change_nothing(store, clock).await;
    the_journal_is_fenced(store, clock).await;
    retries_wait_and_give_back_does_not_count(store, clock).await;
    empty_stages_complete_at_once(store).await;
    the_sweeper_drives_forward(store, clock).await;
    results_are_in_planned_order(store).await;
    a_cancelled_job_ends_its_tasks_first(store, clock).await;
    a_cancelled_task_counts_as_failed(store, clock).await;
    a_retry_carries_over_what_succeeded(store).await;
    one_leads_and_workers_are_seen(store, clock).await;
    pages_are_complete_and_in_order(store).await;
    a_large_stage_and_large_results_work(store).await;
}

/// Runs the suite of the decision log, on an empty store.
pub async fn run_decisions(log: &dyn DecisionLog, clock: &dyn Clock) {
    let task: TaskId = "a".repeat(64).parse().expect("is an id");
    let written = |number: u32, kind: DecisionKind, type_name: &str| NewDecision {
        kind,
        type_name: type_name.into(),
        plugin_digest: "plugin".into(),
        contract: "contract".into(),
        host_version: "1".into(),
        job_id: None,
        task_id: (kind == DecisionKind::Handle).then(|| task.clone()),
        stage: Some(1),
        attempt: Some(2),
        input: Document::new(&json!({"nul": "\u{0}", "shared": true}), 1000),
        context: (number == 2).then(|| Document::new(&json!([number]), 1000)),
        output: Document::new(&json!({"ok": number}), if number == 3 { 1 } else { 1000 }),
        log: Some(format!("line {number}")),
        age_ms: 0,
        duration_ms: 0.5,
    };
    let batch = [
        written(1, DecisionKind::Validate, "one"),
        written(2, DecisionKind::Handle, "one"),
        written(3, DecisionKind::Handle, "two"),
    ];
    log.record_decisions(&batch).await.expect("writes");
    log.record_decisions(&[]).await.expect("writes nothing");
    let all = log.decisions(DecisionsPage { limit: 10, ..DecisionsPage::default() }).await.expect("lists");
    assert_eq!(all.len(), 3);
    assert_eq!((all[0].type_name.as_str(), all[0].output.text.as_ref()), ("two", None), "newest first");
    assert_eq!(all[0].output.digest, Document::new(&json!({"ok": 3}), 1000).digest);
    assert_eq!(all[1].context, batch[1].context);
    assert_eq!(
        (all[2].kind, &all[2].input, all[2].duration_ms),
        (DecisionKind::Validate, &batch[0].input, 0.5)
    );
    let page = DecisionsPage {
        before: Some(all[0].id),
        kind: Some(DecisionKind::Handle),
        limit: 10,
        ..DecisionsPage::default()
    };
    let found = log.decisions(page).await.expect("lists");
    assert_eq!(found.iter().map(|row| row.id).collect::<Vec<_>>(), [all[1].id]);
    let page = DecisionsPage { type_name: Some("two"), limit: 10, ..DecisionsPage::default() };
    assert_eq!(log.decisions(page).await.expect("lists").len(), 1);
    let latest = log.latest_handle(&task).await.expect("reads").expect("is there");
    assert_eq!((latest.id, latest.log.as_deref()), (all[0].id, Some("line 3")));

    let keep = |ms, rows| Retention { keep_ms: ms, rows };
    assert_eq!(log.prune_decisions(keep(LEASE_MS, 100), 10).await.expect("prunes"), 0);
    assert_eq!(
        log.prune_decisions(keep(LEASE_MS, 2), 10).await.expect("prunes"),
        1,
        "the oldest row is one too many"
    );
    clock.skip(LEASE_MS + 1).await;
    log.record_decisions(&[written(4, DecisionKind::Route, "one")]).await.expect("writes");
    let page = DecisionsPage { since_ms: Some(LEASE_MS), limit: 10, ..DecisionsPage::default() };
    assert_eq!(log.decisions(page).await.expect("lists").len(), 1, "what is older is left out");
    assert_eq!(log.prune_decisions(keep(LEASE_MS, 100), 1).await.expect("prunes"), 1, "in small batches");
    assert_eq!(log.prune_decisions(keep(LEASE_MS, 100), 10).await.expect("prunes"), 1);
    let left = log.decisions(DecisionsPage { limit: 10, ..DecisionsPage::default() }).await.expect("lists");
    assert_eq!(left.len(), 1);
    assert!(left[0].input.text.is_some(), "a document that is still needed stays");
    assert_eq!(log.documents().await.expect("counts"), 1, "one that is not goes");
}

/// Two openers of the same data, as two processes: exactly one of concurrent claims, endings, submissions, plans and
/// leaders wins.
pub async fn two_openers(one: &dyn Store, two: &dyn Store) {
    let tasks = planned(one, "claimants", 20).await;
    for task in &tasks {
        let (a, b) = tokio::join!(one.claim(task, request("a")), two.claim(task, request("b")));
        let won = [a, b].into_iter().filter_map(|claim| match claim {
            Ok(Claim::Claimed(task)) => Some(*task),
            _ => None,
        });
        let won: Vec<Task> = won.collect();
        assert_eq!(won.len(), 1, "one of two claims wins");
        let done = Outcome::Completed(json!({}));
        let (a, b) = tokio::join!(finish(one, &won[0], done.clone()), finish(two, &won[0], done));
        assert!((a == Fenced::Accepted) != (b == Fenced::Accepted), "one of two endings counts");
    }
    let (a, b) = tokio::join!(drain(one), drain(two));
    assert_eq!(a.len() + b.len(), 1, "the stage was signalled once, and relayed once");
    for force in [false, true] {
        let (a, b) = tokio::join!(one.submit(new_job("twice", force)), two.submit(new_job("twice", force)));
        let (a, b) = (a.expect("submits"), b.expect("submits"));
        assert_eq!(a.job_id == b.job_id, !force);
        assert_eq!(a.existing != b.existing, !force, "one of two is the first");
    }
    let job = submitted(one, "planners").await;
    let (a, b) = tokio::join!(one.plan_stage(&job, plan(&job, 1, 3)), two.plan_stage(&job, plan(&job, 1, 3)));
    assert!(a.expect("answers") != b.expect("answers"), "one of two plans counts");
    let (a, b) = tokio::join!(one.lead("sweep", "a", 1000), two.lead("sweep", "b", 1000));
    assert!(a.expect("answers") != b.expect("answers"), "one of two leads");
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
    let rows = store.take_outbox(100_000, LEASE_MS).await.expect("lists");
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

/// A relay that took messages and is slow: nobody else takes them meanwhile, then somebody does, and what it reports late
/// deletes nothing newer.
async fn a_slow_relay_deletes_only_what_it_sent(store: &dyn Store, clock: &dyn Clock) {
    let job = submitted(store, "relays").await;
    let taken = store.take_outbox(10, LEASE_MS).await.expect("takes");
    let slow: Vec<i64> = taken.iter().map(|row| row.id).collect();
    assert!(drain(store).await.is_empty(), "somebody else took it");
    clock.skip(LEASE_MS + 1).await;
    assert_eq!(drain(store).await.len(), 1, "its relay seems to be dead");
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
    let bound = "plugin and inputs";
    for sequence in 0..2 {
        let recorded =
            store.record(&tasks[0], first.lease_epoch, bound, entry(sequence)).await.expect("answers");
        assert_eq!(recorded, Fenced::Accepted);
    }
    clock.skip(LEASE_MS + 1).await;
    let second = claimed(store, &tasks[0], "two").await;
    let stale = store.record(&tasks[0], first.lease_epoch, bound, entry(2)).await.expect("answers");
    assert_eq!(stale, Fenced::Stale);
    let late = store.journal(&tasks[0], first.lease_epoch, "other").await.expect("reads");
    assert!(late.is_empty(), "and nothing was dropped by the stale one");
    let epoch = second.lease_epoch;
    assert_eq!(store.journal(&tasks[0], epoch, bound).await.expect("reads"), [entry(0), entry(1)]);
    store.record(&tasks[0], epoch, bound, entry(0)).await.expect("answers");
    assert_eq!(
        store.journal(&tasks[0], epoch, bound).await.expect("reads"),
        [entry(0)],
        "what followed is gone"
    );
    clock.skip(LEASE_MS + 1).await;
    let third = claimed(store, &tasks[0], "three").await;
    let fresh = store.journal(&tasks[0], third.lease_epoch, "changed").await.expect("reads");
    assert!(fresh.is_empty(), "a changed plugin or input starts afresh");
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
    let message =
        store.take_outbox(10, 0).await.expect("takes").pop().expect("the next attempt is scheduled");
    assert!(message.delay_ms > 29_000 && message.delay_ms <= 30_000, "{}", message.delay_ms);
    clock.skip(1).await;
    drain(store).await;
    clock.skip(30_001).await;
    let held = claimed(store, &tasks[0], "w").await;
    assert_eq!((held.attempt, held.error), (2, Some(error)));
    let last = ErrorInfo::new("MEMORY", RetryClass::Resource, "too big");
    let held = store.task(&held.task_id).await.expect("reads").expect("is there");
    let deferred = Outcome::Deferred { reason: "no memory is free".into(), delay_ms: 5000 };
    assert_eq!(finish(store, &held, deferred).await, Fenced::Accepted);
    assert!(matches!(store.claim(&tasks[0], request("w")).await, Ok(Claim::NotDue(ms)) if ms > 0));
    drain(store).await;
    clock.skip(5001).await;
    let held = claimed(store, &tasks[0], "w").await;
    assert_eq!(held.attempt, 2, "a deferred attempt does not count");
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
    let sweep = || async { store.sweep(QUIET_MS, JOBS, "app", &BTreeMap::new()).await.expect("sweeps") };
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

    clock.skip(QUIET_MS + 1).await;
    let ahead = BTreeMap::from([("tasks".to_owned(), 1000)]);
    let swept = store.sweep(QUIET_MS, JOBS, "app", &ahead).await.expect("sweeps");
    assert_eq!(swept.tasks, 0, "its message is in the queue, behind others");

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
    assert_eq!(
        store.sweep(LEASE_MS, JOBS, "app", &BTreeMap::new()).await.expect("sweeps").cancelled,
        1,
        "the lost one"
    );
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

/// One task is cancelled, the others go on; the stage counts it as failed, at once or when its worker sees it.
async fn a_cancelled_task_counts_as_failed(store: &dyn Store, clock: &dyn Clock) {
    let tasks = planned(store, "cancel one", 3).await;
    assert!(store.cancel_task(&tasks[0], JOBS, "app").await.expect("cancels"));
    assert!(!store.cancel_task(&tasks[0], JOBS, "app").await.expect("is over"));
    let running = claimed(store, &tasks[1], "w").await;
    assert!(store.cancel_task(&tasks[1], JOBS, "app").await.expect("cancels"));
    let renewed = store.renew(&tasks[1], running.lease_epoch, LEASE_MS, None).await.expect("answers");
    assert_eq!(renewed, Renewal::Cancelling);
    assert_eq!(finish(store, &running, Outcome::Cancelled).await, Fenced::Accepted);
    let lost = claimed(store, &tasks[2], "dead").await;
    assert!(store.cancel_task(&tasks[2], JOBS, "app").await.expect("cancels"));
    clock.skip(LEASE_MS + 1).await;
    assert!(matches!(store.claim(&tasks[2], request("w")).await, Ok(Claim::Over)));
    assert_eq!(store.sweep(LEASE_MS * 9, JOBS, "app", &BTreeMap::new()).await.expect("sweeps").cancelled, 1);
    assert_eq!(finish(store, &lost, Outcome::Completed(json!({}))).await, Fenced::Stale);
    let stage = store.stages(&lost.job_id).await.expect("lists").remove(0);
    assert_eq!((stage.remaining, stage.failed), (0, 3));
    let task = store.task(&tasks[0]).await.expect("reads").expect("is there");
    assert_eq!(task.error.expect("says why").code, "TASK_CANCELLED");
    assert_eq!(drain(store).await.iter().filter(|body| body.contains("stage_complete")).count(), 1);
}

/// A final state is never left: a retry is a new run that begins where the old one failed.
async fn a_retry_carries_over_what_succeeded(store: &dyn Store) {
    let tasks = planned(store, "retry one", 3).await;
    for (n, id) in tasks.iter().enumerate() {
        let held = claimed(store, id, "w").await;
        let failed = Outcome::Failed(ErrorInfo::permanent("X", "no"));
        finish(store, &held, if n == 0 { Outcome::Completed(json!({"n": n})) } else { failed }).await;
    }
    drain(store).await;
    let old = store.task(&tasks[0]).await.expect("reads").expect("is there").job_id;
    let again = |task: Option<TaskId>| Rerun { job: old.clone(), task };
    let request_again = || new_job("retry one", true);
    let early = store.rerun(request_again(), again(None)).await.expect("answers");
    assert_eq!(early, None, "the job is not over");
    assert!(store.end_job(&old, 1, JobState::Failed, None, None).await.expect("ends"));
    assert_eq!(store.rerun(request_again(), again(Some(tasks[0].clone()))).await.expect("answers"), None);
    let new = store.rerun(request_again(), again(Some(tasks[2].clone()))).await.expect("answers");
    let new = new.expect("makes a run").job_id;
    let job = store.job(&new).await.expect("reads").expect("is there");
    assert_eq!((job.state, job.stage, job.previous_run), (JobState::Processing, 1, Some(old.clone())));
    let stage = store.stages(&new).await.expect("lists").remove(0);
    assert_eq!((stage.total, stage.remaining, stage.failed), (3, 1, 1));
    let copies = store.tasks(&new, 10).await.expect("lists");
    let states: Vec<TaskState> = copies.iter().map(|task| task.state).collect();
    assert_eq!(states, [TaskState::Completed, TaskState::Failed, TaskState::Pending]);
    assert_eq!(copies[0].result, Some(json!({"n": 0})));
    assert_eq!(copies[2].error, None);
    let bodies = drain(store).await;
    assert!(bodies.len() == 1 && bodies[0].contains(copies[2].task_id.as_str()), "{bodies:?}");
    let held = claimed(store, &copies[2].task_id, "w").await;
    assert_eq!(held.attempt, 1);
    finish(store, &held, Outcome::Completed(json!({"n": 2}))).await;
    assert_eq!(drain(store).await.len(), 1, "the stage is over");
    let results = store.stage_results(&new, 1, 0, 10).await.expect("reads");
    assert_eq!(results[2].output.as_deref(), Some(r#"{"n":2}"#));
}

async fn one_leads_and_workers_are_seen(store: &dyn Store, clock: &dyn Clock) {
    assert!(store.lead("x", "one", LEASE_MS).await.expect("answers"));
    assert!(!store.lead("x", "two", LEASE_MS).await.expect("answers"));
    assert!(store.lead("x", "one", LEASE_MS).await.expect("answers"), "the leader keeps it");
    clock.skip(LEASE_MS + 1).await;
    assert!(store.lead("x", "two", LEASE_MS).await.expect("answers"), "a dead leader loses it");
    let beat = |worker, busy| Beat { worker, app_name: "app", mode: "standalone", slots: 2, busy };
    store.beat(beat("two", 0)).await.expect("writes");
    store.beat(beat("two", 1)).await.expect("writes");
    let workers = store.workers().await.expect("lists");
    assert_eq!((workers.len(), workers[0].busy, workers[0].slots), (1, 1, 2));
    store.leave("two").await.expect("leaves");
    assert!(store.workers().await.expect("lists").is_empty());
    assert!(store.lead("x", "three", LEASE_MS).await.expect("answers"), "who leaves does not lead");
}

/// Page by page, each job and task comes once, in the order of the whole list.
async fn pages_are_complete_and_in_order(store: &dyn Store) {
    let whole = |jobs: Vec<Job>| jobs.into_iter().map(|job| job.job_id).collect::<Vec<_>>();
    let all = whole(store.jobs("", 10_000).await.expect("lists"));
    let mut paged: Vec<JobId> = Vec::new();
    loop {
        let page = JobsPage { state: None, after: paged.last(), limit: 3 };
        let next = whole(store.jobs_page(page).await.expect("lists"));
        if next.is_empty() {
            break;
        }
        paged.extend(next);
    }
    assert_eq!(paged, all);
    let failed = JobsPage { state: Some(JobState::Failed), after: None, limit: 10_000 };
    let failed = store.jobs_page(failed).await.expect("lists");
    assert!(!failed.is_empty() && failed.iter().all(|job| job.state == JobState::Failed));

    let tasks = planned(store, "pages", 5).await;
    let held = claimed(store, &tasks[1], "w").await;
    let page = |state, after, limit| TasksPage { job: &held.job_id, state, after, limit };
    let ids = |found: Vec<Task>| found.into_iter().map(|task| task.task_id).collect::<Vec<_>>();
    assert_eq!(ids(store.tasks_page(page(None, None, 2)).await.expect("lists")), tasks[..2]);
    assert_eq!(ids(store.tasks_page(page(None, Some(&tasks[1]), 9)).await.expect("lists")), tasks[2..]);
    let running = page(Some(TaskState::Processing), None, 9);
    assert_eq!(ids(store.tasks_page(running).await.expect("lists")), tasks[1..2]);
}

/// R11: 10 000 tasks in one stage, and results of 5 MB.
async fn a_large_stage_and_large_results_work(store: &dyn Store) {
    const TASKS: u32 = 10_000;
    let tasks = planned(store, "large", TASKS).await;
    assert_eq!(tasks.len(), TASKS as usize);
    let held = claimed(store, &tasks[TASKS as usize - 1], "w").await;
    let text = "x".repeat(5 << 20);
    assert_eq!(finish(store, &held, Outcome::Completed(json!(text))).await, Fenced::Accepted);
    let last = store.stage_results(&held.job_id, 1, TASKS - 1, 10).await.expect("reads");
    assert_eq!(last[0].unit, format!("unit-{}", TASKS - 1));
    assert_eq!(last[0].output.as_ref().map(String::len), Some(text.len() + 2));
    let stage = store.stages(&held.job_id).await.expect("lists").remove(0);
    assert_eq!((stage.total, stage.remaining), (TASKS, TASKS - 1));
}
