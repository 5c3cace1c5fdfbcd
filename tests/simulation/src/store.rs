//! The store in memory, with the semantics of the real one (it passes the same suite), and rules that can be broken.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use geoworker_machine::ids::idempotency_key;
use geoworker_machine::messages::STAGE_COMPLETE;
use geoworker_machine::state::TaskEvent;
use geoworker_machine::{ErrorInfo, JobId, JobState, TaskId, TaskState, codes};
use geoworker_store::records::{
    Beat, Claim, ClaimRequest, Event, Fenced, Job, JobsPage, JournalEntry, NewJob, OutboxRow, Outcome,
    Renewal, Rerun, Stage, StagePlan, Submitted, Swept, Task, TasksPage, UnitResult, Worker,
};
use geoworker_store::{Store, StoreError};
use serde_json::{Value, json};

use crate::mutation::Mutation;
use crate::world::{Letter, Process, Tables, World};

type Result<T> = std::result::Result<T, StoreError>;

/// The store as one process reaches it.
#[derive(Debug, Clone)]
pub(crate) struct SimStore {
    pub(crate) world: Arc<World>,
    pub(crate) process: Process,
}

impl SimStore {
    /// One transaction.
    async fn run<T: Send>(
        &self,
        name: &str,
        apply: impl FnOnce(&World, &mut Tables, i64) -> T + Send,
    ) -> Result<T> {
        let act = |world: &World| {
            let now = world.now();
            let mut tables = world.lock();
            apply(world, &mut tables, now)
        };
        self.world.statement(self.process, name, act).await.ok_or_else(StoreError::no_answer)
    }
}

#[async_trait]
impl Store for SimStore {
    async fn submit(&self, job: NewJob) -> Result<Submitted> {
        self.run("submit", |world, tables, now| {
            let (id, existing) = accept(tables, &job, now);
            if !existing {
                put_job(world, tables, &job.jobs_queue, &id);
                event(tables, &id, None, "job_submitted", now);
            }
            Submitted { job_id: id, existing }
        })
        .await
    }

    async fn rerun(&self, job: NewJob, asked: Rerun) -> Result<Option<Submitted>> {
        self.run("rerun", |world, tables, now| rerun(world, tables, &job, &asked, now)).await
    }

    async fn job(&self, id: &JobId) -> Result<Option<Job>> {
        self.run("job", |_, tables, _| tables.jobs.get(id.as_str()).cloned()).await
    }

    async fn jobs(&self, prefix: &str, limit: u32) -> Result<Vec<Job>> {
        self.run("jobs", |_, tables, _| {
            let found =
                newest_first(tables).into_iter().filter(|job| job.job_id.as_str().starts_with(prefix));
            found.take(limit as usize).cloned().collect()
        })
        .await
    }

    async fn jobs_page(&self, page: JobsPage<'_>) -> Result<Vec<Job>> {
        self.run("jobs_page", |_, tables, _| {
            let jobs = newest_first(tables);
            let from = page.after.and_then(|id| jobs.iter().position(|job| job.job_id == *id));
            let rest = jobs.into_iter().skip(from.map_or(0, |last| last + 1));
            let wanted = rest.filter(|job| page.state.is_none_or(|state| job.state == state));
            wanted.take(page.limit as usize).cloned().collect()
        })
        .await
    }

    async fn stages(&self, id: &JobId) -> Result<Vec<Stage>> {
        self.run("stages", |_, tables, _| stages_of(tables, id)).await
    }

    async fn tasks(&self, id: &JobId, limit: u32) -> Result<Vec<Task>> {
        self.run("tasks", |_, tables, _| {
            let mut tasks = tasks_of(tables, id);
            tasks.truncate(limit as usize);
            tasks
        })
        .await
    }

    async fn tasks_page(&self, page: TasksPage<'_>) -> Result<Vec<Task>> {
        self.run("tasks_page", |_, tables, _| {
            let tasks = tasks_of(tables, page.job);
            let from = page.after.and_then(|id| tasks.iter().position(|task| task.task_id == *id));
            let rest = tasks.into_iter().skip(from.map_or(0, |last| last + 1));
            let wanted = rest.filter(|task| page.state.is_none_or(|state| task.state == state));
            wanted.take(page.limit as usize).collect()
        })
        .await
    }

    async fn task(&self, id: &TaskId) -> Result<Option<Task>> {
        self.run("task", |_, tables, _| tables.tasks.get(id.as_str()).cloned()).await
    }

    async fn tasks_by_prefix(&self, prefix: &str, limit: u32) -> Result<Vec<Task>> {
        self.run("tasks_by_prefix", |_, tables, _| {
            let found = tables.tasks.values().filter(|task| task.task_id.as_str().starts_with(prefix));
            found.take(limit as usize).cloned().collect()
        })
        .await
    }

    async fn events(&self, id: &JobId) -> Result<Vec<Event>> {
        self.run("events", |_, tables, _| {
            tables.events.iter().filter(|(job, _)| job == id).map(|(_, event)| event.clone()).collect()
        })
        .await
    }

    async fn plan_stage(&self, id: &JobId, plan: StagePlan) -> Result<bool> {
        self.run("plan_stage", |world, tables, now| plan_stage(world, tables, id, &plan, now)).await
    }

    async fn end_job(
        &self,
        id: &JobId,
        stage: u32,
        state: JobState,
        result: Option<Value>,
        error: Option<ErrorInfo>,
    ) -> Result<bool> {
        self.run("end_job", |world, tables, now| {
            let left = stages_of(tables, id).iter().any(|row| row.number == stage && row.remaining > 0);
            let Some(job) = tables.jobs.get_mut(id.as_str()) else { return false };
            let allowed = job.state.may_become(state) && state.is_final();
            let allowed = allowed || (world.broken(Mutation::FinalStateIsLeft) && job.state.is_final());
            if !allowed || job.stage != stage || left {
                return false;
            }
            (job.state, job.result, job.error, job.ended_at) = (state, result, error, Some(now));
            event(tables, id, None, "job_ended", now);
            true
        })
        .await
    }

    async fn cancel_job(&self, id: &JobId, jobs_queue: &str, app_name: &str) -> Result<bool> {
        self.run("cancel_job", |world, tables, now| {
            let Some(job) = tables.jobs.get_mut(id.as_str()) else { return false };
            if !job.state.may_become(JobState::Cancelled) {
                return false;
            }
            job.cancelling = true;
            let stage = job.stage;
            if stage == 0 {
                put_job(world, tables, jobs_queue, id);
            } else {
                end_waiting(tables, id, now);
                signal_if_over(world, tables, id, stage, jobs_queue, app_name);
            }
            true
        })
        .await
    }

    async fn cancel_task(&self, id: &TaskId, jobs_queue: &str, app_name: &str) -> Result<bool> {
        self.run("cancel_task", |world, tables, now| {
            let Some(task) = tables.tasks.get_mut(id.as_str()) else { return false };
            if task.state.after(TaskEvent::Cancel).is_none() {
                return false;
            }
            task.cancelling = true;
            task.error = Some(ErrorInfo::permanent(codes::TASK_CANCELLED, "somebody cancelled this task"));
            end_cancelled(world, tables, id, now, jobs_queue, app_name);
            true
        })
        .await
    }

    async fn stage_size(&self, id: &JobId, stage: u32) -> Result<u32> {
        self.run("stage_size", |_, tables, _| {
            tables.stages.get(&(id.to_string(), stage)).map_or(0, |row| row.total)
        })
        .await
    }

    async fn stage_results(
        &self,
        id: &JobId,
        stage: u32,
        offset: u32,
        limit: u32,
    ) -> Result<Vec<UnitResult>> {
        self.run("stage_results", |_, tables, _| {
            let tasks = tasks_of(tables, id).into_iter().filter(|task| task.stage == stage);
            let page = tasks.filter(|task| task.position >= offset).take(limit as usize);
            page.map(|task| UnitResult {
                unit: task.unit,
                state: task.state,
                output: task.result.map(|result| result.to_string()),
                failure: task.error,
            })
            .collect()
        })
        .await
    }

    async fn claim(&self, id: &TaskId, request: ClaimRequest<'_>) -> Result<Claim> {
        let claim = self.run("claim", |world, tables, now| claim(world, tables, id, request, now)).await?;
        if let Claim::Claimed(task) = &claim {
            let (short, attempt, epoch) = (id.short(), task.attempt, task.lease_epoch);
            self.world
                .trace(self.process, || format!("holds task {short}, attempt {attempt}, epoch {epoch}"));
        }
        Ok(claim)
    }

    async fn renew(
        &self,
        id: &TaskId,
        epoch: i64,
        lease_ms: i64,
        progress: Option<(f64, String)>,
    ) -> Result<Renewal> {
        self.run("renew", |_, tables, now| {
            let Some(task) = holder(tables, id, epoch) else { return Renewal::Stale };
            task.lease_until = now + lease_ms;
            let until = task.lease_until;
            if let Some((fraction, message)) = progress {
                (task.progress, task.progress_message) = (fraction, Some(message));
            }
            let (own, job) = (task.cancelling, task.job_id.to_string());
            tables.hints.insert(id.to_string(), now);
            tables.held.insert(id.to_string(), until);
            let cancelling = own || tables.jobs.get(&job).is_some_and(|job| job.cancelling);
            if cancelling { Renewal::Cancelling } else { Renewal::Held }
        })
        .await
    }

    async fn finish(
        &self,
        id: &TaskId,
        epoch: i64,
        outcome: Outcome,
        jobs_queue: &str,
        app_name: &str,
    ) -> Result<Fenced> {
        let fenced = self.run("finish", |world, tables, now| {
            finish(world, tables, id, epoch, outcome, jobs_queue, app_name, now)
        });
        let fenced = fenced.await?;
        self.world.trace(self.process, || format!("ends task {}, epoch {epoch}: {fenced:?}", id.short()));
        Ok(fenced)
    }

    async fn journal(&self, id: &TaskId, epoch: i64, binding: &str) -> Result<Vec<JournalEntry>> {
        self.run("journal", |_, tables, _| {
            if holder(tables, id, epoch).is_some() {
                let journal = tables.journals.entry(id.to_string()).or_default();
                journal.retain(|(bound, _)| bound == binding);
            }
            let journal = tables.journals.get(id.as_str()).cloned().unwrap_or_default();
            journal.into_iter().filter(|(bound, _)| bound == binding).map(|(_, entry)| entry).collect()
        })
        .await
    }

    async fn record(&self, id: &TaskId, epoch: i64, binding: &str, entry: JournalEntry) -> Result<Fenced> {
        self.run("record", |world, tables, _| {
            if world.broken(Mutation::NoFence) {
                // Where there are none, nothing has to be removed.
                let _ = std::fs::remove_dir_all(&world.fences);
            }
            if holder(tables, id, epoch).is_none() {
                return Fenced::Stale;
            }
            let journal = tables.journals.entry(id.to_string()).or_default();
            journal.retain(|(_, other)| other.sequence < entry.sequence);
            journal.push((binding.to_owned(), entry));
            Fenced::Accepted
        })
        .await
    }

    async fn take_outbox(&self, limit: u32, hold_ms: i64) -> Result<Vec<OutboxRow>> {
        self.run("take_outbox", |_, tables, now| {
            let free = tables.outbox.iter_mut().filter(|letter| letter.held_until <= now);
            free.take(limit as usize)
                .map(|letter| {
                    letter.held_until = now + hold_ms;
                    OutboxRow {
                        id: letter.id,
                        queue: letter.queue.clone(),
                        body: letter.body.clone(),
                        delay_ms: (letter.not_before - now).max(0),
                    }
                })
                .collect()
        })
        .await
    }

    async fn outbox_sent(&self, ids: &[i64]) -> Result<()> {
        self.run("outbox_sent", |_, tables, _| {
            let (sent, kept) = tables.outbox.drain(..).partition(|letter| ids.contains(&letter.id));
            tables.outbox = kept;
            let sent: Vec<Letter> = sent;
            for id in sent.iter().filter_map(|letter| letter.task.as_ref()) {
                if let Some(task) = tables.tasks.get_mut(id.as_str())
                    && let Some(state) = task.state.after(TaskEvent::Sent)
                {
                    task.state = state;
                }
            }
        })
        .await
    }

    async fn sweep(
        &self,
        quiet_ms: i64,
        jobs_queue: &str,
        app_name: &str,
        ahead: &BTreeMap<String, u64>,
    ) -> Result<Swept> {
        self.run("sweep", |world, tables, now| {
            sweep(world, tables, now, quiet_ms, jobs_queue, app_name, ahead)
        })
        .await
    }

    async fn release_all(&self) -> Result<u64> {
        Ok(0)
    }

    async fn lead(&self, name: &str, holder: &str, hold_ms: i64) -> Result<bool> {
        self.run("lead", |_, tables, now| {
            let free = tables.leases.get(name).is_none_or(|(other, until)| other == holder || *until <= now);
            if free {
                tables.leases.insert(name.to_owned(), (holder.to_owned(), now + hold_ms));
            }
            free
        })
        .await
    }

    async fn beat(&self, beat: Beat<'_>) -> Result<()> {
        let worker = Worker {
            worker: beat.worker.to_owned(),
            app_name: beat.app_name.to_owned(),
            mode: beat.mode.to_owned(),
            slots: beat.slots,
            busy: beat.busy,
            tasks: 0,
            started_at: 0,
            seen_at: 0,
            silent_ms: 0,
        };
        self.run("beat", |_, tables, _| {
            tables.workers.insert(worker.worker.clone(), worker);
        })
        .await
    }

    async fn leave(&self, worker: &str) -> Result<()> {
        self.run("leave", |_, tables, _| {
            tables.leases.retain(|_, (holder, _)| holder != worker);
            tables.workers.remove(worker);
        })
        .await
    }

    async fn workers(&self) -> Result<Vec<Worker>> {
        self.run("workers", |_, tables, _| tables.workers.values().cloned().collect()).await
    }
}

fn stages_of(tables: &Tables, id: &JobId) -> Vec<Stage> {
    tables.stages.iter().filter(|((job, _), _)| job == id.as_str()).map(|(_, stage)| stage.clone()).collect()
}

fn newest_first(tables: &Tables) -> Vec<&Job> {
    let mut jobs: Vec<&Job> = tables.jobs.values().collect();
    jobs.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.job_id.cmp(&b.job_id)));
    jobs
}

fn tasks_of(tables: &Tables, id: &JobId) -> Vec<Task> {
    let mut tasks: Vec<Task> = tables.tasks.values().filter(|task| task.job_id == *id).cloned().collect();
    tasks.sort_by_key(|task| (task.stage, task.position));
    tasks
}

fn holder<'a>(tables: &'a mut Tables, id: &TaskId, epoch: i64) -> Option<&'a mut Task> {
    let task = tables.tasks.get_mut(id.as_str())?;
    (task.state == TaskState::Processing && task.lease_epoch == epoch).then_some(task)
}

fn event(tables: &mut Tables, job: &JobId, task: Option<&Task>, kind: &str, now: i64) {
    let line = Event {
        at: now,
        task_id: task.map(|task| task.task_id.clone()),
        kind: kind.to_owned(),
        attempt: task.map(|task| task.attempt),
        worker: task.and_then(|task| task.worker.clone()),
        detail: None,
    };
    tables.events.push((job.clone(), line));
}

fn put(world: &World, tables: &mut Tables, queue: &str, body: Value, task: Option<&Task>) {
    if world.broken(Mutation::NoOutbox) && tables.dice.chance(100) {
        return;
    }
    tables.counter += 1;
    let letter = Letter {
        id: tables.counter,
        queue: queue.to_owned(),
        body: body.to_string(),
        task: task.map(|task| task.task_id.clone()),
        not_before: task.map_or(0, |task| task.not_before),
        held_until: 0,
    };
    tables.outbox.push(letter);
}

fn put_job(world: &World, tables: &mut Tables, queue: &str, id: &JobId) {
    let body = json!({"job_id": id, "job_type": "", "stage": 1, "timestamp": "2026-01-01T00:00:00Z"});
    put(world, tables, queue, body, None);
}

fn put_stage_complete(world: &World, tables: &mut Tables, queue: &str, app: &str, id: &JobId, stage: u32) {
    let body = json!({
        "message_type": STAGE_COMPLETE, "job_id": id, "job_type": "", "completed_stage": stage,
        "completed_at": "2026-01-01T00:00:00Z", "completed_by_app": app
    });
    put(world, tables, queue, body, None);
}

fn put_task(world: &World, tables: &mut Tables, task: &Task) {
    let body = json!({
        "task_id": task.task_id, "parent_job_id": task.job_id, "job_type": task.job_type,
        "task_type": task.task_type, "stage": task.stage, "task_index": task.position.to_string(),
        "retry_count": task.attempt, "timestamp": "2026-01-01T00:00:00Z"
    });
    put(world, tables, &task.queue, body, Some(task));
}

/// Writes the row of a new run, or finds the latest one.
fn accept(tables: &mut Tables, new: &NewJob, now: i64) -> (JobId, bool) {
    let runs = tables.keys.entry(idempotency_key(&new.job_type, &new.parameters)).or_default();
    if let (Some(latest), false) = (runs.last(), new.force) {
        return (latest.clone(), true);
    }
    let ordinal = u32::try_from(runs.len()).unwrap_or(u32::MAX) + 1;
    let id = JobId::derive(&new.job_type, &new.parameters, ordinal);
    let previous_run = runs.last().cloned();
    runs.push(id.clone());
    let job = Job {
        job_id: id.clone(),
        job_type: new.job_type.clone(),
        parameters: new.parameters.clone(),
        run_ordinal: ordinal,
        previous_run,
        correlation_id: new.correlation_id.clone(),
        plugin_digest: new.plugin_digest.clone(),
        stages: new.stages.clone(),
        state: JobState::Queued,
        stage: 0,
        cancelling: false,
        result: None,
        error: None,
        created_at: now,
        ended_at: None,
    };
    tables.jobs.insert(id.to_string(), job);
    tables.hints.insert(id.to_string(), now);
    (id, false)
}

fn plan_stage(world: &World, tables: &mut Tables, id: &JobId, plan: &StagePlan, now: i64) -> bool {
    let before = stages_of(tables, id).iter().any(|row| row.number + 1 == plan.number && row.remaining > 0);
    let Some(job) = tables.jobs.get_mut(id.as_str()) else { return false };
    let guard = job.stage + 1 == plan.number || world.broken(Mutation::PlanWithoutCompareAndSet);
    if !guard || !job.state.may_become(JobState::Processing) || job.cancelling || before {
        return false;
    }
    (job.stage, job.state) = (plan.number, JobState::Processing);
    let job_type = job.job_type.clone();
    tables.hints.insert(id.to_string(), now);
    let total = u32::try_from(plan.tasks.len()).unwrap_or(u32::MAX);
    let stage = Stage {
        number: plan.number,
        name: plan.name.clone(),
        total,
        remaining: total,
        failed: 0,
        created_at: now,
        ended_at: (total == 0).then_some(now),
    };
    tables.stages.insert((id.to_string(), plan.number), stage);
    for (position, new) in plan.tasks.iter().enumerate() {
        let task = Task {
            task_id: new.task_id.clone(),
            job_id: id.clone(),
            job_type: job_type.clone(),
            stage: plan.number,
            position: u32::try_from(position).unwrap_or(u32::MAX),
            unit: new.unit.clone(),
            task_type: new.task_type.clone(),
            parameters: new.parameters.clone(),
            queue: new.queue.clone(),
            route_reason: new.route_reason.clone(),
            max_retries: new.max_retries,
            timeout_seconds: new.timeout_seconds,
            state: TaskState::Pending,
            attempt: 0,
            lease_epoch: 0,
            lease_until: 0,
            worker: None,
            not_before: 0,
            plugin_digest: None,
            cancelling: false,
            progress: 0.0,
            progress_message: None,
            result: None,
            error: None,
            created_at: now,
            started_at: None,
            ended_at: None,
        };
        put_task(world, tables, &task);
        tables.hints.insert(task.task_id.to_string(), now);
        tables.tasks.insert(task.task_id.to_string(), task);
    }
    if total == 0 {
        put_stage_complete(world, tables, &plan.jobs_queue, &plan.app_name, id, plan.number);
    }
    event(tables, id, None, &format!("stage_planned {}", plan.number), now);
    true
}

fn claim(world: &World, tables: &mut Tables, id: &TaskId, request: ClaimRequest<'_>, now: i64) -> Claim {
    let Some(task) = tables.tasks.get(id.as_str()) else { return Claim::Unknown };
    let job = tables.jobs.get(task.job_id.as_str());
    let over = job.is_none_or(|job| job.ended_at.is_some() || job.cancelling) || task.cancelling;
    if over || task.state.after(TaskEvent::Claim).is_none() {
        return Claim::Over;
    }
    let held = task.state == TaskState::Processing && task.lease_until > now;
    if held && !world.broken(Mutation::ClaimIgnoresLease) {
        return Claim::Busy(task.lease_until - now);
    }
    if task.not_before > now {
        return Claim::NotDue(task.not_before - now);
    }
    let Some(task) = tables.tasks.get_mut(id.as_str()) else { return Claim::Unknown };
    task.state = TaskState::Processing;
    task.attempt += u32::from(!world.broken(Mutation::AttemptsAreNotCounted) || task.attempt == 0);
    task.lease_epoch += 1;
    task.lease_until = now + request.lease_ms;
    task.worker = Some(request.worker.to_owned());
    task.plugin_digest = Some(request.plugin_digest.to_owned());
    task.started_at = task.started_at.or(Some(now));
    let task = task.clone();
    tables.hints.insert(id.to_string(), now);
    if tables.held.insert(id.to_string(), task.lease_until).is_some_and(|until| until > now) {
        tables
            .violations
            .push(format!("one holder at a time: task {} was claimed while it was held", id.short()));
    }
    event(tables, &task.job_id, Some(&task), "task_claimed", now);
    Claim::Claimed(Box::new(task))
}

#[expect(clippy::too_many_arguments, reason = "the one place where all of these meet")]
fn finish(
    world: &World,
    tables: &mut Tables,
    id: &TaskId,
    epoch: i64,
    outcome: Outcome,
    jobs_queue: &str,
    app_name: &str,
    now: i64,
) -> Fenced {
    let Some(task) = tables.tasks.get_mut(id.as_str()) else { return Fenced::Stale };
    let fenced = task.lease_epoch != epoch && !world.broken(Mutation::NoEpochCheck);
    if fenced || task.state != TaskState::Processing {
        return Fenced::Stale;
    }
    let (what, kind) = match &outcome {
        Outcome::Completed(_) => (TaskEvent::Complete, "task_completed"),
        Outcome::Failed(_) => (TaskEvent::Fail, "task_failed"),
        Outcome::Cancelled => (TaskEvent::Cancel, "task_cancelled"),
        Outcome::Retry { .. } => (TaskEvent::Retry, "task_retry"),
        Outcome::GiveBack(_) => (TaskEvent::GiveBack, "task_given_back"),
        Outcome::Deferred { .. } => (TaskEvent::Defer, "task_deferred"),
    };
    let Some(state) = task.state.after(what) else { return Fenced::Stale };
    let stolen = task.lease_epoch != epoch;
    (task.state, task.lease_until) = (state, 0);
    match outcome {
        Outcome::Completed(result) => task.result = Some(result),
        Outcome::Failed(error) => task.error = Some(error),
        Outcome::Retry { error, delay_ms } => (task.error, task.not_before) = (Some(error), now + delay_ms),
        Outcome::Deferred { delay_ms, .. } => {
            (task.not_before, task.attempt) = (now + delay_ms, task.attempt - 1);
        }
        Outcome::GiveBack(_) => task.attempt -= 1,
        Outcome::Cancelled => {}
    }
    if state.is_final() {
        task.ended_at = Some(now);
    }
    let task = task.clone();
    tables.hints.insert(id.to_string(), now);
    tables.held.remove(id.as_str());
    if stolen {
        tables
            .violations
            .push(format!("only the holder ends an attempt: task {} was ended by another", id.short()));
    }
    event(tables, &task.job_id, Some(&task), kind, now);
    if state == TaskState::PendingRetry {
        put_task(world, tables, &task);
    }
    if state.is_final() {
        tables.journals.remove(id.as_str());
        if state == TaskState::Failed && world.broken(Mutation::EndOutsideTheOnePath) {
            return Fenced::Accepted;
        }
        let failed = state == TaskState::Failed || task.cancelling;
        count_down(tables, &task.job_id, task.stage, 1, u32::from(failed), now);
        signal_if_over(world, tables, &task.job_id, task.stage, jobs_queue, app_name);
    }
    Fenced::Accepted
}

fn count_down(tables: &mut Tables, job: &JobId, stage: u32, ended: u32, failed: u32, now: i64) {
    let Some(row) = tables.stages.get_mut(&(job.to_string(), stage)) else { return };
    if row.remaining < ended {
        let message = format!("more tasks ended in stage {stage} of job {} than it has", job.short());
        tables.violations.push(message);
        return;
    }
    row.remaining -= ended;
    row.failed += failed;
    if row.remaining == 0 {
        row.ended_at = row.ended_at.or(Some(now));
    }
}

fn signal_if_over(world: &World, tables: &mut Tables, job: &JobId, stage: u32, queue: &str, app: &str) {
    if tables.stages.get(&(job.to_string(), stage)).is_some_and(|row| row.remaining == 0) {
        put_stage_complete(world, tables, queue, app, job, stage);
    }
}

/// Ends the tasks of a job that nobody runs; answers how many.
fn end_waiting(tables: &mut Tables, job: &JobId, now: i64) -> u64 {
    let waiting: Vec<Task> = tasks_of(tables, job).into_iter().filter(|task| not_held(task, now)).collect();
    for task in &waiting {
        cancel_row(tables, &task.task_id, now);
        count_down(tables, job, task.stage, 1, 0, now);
    }
    waiting.len() as u64
}

fn not_held(task: &Task, now: i64) -> bool {
    let cancellable = task.state.after(TaskEvent::Cancel).is_some();
    cancellable && (task.state != TaskState::Processing || task.lease_until <= now)
}

fn cancel_row(tables: &mut Tables, id: &TaskId, now: i64) {
    let Some(task) = tables.tasks.get_mut(id.as_str()) else { return };
    (task.state, task.ended_at, task.lease_until) = (TaskState::Cancelled, Some(now), 0);
    task.lease_epoch += 1;
    let task = task.clone();
    tables.journals.remove(id.as_str());
    event(tables, &task.job_id, Some(&task), "task_cancelled", now);
}

fn end_cancelled(world: &World, tables: &mut Tables, id: &TaskId, now: i64, queue: &str, app: &str) -> bool {
    let Some(task) = tables.tasks.get(id.as_str()).filter(|task| not_held(task, now)).cloned() else {
        return false;
    };
    cancel_row(tables, id, now);
    count_down(tables, &task.job_id, task.stage, 1, 1, now);
    signal_if_over(world, tables, &task.job_id, task.stage, queue, app);
    true
}

/// How many messages are missing, by queue, where each waiting task has one.
fn missing_messages(tables: &Tables, open: &[Task], ahead: &BTreeMap<String, u64>) -> BTreeMap<String, i64> {
    let mut missing = BTreeMap::new();
    for task in open.iter().filter(|task| task.state != TaskState::Processing) {
        *missing.entry(task.queue.clone()).or_default() += 1;
    }
    for (queue, missing) in &mut missing {
        let held = ahead.get(queue).copied().unwrap_or(0);
        let unsent = tables.outbox.iter().filter(|letter| letter.queue == *queue).count() as u64;
        *missing -= i64::try_from(held + unsent).unwrap_or(i64::MAX);
    }
    missing
}

fn sweep(
    world: &World,
    tables: &mut Tables,
    now: i64,
    quiet: i64,
    queue: &str,
    app: &str,
    ahead: &BTreeMap<String, u64>,
) -> Swept {
    let mut swept = Swept::default();
    if world.broken(Mutation::NoOutbox) {
        return swept;
    }
    let rescue = world.broken(Mutation::SweeperRescuesTheHealthy);
    let mut tasks: Vec<Task> =
        tables.tasks.values().filter(|task| task.ended_at.is_none()).cloned().collect();
    let hinted = |tables: &Tables, task: &Task| tables.hints.get(task.task_id.as_str()).copied().unwrap_or(0);
    tasks.sort_by_key(|task| hinted(tables, task));
    let mut missing = missing_messages(tables, &tasks, ahead);
    for task in tasks {
        if rescue
            && task.state == TaskState::Processing
            && task.started_at.is_some_and(|at| at + 20_000 < now)
        {
            requeue(tables, &task.task_id);
        }
        let due = task.not_before == 0 || task.not_before + quiet <= now;
        let wanted = if task.state == TaskState::Processing {
            task.lease_until <= now
        } else {
            missing.get_mut(&task.queue).is_some_and(|missing| {
                *missing -= 1;
                *missing >= 0
            })
        };
        if hinted(tables, &task) + quiet <= now && due && wanted {
            tables.hints.insert(task.task_id.to_string(), now);
            put_task(world, tables, &task);
            swept.tasks += 1;
        }
    }
    let jobs: Vec<Job> = tables.jobs.values().filter(|job| job.ended_at.is_none()).cloned().collect();
    for job in jobs {
        if job.cancelling && job.stage > 0 {
            let ended = end_waiting(tables, &job.job_id, now);
            if ended > 0 {
                signal_if_over(world, tables, &job.job_id, job.stage, queue, app);
            }
            swept.cancelled += ended;
        }
        let stage = tables.stages.get(&(job.job_id.to_string(), job.stage));
        let over =
            stage.is_some_and(|row| row.remaining == 0 && row.ended_at.is_some_and(|at| at + quiet <= now));
        let quiet_since = tables.hints.get(job.job_id.as_str()).copied().unwrap_or(0);
        if quiet_since + quiet <= now && (job.state == JobState::Queued || over) {
            tables.hints.insert(job.job_id.to_string(), now);
            if job.stage == 0 {
                put_job(world, tables, queue, &job.job_id);
            } else {
                put_stage_complete(world, tables, queue, app, &job.job_id, job.stage);
            }
            swept.jobs += 1;
        }
    }
    let lost: Vec<TaskId> =
        tables.tasks.values().filter(|task| task.cancelling).map(|task| task.task_id.clone()).collect();
    for id in lost {
        swept.cancelled += u64::from(end_cancelled(world, tables, &id, now, queue, app));
    }
    swept
}

fn requeue(tables: &mut Tables, id: &TaskId) {
    if let Some(task) = tables.tasks.get_mut(id.as_str()) {
        (task.state, task.lease_until) = (TaskState::Queued, 0);
    }
}

fn rerun(world: &World, tables: &mut Tables, new: &NewJob, asked: &Rerun, now: i64) -> Option<Submitted> {
    let old =
        tables.jobs.get(asked.job.as_str()).filter(|job| job.state.is_final() && job.stage > 0)?.clone();
    let all = tasks_of(tables, &old.job_id);
    let failed = |task: &Task| matches!(task.state, TaskState::Failed | TaskState::Cancelled);
    let again = |task: &Task| {
        task.stage == old.stage && failed(task) && asked.task.as_ref().is_none_or(|one| *one == task.task_id)
    };
    let count = u32::try_from(all.iter().filter(|task| again(task)).count()).unwrap_or(u32::MAX);
    if count == 0 {
        return None;
    }
    let (id, _) = accept(tables, new, now);
    if let Some(job) = tables.jobs.get_mut(id.as_str()) {
        (job.stage, job.state) = (old.stage, JobState::Processing);
    }
    for stage in stages_of(tables, &old.job_id) {
        let runs = stage.number == old.stage;
        let mut copy = Stage { remaining: 0, created_at: now, ended_at: Some(now), ..stage };
        if runs {
            (copy.remaining, copy.failed, copy.ended_at) = (count, copy.failed.saturating_sub(count), None);
        }
        tables.stages.insert((id.to_string(), copy.number), copy);
    }
    for task in all {
        let repeated = again(&task);
        let mut copy = Task {
            task_id: TaskId::derive(&id, task.stage, &task.unit),
            job_id: id.clone(),
            lease_epoch: 0,
            lease_until: 0,
            worker: None,
            cancelling: false,
            ..task
        };
        if repeated {
            (copy.state, copy.attempt, copy.error) = (TaskState::Pending, 0, None);
            (copy.started_at, copy.ended_at, copy.not_before) = (None, None, 0);
            put_task(world, tables, &copy);
        }
        tables.hints.insert(copy.task_id.to_string(), now);
        tables.tasks.insert(copy.task_id.to_string(), copy);
    }
    event(tables, &id, None, "job_submitted", now);
    Some(Submitted { job_id: id, existing: false })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use geoworker_store::conformance::{self, Clock};

    use super::*;
    use crate::world::PEOPLE;

    struct SimClock;

    #[async_trait]
    impl Clock for SimClock {
        async fn skip(&self, ms: i64) {
            tokio::time::advance(Duration::from_millis(u64::try_from(ms).expect("is positive"))).await;
        }
    }

    fn store(world: &Arc<World>) -> SimStore {
        SimStore { world: Arc::clone(world), process: PEOPLE }
    }

    /// The double is as good as the real ones.
    #[tokio::test(start_paused = true)]
    async fn the_simulated_store_conforms() {
        let world = World::new(1, None, Duration::from_secs(60), "unused".into(), false);
        conformance::run(&store(&world), &SimClock).await;
        conformance::two_openers(&store(&world), &store(&world)).await;
    }
}
