//! Whether the receive loops of a process turn (R24, R25): each promises by when it will say something again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The receive loops of a process.
#[derive(Debug, Default)]
pub struct Pulse {
    loops: Mutex<Loops>,
}

#[derive(Debug, Default)]
struct Loops {
    joined: u64,
    beating: BTreeMap<u64, Beating>,
}

#[derive(Debug)]
struct Beating {
    queue: String,
    due: Instant,
    failing: bool,
}

/// A receive loop as seen now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// The queue it serves.
    pub queue: String,
    /// It did not say anything for longer than it promised: it hangs, or it crashed.
    pub late: bool,
    /// Its last receive failed.
    pub failing: bool,
}

impl Pulse {
    /// All loops that did not end in order.
    #[must_use]
    pub fn loops(&self) -> Vec<Loop> {
        let now = Instant::now();
        let seen = |beating: &Beating| Loop {
            queue: beating.queue.clone(),
            late: beating.due < now,
            failing: beating.failing,
        };
        self.lock().beating.values().map(seen).collect()
    }

    /// A loop begins, and will say something within `promise`.
    pub(crate) fn join(self: &Arc<Self>, queue: &str, promise: Duration) -> Heart {
        let mut loops = self.lock();
        loops.joined += 1;
        let number = loops.joined;
        let beating = Beating { queue: queue.to_owned(), due: Instant::now() + promise, failing: false };
        loops.beating.insert(number, beating);
        Heart { pulse: Arc::clone(self), number }
    }

    fn lock(&self) -> MutexGuard<'_, Loops> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One loop's side. Dropped without [`Self::leave`], as by a panic, it becomes late.
pub(crate) struct Heart {
    pulse: Arc<Pulse>,
    number: u64,
}

impl Heart {
    /// The loop turns, and will say something again within `promise`.
    pub(crate) fn beat(&self, promise: Duration) {
        if let Some(beating) = self.pulse.lock().beating.get_mut(&self.number) {
            beating.due = Instant::now() + promise;
        }
    }

    /// The queue answered, or it did not.
    pub(crate) fn received(&self, answered: bool) {
        if let Some(beating) = self.pulse.lock().beating.get_mut(&self.number) {
            beating.failing = !answered;
        }
    }

    /// The loop ends in order.
    pub(crate) fn leave(self) {
        self.pulse.lock().beating.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Duration = Duration::from_secs(30);

    fn late(pulse: &Pulse) -> Vec<bool> {
        pulse.loops().iter().map(|one| one.late).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_is_late() {
        let pulse = Arc::new(Pulse::default());
        let (hangs, turns) = (pulse.join("raster", PROMISE), pulse.join("vector", PROMISE));
        tokio::time::advance(PROMISE).await;
        turns.beat(PROMISE);
        assert_eq!(late(&pulse), [false, false]);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(late(&pulse), [true, false]);
        hangs.beat(PROMISE);
        assert_eq!(late(&pulse), [false, false], "it turns again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_is_late_and_one_that_ends_is_gone() {
        let pulse = Arc::new(Pulse::default());
        let (crashes, ends) = (pulse.join("raster", PROMISE), pulse.join("vector", PROMISE));
        let crashed = tokio::spawn(async move {
            let _heart = crashes;
            panic!("on purpose");
        });
        assert!(crashed.await.is_err());
        ends.leave();
        tokio::time::advance(PROMISE * 2).await;
        assert_eq!(late(&pulse), [true]);
    }
}
