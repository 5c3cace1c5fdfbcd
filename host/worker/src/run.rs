//! The loops of a process, and their orderly end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use geoworker_blobs::OwnedFolder;
use geoworker_machine::{ErrorInfo, codes};
use geoworker_queue::ReceivedMessage;
use geoworker_store::records::Swept;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attempt::on_task;
use crate::decisions::write;
use crate::messages::{Settlement, on_jobs_message};
use crate::missing::recall;
use crate::platform::Platform;
use crate::pulse::Heart;
use crate::relay::relay;
use crate::settings::millis;
use crate::storage;
use crate::truth::beat;

/// Name of the sweepers' lease.
const SWEEPER: &str = "sweeper";
/// Time for what is left to be sent at the end.
const LAST_RELAY: Duration = Duration::from_secs(5);
/// Wait after an error of store or queue; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What a turn of a loop may take beside its wait for a message, before the loop counts as stuck.
const MARGIN: Duration = Duration::from_secs(60);
/// The same for dealing with a message, beside the longest attempt of a task: planning, writing the outcome.
const DEALING: Duration = Duration::from_secs(600);

/// Two steps of ending: stop taking work, then interrupt what runs. Clones share the tokens.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// No more messages are received; running tasks go on within the grace period.
    pub stop: CancellationToken,
    /// Running tasks are interrupted and given back.
    pub interrupt: CancellationToken,
}

/// Runs the loops of the platform's mode until `shutdown`, then waits for what runs (R17): intake stops, running tasks
/// end or are given back, then the helpers stop, and what they left is sent.
///
/// # Errors
/// Where scratch cannot be used, or an exclusive process cannot take over what the one before held.
pub async fn run(platform: Platform, shutdown: Shutdown) -> Result<(), ErrorInfo> {
    take_over(&platform).await?;
    let mut receivers = JoinSet::new();
    let slots = receivers_of(&platform, &shutdown, &mut receivers);
    let ended = CancellationToken::new();
    let mut helpers = JoinSet::new();
    helpers.spawn(relay(platform.clone(), ended.clone()));
    helpers.spawn(write(platform.clone(), ended.clone()));
    helpers.spawn(recall(platform.clone(), ended.clone()));
    helpers.spawn(beat(platform.clone(), slots, ended.clone()));
    if platform.zones.are_remote() {
        helpers.spawn(storage::watch(platform.clone(), ended.clone()));
    }
    if platform.settings.mode.properties().jobs_queue {
        helpers.spawn(sweep(platform.clone(), ended.clone()));
    }
    shutdown.stop.cancelled().await;
    let grace = tokio::time::timeout(platform.settings.grace, drain(&mut receivers));
    let drained = tokio::select! {
        biased;
        drained = grace => drained.is_ok(),
        () = shutdown.interrupt.cancelled() => false,
    };
    if !drained {
        tracing::warn!("running tasks are interrupted and given back");
        shutdown.interrupt.cancel();
        drain(&mut receivers).await;
    }
    ended.cancel();
    drain(&mut helpers).await;
    // What the last tasks wrote; others, or the next start, send it where this fails.
    match tokio::time::timeout(LAST_RELAY, platform.relay_once()).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(code = error.code, "messages wait in the outbox: {}", error.message),
        Err(_) => tracing::warn!("messages wait in the outbox: the broker does not answer"),
    }
    Ok(())
}

/// Starts a receiver for each slot of the mode's queues; answers how many tasks run at a time.
fn receivers_of(platform: &Platform, shutdown: &Shutdown, receivers: &mut JoinSet<()>) -> u32 {
    let properties = platform.settings.mode.properties();
    let queues = &platform.settings.router.queues;
    let slots = platform.settings.slots;
    if properties.jobs_queue {
        let unlimited = Arc::new(Budget::new(None, shutdown.stop.clone()));
        let jobs = receive(platform.clone(), queues.jobs.clone(), Kind::Jobs, shutdown.clone(), unlimited);
        receivers.spawn(jobs);
    }
    let budget = Arc::new(Budget::new(platform.settings.max_tasks, shutdown.stop.clone()));
    let mut total = 0;
    for (served, name, count) in [
        (properties.raster_queue, &queues.raster, slots.short),
        (properties.vector_queue, &queues.vector, slots.short),
        (properties.long_queue, &queues.long, slots.long),
    ] {
        for _ in 0..if served { count } else { 0 } {
            let budget = Arc::clone(&budget);
            receivers.spawn(receive(platform.clone(), name.clone(), Kind::Tasks, shutdown.clone(), budget));
            total += 1;
        }
    }
    total
}

async fn take_over(platform: &Platform) -> Result<(), ErrorInfo> {
    if platform.settings.exclusive {
        let released = platform.store.release_all().await.map_err(|error| error.info())?;
        if released > 0 {
            tracing::warn!(tasks = released, "tasks of a server that died are taken over");
        }
    }
    sweep_folders(platform).await.map_err(|error| {
        let message = format!("scratch cannot be used: {error}");
        ErrorInfo::permanent(codes::DATA_DIR_UNUSABLE, message)
    })
}

/// Removes what dead workers left on this machine's disks.
async fn sweep_folders(platform: &Platform) -> std::io::Result<()> {
    if !platform.zones.are_remote() {
        platform.zones.sweep().await;
    }
    let removed = OwnedFolder::sweep(&platform.settings.scratch)?;
    if removed > 0 {
        tracing::info!(folders = removed, "scratch of workers that died was removed");
    }
    Ok(())
}

async fn drain(set: &mut JoinSet<()>) {
    while let Some(joined) = set.join_next().await {
        if let Err(error) = joined {
            tracing::error!(%error, "a loop ended unexpectedly");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Jobs,
    Tasks,
}

/// Tasks that a process may still run; none is no limit.
struct Budget {
    tasks: Option<u64>,
    taken: AtomicU64,
    done: AtomicU64,
    stop: CancellationToken,
}

impl Budget {
    fn new(tasks: Option<u64>, stop: CancellationToken) -> Self {
        Self { tasks, taken: AtomicU64::new(0), done: AtomicU64::new(0), stop }
    }

    /// Whether one more task may be run.
    fn take(&self) -> bool {
        self.tasks.is_none_or(|tasks| self.taken.fetch_add(1, Ordering::Relaxed) < tasks)
    }

    /// A task was run. The last one stops the process.
    fn finish(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        if self.tasks == Some(done) {
            self.stop.cancel();
        }
    }
}

/// One slot, until the end or a stop. Its heart tells whether it turns.
async fn receive(platform: Platform, queue: String, kind: Kind, shutdown: Shutdown, budget: Arc<Budget>) {
    let turn = platform.settings.poll + MARGIN;
    let heart = platform.pulse.join(&queue, turn);
    turns(&platform, &queue, kind, &shutdown, &budget, (&heart, turn)).await;
    heart.leave();
}

/// Receives and deals with one message after the other.
async fn turns(
    platform: &Platform,
    queue: &str,
    kind: Kind,
    shutdown: &Shutdown,
    budget: &Budget,
    (heart, turn): (&Heart, Duration),
) {
    let dealing = longest_deal(platform, kind);
    let mut pause = FIRST_PAUSE;
    while !shutdown.stop.is_cancelled() {
        heart.beat(turn);
        if !platform.truth.is_there() || !platform.storage.is_there() {
            tokio::select! {
                biased;
                () = tokio::time::sleep(FIRST_PAUSE) => continue,
                () = shutdown.stop.cancelled() => return,
            }
        }
        let received = tokio::select! {
            biased;
            received = platform.queue.receive(queue, 1, platform.settings.poll) => received,
            () = shutdown.stop.cancelled() => return,
        };
        heart.received(received.is_ok());
        heart.beat(dealing);
        let dealt = match received {
            Ok(messages) if messages.is_empty() && kind == Kind::Tasks && platform.settings.until_idle => {
                shutdown.stop.cancel();
                return;
            }
            Ok(messages) => deal(platform, queue, kind, messages, shutdown, budget).await,
            Err(error) => Err(error.info()),
        };
        match dealt {
            Ok(()) => pause = FIRST_PAUSE,
            Err(error) => {
                // R18: back-off; the message was unlocked and is not burnt.
                tracing::warn!(queue, code = error.code, "waiting {pause:?}: {}", error.message);
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.stop.cancelled() => return,
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// How long dealing with one message takes at most; each attempt has its own time-out within it.
fn longest_deal(platform: &Platform, kind: Kind) -> Duration {
    if kind == Kind::Jobs {
        return DEALING;
    }
    let registry = platform.registry();
    let own = registry.task_types().filter_map(|(_, info)| info.timeout_seconds).max().unwrap_or(0);
    DEALING + platform.settings.task_timeout.max(Duration::from_secs(u64::from(own)))
}

async fn deal(
    platform: &Platform,
    queue: &str,
    kind: Kind,
    messages: Vec<ReceivedMessage>,
    shutdown: &Shutdown,
    budget: &Budget,
) -> Result<(), ErrorInfo> {
    for message in messages {
        if !budget.take() {
            // For another process; this one ends when its last task does.
            platform.settle(queue, &message, Settlement::Abandon).await;
            shutdown.stop.cancelled().await;
            return Ok(());
        }
        let outcome = match kind {
            Kind::Jobs => on_jobs_message(platform, &message).await,
            Kind::Tasks => on_task(platform, &message, &shutdown.interrupt).await,
        };
        let (settlement, result) = match outcome {
            Ok(settlement) => (settlement, Ok(())),
            Err(error) => (Settlement::Abandon, Err(error)),
        };
        platform.settle(queue, &message, settlement).await;
        budget.finish();
        result?;
    }
    Ok(())
}

/// Messages that the queues of tasks hold for whoever waits; those that are locked may belong to the dead. A queue that does
/// not tell is left out.
async fn messages_ahead(platform: &Platform) -> BTreeMap<String, u64> {
    let queues = &platform.settings.router.queues;
    let mut ahead = BTreeMap::new();
    for queue in [&queues.raster, &queues.vector, &queues.long] {
        if let Ok(depth) = platform.queue.depth(queue).await {
            let locked = if depth.active_is_locked { running(platform).await } else { 0 };
            let messages = depth.active.saturating_sub(locked) + depth.scheduled;
            // Of a queue that is too long to be counted nothing is missing that could be told.
            ahead.insert(queue.clone(), if depth.at_least { u64::MAX } else { messages });
        }
    }
    ahead
}

/// Tasks that run, each of which has its message locked.
async fn running(platform: &Platform) -> u64 {
    let workers = platform.store.workers().await.unwrap_or_default();
    workers.iter().map(|worker| u64::from(worker.tasks)).sum()
}

/// The sweeper: drives forward what a lost message, worker or signal left behind. One process at a time leads.
async fn sweep(platform: Platform, ended: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = tokio::time::sleep(platform.settings.sweep) => {}
        }
        // Whatever it waits for must not hold up the end.
        tokio::select! {
            biased;
            () = ended.cancelled() => return,
            () = sweep_once(&platform) => {}
        }
    }
}

async fn sweep_once(platform: &Platform) {
    let settings = &platform.settings;
    let quiet = millis(settings.sweep);
    if let Err(error) = sweep_folders(platform).await {
        tracing::warn!(%error, "scratch cannot be swept");
    }
    match platform.store.lead(SWEEPER, &settings.worker_id, quiet.saturating_mul(3)).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            tracing::warn!(%error, "the sweeper waits");
            return;
        }
    }
    if platform.zones.are_remote() {
        platform.zones.sweep().await;
    }
    let ahead = messages_ahead(platform).await;
    match platform.store.sweep(quiet, platform.jobs_queue(), &settings.app_name, &ahead).await {
        Ok(swept) if swept != Swept::default() => {
            tracing::info!(
                tasks = swept.tasks,
                jobs = swept.jobs,
                cancelled = swept.cancelled,
                "the sweeper drove work forward"
            );
            platform.outbox_written.notify_one();
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the sweeper waits"),
    }
    platform.prune_decisions().await;
}
