//! The simulated machines: a clock, faults, and the state that all processes share.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use geoworker_machine::{JobId, TaskId};
use geoworker_store::records::{Event, Job, JournalEntry, Stage, Task, Worker};
use tokio::time::Instant;

use crate::dice::Dice;
use crate::mutation::Mutation;

/// Number of a process; a restarted one gets a new number.
pub(crate) type Process = u64;

/// The process that people use: it suffers no faults.
pub(crate) const PEOPLE: Process = 0;

/// How often things go wrong, in thousandths of the calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// The statement fails and changes nothing.
    pub(crate) refused: u64,
    /// The statement is committed and its answer is lost.
    pub(crate) answer_lost: u64,
    /// The process dies before the statement, or after it.
    pub(crate) crash: u64,
    /// The process stands still for longer than a lease, before the statement or after it.
    pub(crate) freeze: u64,
    /// A message is lost.
    pub(crate) dropped: u64,
    /// A message is delivered twice.
    pub(crate) doubled: u64,
    /// A message comes late.
    pub(crate) late: u64,
}

/// A message of a simulated queue.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) sequence: i64,
    pub(crate) queue: String,
    pub(crate) body: String,
    pub(crate) visible_at: i64,
    pub(crate) token: Option<String>,
    pub(crate) deliveries: u32,
    pub(crate) dead: bool,
}

/// A row of the outbox.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) id: i64,
    pub(crate) queue: String,
    pub(crate) body: String,
    pub(crate) task: Option<TaskId>,
    pub(crate) not_before: i64,
    pub(crate) held_until: i64,
}

/// A journal of one task: what it is bound to, and its entries.
pub(crate) type Journal = Vec<(String, JournalEntry)>;

/// Everything that is shared.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) jobs: BTreeMap<String, Job>,
    pub(crate) keys: BTreeMap<String, Vec<JobId>>,
    pub(crate) stages: BTreeMap<(String, u32), Stage>,
    pub(crate) tasks: BTreeMap<String, Task>,
    pub(crate) hints: BTreeMap<String, i64>,
    pub(crate) journals: BTreeMap<String, Journal>,
    pub(crate) outbox: Vec<Letter>,
    pub(crate) events: Vec<(JobId, Event)>,
    pub(crate) leases: BTreeMap<String, (String, i64)>,
    pub(crate) workers: BTreeMap<String, Worker>,
    /// Until when each task is held, whatever the rows say.
    pub(crate) held: BTreeMap<String, i64>,
    pub(crate) messages: Vec<Message>,
    pub(crate) counter: i64,
    pub(crate) dice: Dice,
    pub(crate) dead: HashSet<Process>,
    pub(crate) frozen: BTreeMap<Process, Instant>,
    pub(crate) trace: Vec<String>,
    pub(crate) violations: Vec<String>,
}

/// The world of one seed.
#[derive(Debug)]
pub(crate) struct World {
    tables: Mutex<Tables>,
    started: Instant,
    /// How far the database's clock is from everybody else's, in milliseconds.
    skew_ms: i64,
    pub(crate) faults: Faults,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) lease: Duration,
    /// Where the zone keeps its fences.
    pub(crate) fences: PathBuf,
    keep_trace: bool,
    /// Faults end at this time, so that everything can come to its end.
    calm_at: Instant,
}

/// The database's clock begins here, so that skewed times stay positive.
const EPOCH_MS: i64 = 1_000_000_000;

impl World {
    pub(crate) fn new(
        seed: u64,
        mutation: Option<Mutation>,
        lease: Duration,
        fences: PathBuf,
        keep_trace: bool,
    ) -> Arc<Self> {
        let mut dice = Dice::new(seed);
        let skew_ms = i64::try_from(dice.between(0, 120_000)).unwrap_or(0) - 60_000;
        let wild = dice.between(0, 30);
        let faults = Faults {
            refused: wild,
            answer_lost: wild / 2,
            crash: dice.between(0, 12),
            freeze: dice.between(0, 8),
            dropped: dice.between(0, 80),
            doubled: dice.between(0, 80),
            late: dice.between(0, 80),
        };
        let calm_at = Instant::now() + Duration::from_secs(dice.between(60, 900));
        let tables = Tables {
            jobs: BTreeMap::new(),
            keys: BTreeMap::new(),
            stages: BTreeMap::new(),
            tasks: BTreeMap::new(),
            hints: BTreeMap::new(),
            journals: BTreeMap::new(),
            outbox: Vec::new(),
            events: Vec::new(),
            leases: BTreeMap::new(),
            workers: BTreeMap::new(),
            held: BTreeMap::new(),
            messages: Vec::new(),
            counter: 0,
            dice,
            dead: HashSet::new(),
            frozen: BTreeMap::new(),
            trace: Vec::new(),
            violations: Vec::new(),
        };
        let (tables, started) = (Mutex::new(tables), Instant::now());
        Arc::new(Self { tables, started, skew_ms, faults, mutation, lease, fences, keep_trace, calm_at })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn broken(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// The database's clock, in milliseconds.
    pub(crate) fn now(&self) -> i64 {
        let elapsed = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        EPOCH_MS + self.skew_ms + elapsed
    }

    pub(crate) fn trace(&self, process: Process, what: impl FnOnce() -> String) {
        if self.keep_trace {
            let line =
                format!("{:>9.3} s  process {process}: {}", self.started.elapsed().as_secs_f64(), what());
            self.lock().trace.push(line);
        }
    }

    pub(crate) fn violation(&self, what: String) {
        self.lock().violations.push(what);
    }

    pub(crate) fn kill(&self, process: Process) {
        self.lock().dead.insert(process);
    }

    pub(crate) fn is_dead(&self, process: Process) -> bool {
        self.lock().dead.contains(&process)
    }

    /// Whether faults have ended.
    pub(crate) fn is_calm(&self) -> bool {
        Instant::now() >= self.calm_at
    }

    fn chance(&self, per_mille: u64) -> bool {
        !self.is_calm() && self.lock().dice.chance(per_mille)
    }

    /// Whether something that goes wrong in `per_mille` of 1000 cases goes wrong for a process now. People are spared.
    fn strikes(&self, process: Process, per_mille: u64) -> bool {
        process != PEOPLE && self.chance(per_mille)
    }

    pub(crate) fn drop_message(&self) -> bool {
        self.chance(self.faults.dropped)
    }

    pub(crate) fn double_message(&self) -> bool {
        self.chance(self.faults.doubled)
    }

    /// Milliseconds by which a message is late.
    pub(crate) fn lateness(&self) -> i64 {
        if !self.chance(self.faults.late) {
            return 0;
        }
        i64::try_from(self.lock().dice.between(1, 90_000)).unwrap_or(0)
    }

    /// One statement of a process: it takes time, and may fail, be lost, kill or freeze the process, before or after it
    /// was carried out. A dead process never gets an answer.
    pub(crate) async fn statement<T>(
        &self,
        process: Process,
        name: &str,
        apply: impl FnOnce(&World) -> T,
    ) -> Option<T> {
        self.pass(process).await;
        if self.strikes(process, self.faults.crash) {
            self.trace(process, || format!("dies before {name}"));
            self.kill(process);
        }
        self.maybe_freeze(process, name).await;
        self.pass(process).await;
        if self.strikes(process, self.faults.refused) {
            self.trace(process, || format!("{name} fails"));
            return None;
        }
        let answer = apply(self);
        if self.strikes(process, self.faults.crash) {
            self.trace(process, || format!("dies after {name}"));
            self.kill(process);
        }
        self.maybe_freeze(process, name).await;
        self.pass(process).await;
        if self.strikes(process, self.faults.answer_lost) {
            self.trace(process, || format!("{name} is carried out, and its answer is lost"));
            return None;
        }
        Some(answer)
    }

    async fn maybe_freeze(&self, process: Process, name: &str) {
        if !self.strikes(process, self.faults.freeze) {
            return;
        }
        let longest = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX) * 3;
        let pause = Duration::from_millis(self.lock().dice.between(1000, longest));
        self.trace(process, || format!("stands still for {pause:?} at {name}"));
        let until = Instant::now() + pause;
        self.lock().frozen.insert(process, until);
    }

    /// Lets time pass, for as long as the process stands still; for ever where it is dead.
    async fn pass(&self, process: Process) {
        let latency = Duration::from_micros(self.lock().dice.between(0, 20_000));
        tokio::time::sleep(latency).await;
        loop {
            if self.is_dead(process) {
                std::future::pending::<()>().await;
            }
            let until = self.lock().frozen.get(&process).copied();
            match until {
                Some(until) if until > Instant::now() => tokio::time::sleep_until(until).await,
                _ => return,
            }
        }
    }
}
