//! One queue with its dead-letter sub-queue as a pure state machine: time and lock tokens are passed in, nothing waits.
//!
//! Every message has one sequence number for life, one state, and at most one timer, so each operation costs a few
//! look-ups in ordered maps however many messages there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use uuid::Uuid;

mod types;

pub use types::*;

/// A queue and its dead-letter sub-queue.
#[derive(Debug)]
pub struct Queue<P> {
    rules: Rules,
    last_sequence: Sequence,
    messages: BTreeMap<Sequence, Stored<P>>,
    ready: BTreeSet<Sequence>,
    ready_dead: BTreeSet<Sequence>,
    locks: HashMap<Uuid, Sequence>,
    timers: BTreeSet<(Millis, Sequence)>,
}

#[derive(Debug)]
struct Stored<P> {
    message: Message<P>,
    time_to_live: Option<Duration>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Ready,
    Locked { token: Uuid, until: Millis, deferred: bool },
    Deferred,
    Scheduled { at: Millis },
}

impl<P: Clone> Queue<P> {
    /// An empty queue.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            last_sequence: 0,
            messages: BTreeMap::new(),
            ready: BTreeSet::new(),
            ready_dead: BTreeSet::new(),
            locks: HashMap::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Stores a message, for now or for `at`. It lives for the shorter of `time_to_live` and the queue's own.
    pub fn send(
        &mut self,
        now: Millis,
        payload: P,
        at: Option<Millis>,
        time_to_live: Option<Duration>,
    ) -> Sequence {
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let message =
            Message { sequence, enqueued: now, deliveries: 0, expires: None, dead_letter: None, payload };
        let time_to_live = [time_to_live, self.rules.time_to_live].into_iter().flatten().min();
        let stored = Stored { message, time_to_live, state: State::Ready };
        match at {
            Some(at) if at > now => self.place(Stored { state: State::Scheduled { at }, ..stored }),
            _ => self.activate(now, stored),
        }
        sequence
    }

    /// Locks the oldest ready message under `token`.
    pub fn lock_next(&mut self, now: Millis, part: Part, token: Uuid) -> Option<Delivery<P>> {
        self.advance(now);
        let sequence = *self.ready_in(part).first()?;
        self.lock(now, sequence, token, Visibility::Active)
    }

    /// Removes and returns the oldest ready message (receive and delete).
    pub fn take_next(&mut self, now: Millis, part: Part) -> Option<Message<P>> {
        self.advance(now);
        let sequence = *self.ready_in(part).first()?;
        self.lift(sequence).map(|stored| stored.message)
    }

    /// Locks a deferred message; `None` where there is none of that number.
    pub fn lock_deferred(
        &mut self,
        now: Millis,
        part: Part,
        sequence: Sequence,
        token: Uuid,
    ) -> Option<Delivery<P>> {
        self.advance(now);
        let stored = self.messages.get(&sequence)?;
        (stored.part() == part && matches!(stored.state, State::Deferred)).then_some(())?;
        self.lock(now, sequence, token, Visibility::Deferred)
    }

    /// Lets the lock last for the queue's lock duration from now; returns its new end.
    ///
    /// # Errors
    /// [`LockLost`].
    pub fn renew(&mut self, now: Millis, part: Part, token: Uuid) -> Result<Millis, LockLost> {
        let mut stored = self.unlock(now, part, token)?;
        let renewed = now + millis(self.rules.lock);
        if let State::Locked { until, .. } = &mut stored.state {
            *until = renewed;
        }
        self.place(stored);
        Ok(renewed)
    }

    /// Ends a delivery.
    ///
    /// # Errors
    /// [`LockLost`]; nothing has changed then.
    pub fn settle(
        &mut self,
        now: Millis,
        part: Part,
        token: Uuid,
        settlement: Settlement,
    ) -> Result<(), LockLost> {
        let mut stored = self.unlock(now, part, token)?;
        match settlement {
            Settlement::Complete => {}
            Settlement::Abandon => self.give_back(stored, 1),
            Settlement::Release => self.give_back(stored, 0),
            Settlement::Defer => {
                stored.message.deliveries += 1;
                self.place(Stored { state: State::Deferred, ..stored });
            }
            Settlement::DeadLetter(why) => self.bury(stored, why),
        }
        // A message that outlived its time under the lock must not be seen again.
        self.advance(now);
        Ok(())
    }

    /// Ends a lock early, as the service does now and then: the message is available again, one delivery older.
    ///
    /// # Errors
    /// [`LockLost`] where it was lost already.
    pub fn lose_lock(&mut self, now: Millis, part: Part, token: Uuid) -> Result<(), LockLost> {
        self.settle(now, part, token, Settlement::Abandon)
    }

    /// Deletes a scheduled message; `false` where there is none of that number.
    pub fn cancel(&mut self, now: Millis, sequence: Sequence) -> bool {
        self.advance(now);
        let scheduled = |stored: &Stored<P>| matches!(stored.state, State::Scheduled { .. });
        self.messages.get(&sequence).is_some_and(scheduled) && self.lift(sequence).is_some()
    }

    /// Up to `limit` messages from `from` on, in every state, without locking them.
    pub fn peek(
        &mut self,
        now: Millis,
        part: Part,
        from: Sequence,
        limit: usize,
    ) -> Vec<(Message<P>, Visibility)> {
        self.advance(now);
        let of_part = self.messages.range(from..).filter(|(_, stored)| stored.part() == part);
        of_part.take(limit).map(|(_, stored)| (stored.message.clone(), stored.visibility())).collect()
    }

    /// Whether a message waits for a receiver.
    #[must_use]
    pub fn is_ready(&self, part: Part) -> bool {
        !self.ready_in(part).is_empty()
    }

    /// Applies everything that is due: expired locks, scheduled messages, times to live.
    pub fn advance(&mut self, now: Millis) {
        while let Some(&(due, sequence)) = self.timers.first()
            && due <= now
            && let Some(stored) = self.lift(sequence)
        {
            match stored.state {
                State::Locked { .. } => self.give_back(stored, 1),
                State::Scheduled { at } => self.activate(at, stored),
                State::Ready | State::Deferred if self.rules.dead_letter_expired => {
                    let description =
                        Some("The message expired and was dead lettered because its TTL expired.".to_owned());
                    self.bury(
                        stored,
                        DeadLetter { reason: Some(TIME_TO_LIVE_EXPIRED.to_owned()), description },
                    );
                }
                State::Ready | State::Deferred => {}
            }
        }
    }

    /// Counts by state. Looks at every message.
    pub fn counts(&mut self, now: Millis) -> Counts {
        self.advance(now);
        let mut counts = Counts::default();
        for stored in self.messages.values() {
            match (stored.part(), stored.state) {
                (Part::DeadLetter, _) => counts.dead += 1,
                (Part::Main, State::Ready) => counts.ready += 1,
                (Part::Main, State::Locked { .. }) => counts.locked += 1,
                (Part::Main, State::Deferred) => counts.deferred += 1,
                (Part::Main, State::Scheduled { .. }) => counts.scheduled += 1,
            }
        }
        counts
    }

    /// Deletes every message. Sequence numbers go on.
    pub fn purge(&mut self) {
        *self = Self { last_sequence: self.last_sequence, ..Self::new(self.rules) };
    }

    fn lock(
        &mut self,
        now: Millis,
        sequence: Sequence,
        token: Uuid,
        visibility: Visibility,
    ) -> Option<Delivery<P>> {
        let stored = self.lift(sequence)?;
        let until = now + millis(self.rules.lock);
        let message = stored.message.clone();
        let deferred = visibility == Visibility::Deferred;
        self.place(Stored { state: State::Locked { token, until, deferred }, ..stored });
        Some(Delivery { token, locked_until: until, visibility, message })
    }

    /// Lifts the message locked under `token`.
    fn unlock(&mut self, now: Millis, part: Part, token: Uuid) -> Result<Stored<P>, LockLost> {
        self.advance(now);
        let sequence = *self.locks.get(&token).ok_or(LockLost)?;
        let of_part = self.messages.get(&sequence).is_some_and(|stored| stored.part() == part);
        if of_part { self.lift(sequence).ok_or(LockLost) } else { Err(LockLost) }
    }

    fn activate(&mut self, now: Millis, mut stored: Stored<P>) {
        stored.message.enqueued = now;
        stored.message.expires = stored.time_to_live.map(|life| now.saturating_add(millis(life)));
        self.place(Stored { state: State::Ready, ..stored });
    }

    fn give_back(&mut self, mut stored: Stored<P>, deliveries: u32) {
        stored.message.deliveries += deliveries;
        let limit = self.rules.max_deliveries;
        if stored.part() == Part::Main && stored.message.deliveries >= limit {
            let description = Some(format!("Message could not be consumed after {limit} delivery attempts."));
            let reason = Some(MAX_DELIVERIES_EXCEEDED.to_owned());
            return self.bury(stored, DeadLetter { reason, description });
        }
        let state = match stored.state {
            State::Locked { deferred: true, .. } => State::Deferred,
            _ => State::Ready,
        };
        self.place(Stored { state, ..stored });
    }

    fn bury(&mut self, mut stored: Stored<P>, why: DeadLetter) {
        stored.message.dead_letter = Some(why);
        self.place(Stored { state: State::Ready, ..stored });
    }

    /// Stores a message and enters it where its state says.
    fn place(&mut self, stored: Stored<P>) {
        let sequence = stored.message.sequence;
        match stored.state {
            State::Ready if stored.part() == Part::DeadLetter => drop(self.ready_dead.insert(sequence)),
            State::Ready => drop(self.ready.insert(sequence)),
            State::Locked { token, .. } => drop(self.locks.insert(token, sequence)),
            State::Deferred | State::Scheduled { .. } => {}
        }
        if let Some(due) = stored.timer() {
            self.timers.insert((due, sequence));
        }
        self.messages.insert(sequence, stored);
    }

    /// The reverse of [`Self::place`].
    fn lift(&mut self, sequence: Sequence) -> Option<Stored<P>> {
        let stored = self.messages.remove(&sequence)?;
        match stored.state {
            State::Ready if stored.part() == Part::DeadLetter => drop(self.ready_dead.remove(&sequence)),
            State::Ready => drop(self.ready.remove(&sequence)),
            State::Locked { token, .. } => drop(self.locks.remove(&token)),
            State::Deferred | State::Scheduled { .. } => {}
        }
        if let Some(due) = stored.timer() {
            self.timers.remove(&(due, sequence));
        }
        Some(stored)
    }

    fn ready_in(&self, part: Part) -> &BTreeSet<Sequence> {
        match part {
            Part::Main => &self.ready,
            Part::DeadLetter => &self.ready_dead,
        }
    }
}

impl<P> Stored<P> {
    fn part(&self) -> Part {
        if self.message.dead_letter.is_some() { Part::DeadLetter } else { Part::Main }
    }

    fn visibility(&self) -> Visibility {
        match self.state {
            State::Ready | State::Locked { deferred: false, .. } => Visibility::Active,
            State::Deferred | State::Locked { deferred: true, .. } => Visibility::Deferred,
            State::Scheduled { .. } => Visibility::Scheduled,
        }
    }

    fn timer(&self) -> Option<Millis> {
        match self.state {
            State::Locked { until, .. } => Some(until),
            State::Scheduled { at } => Some(at),
            State::Ready | State::Deferred if self.part() == Part::Main => self.message.expires,
            State::Ready | State::Deferred => None,
        }
    }
}

#[cfg(test)]
mod tests;
