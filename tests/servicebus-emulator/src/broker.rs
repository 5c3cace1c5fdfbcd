//! The queues by name, their clock, and who waits for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use uuid::Uuid;

use crate::address::Address;
use crate::faults::{Action, Fault, Faults, Point};
use crate::message::{Content, Payload, scheduled_for, time_to_live};
use crate::queue::{Counts, Delivery, LockLost, Message, Millis, Part, Queue, Sequence, Settlement, millis};
use crate::settings::{QueueSettings, Settings};

/// How late a lock may expire, or a scheduled message appear, where nobody asks.
const TICK: Duration = Duration::from_millis(20);

/// Faults at once that a slow connection may still have to see.
const BROADCAST_ROOM: usize = 64;

/// Everything connections share.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) settings: Settings,
    pub(crate) faults: Faults,
    /// What strikes all connections at once.
    pub(crate) strikes: broadcast::Sender<Action>,
    clock: Clock,
    queues: Mutex<HashMap<String, Entry>>,
    connections: AtomicU64,
    busy_until: AtomicI64,
    out_until: AtomicI64,
}

/// There is no such queue, and none is made on first use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the messaging entity {0:?} could not be found")]
pub struct UnknownQueue(pub(crate) String);

/// A connection that waits for messages.
#[derive(Debug, Clone)]
pub(crate) struct Waiter {
    id: u64,
    pub(crate) wake: Arc<Notify>,
}

#[derive(Debug)]
struct Entry {
    queue: Queue<Payload>,
    waiters: BTreeMap<u64, Arc<Notify>>,
    dead_waiters: BTreeMap<u64, Arc<Notify>>,
}

/// Time of day that never goes back.
#[derive(Debug)]
struct Clock {
    start: Instant,
    unix: Millis,
}

impl Broker {
    pub(crate) fn new(settings: Settings) -> Self {
        let mut queues = HashMap::new();
        for QueueSettings { name, rules } in &settings.queues {
            queues.insert(name.clone(), Entry::new(Queue::new(*rules)));
        }
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis);
        Self {
            faults: Faults::new(settings.seed),
            strikes: broadcast::channel(BROADCAST_ROOM).0,
            clock: Clock { start: Instant::now(), unix },
            queues: Mutex::new(queues),
            connections: AtomicU64::new(0),
            busy_until: AtomicI64::new(0),
            out_until: AtomicI64::new(0),
            settings,
        }
    }

    /// Milliseconds since 1970, by a clock that never goes back.
    pub(crate) fn now(&self) -> Millis {
        self.clock.unix + millis(self.clock.start.elapsed())
    }

    /// Expires locks and releases scheduled messages for ever.
    pub(crate) async fn keep_time(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let now = self.now();
            for entry in self.lock_queues().values_mut() {
                entry.queue.advance(now);
                entry.wake();
            }
        }
    }

    /// A place among those who wait.
    pub(crate) fn waiter(&self) -> Waiter {
        let id = self.connections.fetch_add(1, Ordering::Relaxed);
        Waiter { id, wake: Arc::new(Notify::new()) }
    }

    /// Makes the queue if that is allowed.
    pub(crate) fn open(&self, name: &str) -> Result<(), UnknownQueue> {
        let mut queues = self.lock_queues();
        // A subscription is not a queue with a long name.
        let makes = !self.settings.strict && !name.is_empty() && !name.contains("/subscriptions/");
        if makes && !queues.contains_key(name) {
            queues.insert(name.to_owned(), Entry::new(Queue::new(self.settings.defaults)));
        }
        queues.contains_key(name).then_some(()).ok_or_else(|| UnknownQueue(name.to_owned()))
    }

    /// Makes a queue; one of that name is emptied and takes the new rules.
    pub(crate) fn create(&self, queue: QueueSettings) {
        let fresh = || Queue::new(queue.rules);
        let mut queues = self.lock_queues();
        queues
            .entry(queue.name)
            .and_modify(|entry| entry.queue = fresh())
            .or_insert_with(|| Entry::new(fresh()));
    }

    /// Names of all queues, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.lock_queues().keys().cloned().collect();
        names.sort();
        names
    }

    pub(crate) fn counts(&self, name: &str) -> Result<Counts, UnknownQueue> {
        self.with(name, Queue::counts)
    }

    pub(crate) fn purge(&self, name: &str) -> Result<(), UnknownQueue> {
        self.with(name, |queue, _| queue.purge())
    }

    pub(crate) fn send(&self, name: &str, content: Content) -> Result<Sequence, UnknownQueue> {
        let (at, life) = (scheduled_for(&content), time_to_live(&content));
        self.with(name, |queue, now| queue.send(now, Arc::new(content), at, life))
    }

    pub(crate) fn cancel(&self, name: &str, sequence: Sequence) -> Result<bool, UnknownQueue> {
        self.with(name, |queue, now| queue.cancel(now, sequence))
    }

    /// Whether a receive would find a message.
    pub(crate) fn is_ready(&self, address: &Address) -> bool {
        self.with(&address.queue, |queue, _| queue.is_ready(address.part)).unwrap_or(false)
    }

    /// Locks the next message; where there is none, wakes `waiter` when one comes.
    pub(crate) fn receive(&self, address: &Address, waiter: &Waiter) -> Option<Delivery<Payload>> {
        let token = Uuid::new_v4();
        self.take_or_wait(address, waiter, |queue, now| queue.lock_next(now, address.part, token))
    }

    /// Removes the next message; where there is none, wakes `waiter` when one comes.
    pub(crate) fn receive_and_delete(&self, address: &Address, waiter: &Waiter) -> Option<Message<Payload>> {
        self.take_or_wait(address, waiter, |queue, now| queue.take_next(now, address.part))
    }

    pub(crate) fn receive_deferred(
        &self,
        address: &Address,
        sequence: Sequence,
    ) -> Result<Option<Delivery<Payload>>, UnknownQueue> {
        let token = Uuid::new_v4();
        self.with(&address.queue, |queue, now| queue.lock_deferred(now, address.part, sequence, token))
    }

    pub(crate) fn renew(&self, address: &Address, token: Uuid) -> Result<Millis, LockLost> {
        self.with(&address.queue, |queue, now| queue.renew(now, address.part, token)).unwrap_or(Err(LockLost))
    }

    pub(crate) fn settle(
        &self,
        address: &Address,
        token: Uuid,
        settlement: Settlement,
    ) -> Result<(), LockLost> {
        let settle = |queue: &mut Queue<_>, now| queue.settle(now, address.part, token, settlement);
        self.with(&address.queue, settle).unwrap_or(Err(LockLost))
    }

    /// Loses a lock, if it is not lost yet.
    pub(crate) fn lose_lock(&self, address: &Address, token: Uuid) {
        let _already_lost = self.with(&address.queue, |queue, now| queue.lose_lock(now, address.part, token));
    }

    pub(crate) fn peek(
        &self,
        address: &Address,
        from: Sequence,
        limit: usize,
    ) -> Result<Vec<(Message<Payload>, crate::queue::Visibility)>, UnknownQueue> {
        self.with(&address.queue, |queue, now| queue.peek(now, address.part, from, limit))
    }

    /// Puts a fault in force, or strikes at once.
    pub(crate) fn fault(&self, fault: Fault) {
        match fault.point {
            Point::Now => self.strike_all(fault.action),
            Point::Before(_) | Point::After(_) => self.faults.add(fault),
        }
    }

    /// Strikes every connection.
    pub(crate) fn strike_all(&self, action: Action) {
        // Without a connection there is nobody to strike.
        let _connections = self.strikes.send(action);
    }

    /// Answers everything with `server-busy` for a time; receivers get nothing.
    pub(crate) fn throttle(&self, time: Duration) {
        self.busy_until.store(self.now() + millis(time), Ordering::Relaxed);
    }

    pub(crate) fn is_throttled(&self) -> bool {
        self.now() < self.busy_until.load(Ordering::Relaxed)
    }

    /// Drops all connections and takes no new ones for a time.
    pub(crate) fn outage(&self, time: Duration) {
        self.out_until.store(self.now() + millis(time), Ordering::Relaxed);
        self.strike_all(Action::Drop);
    }

    pub(crate) fn is_out(&self) -> bool {
        self.now() < self.out_until.load(Ordering::Relaxed)
    }

    /// What goes wrong at this point this time.
    pub(crate) fn strike(&self, point: Point) -> Option<Action> {
        if matches!(point, Point::Before(_)) && self.is_throttled() {
            return Some(Action::Busy);
        }
        self.faults.strike(point)
    }

    fn take_or_wait<T>(
        &self,
        address: &Address,
        waiter: &Waiter,
        take: impl FnOnce(&mut Queue<Payload>, Millis) -> Option<T>,
    ) -> Option<T> {
        let now = self.now();
        let mut queues = self.lock_queues();
        let entry = queues.get_mut(&address.queue)?;
        let taken = take(&mut entry.queue, now);
        if taken.is_none() {
            let waiters = match address.part {
                Part::Main => &mut entry.waiters,
                Part::DeadLetter => &mut entry.dead_waiters,
            };
            waiters.insert(waiter.id, Arc::clone(&waiter.wake));
        }
        entry.wake();
        taken
    }

    fn with<R>(
        &self,
        name: &str,
        work: impl FnOnce(&mut Queue<Payload>, Millis) -> R,
    ) -> Result<R, UnknownQueue> {
        let now = self.now();
        let mut queues = self.lock_queues();
        let entry = queues.get_mut(name).ok_or_else(|| UnknownQueue(name.to_owned()))?;
        let result = work(&mut entry.queue, now);
        entry.wake();
        Ok(result)
    }

    fn lock_queues(&self) -> std::sync::MutexGuard<'_, HashMap<String, Entry>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(queue: Queue<Payload>) -> Self {
        Self { queue, waiters: BTreeMap::new(), dead_waiters: BTreeMap::new() }
    }

    /// Wakes all who wait for what is ready now. Waking one could wake a connection that has no credit left.
    fn wake(&mut self) {
        for (part, waiters) in [(Part::Main, &mut self.waiters), (Part::DeadLetter, &mut self.dead_waiters)] {
            if !waiters.is_empty() && self.queue.is_ready(part) {
                std::mem::take(waiters).into_values().for_each(|wake| wake.notify_one());
            }
        }
    }
}
