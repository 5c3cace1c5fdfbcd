//! Admission of native operations: by the memory and disk that they will need, first come first served.
//!
//! Slots bound how many tasks run; they know nothing of how large one is. Here an operation that has read its
//! source's header waits until what it needs is there beside what the others need.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use geoworker_machine::{ErrorInfo, RetryClass, codes};
use geoworker_raster::estimate::Estimate;
use tokio::sync::Notify;

use crate::watchdog::{Space, Usage};

/// Longest wait for a permit; then the task makes room for others in its slot.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// How often the disk is looked at while somebody waits: others free it without telling.
const LOOK: Duration = Duration::from_secs(1);

/// What all native operations of a process share.
#[derive(Debug)]
pub struct Admission {
    memory_bytes: u64,
    space: fn(&Path) -> std::io::Result<Space>,
    longest_wait: Duration,
    /// Held by the operation that is next. Tokio's mutex is fair: it is handed on in order of arrival.
    next: tokio::sync::Mutex<()>,
    running: Mutex<Running>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Running {
    number: u64,
    permits: HashMap<u64, Reservation>,
}

#[derive(Debug)]
struct Reservation {
    memory: u64,
    disk: u64,
    device: Option<u64>,
    usage: Usage,
}

impl Reservation {
    /// Disk that was promised and is not written yet. What is written is missing from the free space already.
    fn outstanding(&self) -> u64 {
        self.disk.saturating_sub(self.usage.disk())
    }
}

/// What an operation asks for.
#[derive(Debug, Clone)]
pub(crate) struct Demand {
    /// Its estimate.
    pub(crate) estimate: Estimate,
    /// Folder on the disk that it fills; none where it writes nothing.
    pub(crate) folder: Option<PathBuf>,
    /// What it uses, for as long as it holds the permit.
    pub(crate) usage: Usage,
}

/// Why there is no permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It needs more than there is, even alone.
    TooLarge(ErrorInfo),
    /// Others did not make room in time. For people.
    Waited(String),
}

/// The right to run. Everything is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    number: u64,
    /// Disk that the operation may fill, in bytes: what is free, less what is promised to others. None where it
    /// writes nothing.
    pub(crate) disk_budget: Option<u64>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.running().permits.remove(&self.number);
        self.admission.released.notify_waiters();
    }
}

impl Admission {
    /// With a budget of memory in bytes. The disk's budget is what is free on it.
    #[must_use]
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            space: Space::of,
            longest_wait: LONGEST_WAIT,
            next: tokio::sync::Mutex::const_new(()),
            running: Mutex::default(),
            released: Notify::new(),
        }
    }

    /// Waits for a permit, first come first served. `waiting` is told what for. Dropping the future gives the place
    /// up.
    ///
    /// # Errors
    /// Where it is too large for this process, or had to wait too long.
    pub(crate) async fn admit(
        self: &Arc<Self>,
        demand: Demand,
        waiting: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Permit, Refused> {
        let deadline = tokio::time::Instant::now() + self.longest_wait;
        let mut told = String::new();
        // One future for the whole wait: it keeps the place in the queue.
        let mut turn = pin!(self.next.lock());
        let _turn = loop {
            // Before the look, so that no release in between is missed.
            let released = self.released.notified();
            tokio::select! {
                biased;
                held = &mut turn => break held,
                () = std::future::ready(()) => {}
            }
            let reason = match self.weigh(&demand) {
                Verdict::TooLarge(error) => return Err(Refused::TooLarge(error)),
                Verdict::Fits => {
                    "waiting for an operation that came before and needs more than is free".into()
                }
                Verdict::Wait(reason) => reason,
            };
            tell(waiting, &mut told, reason);
            tokio::select! {
                held = &mut turn => break held,
                () = released => {}
                () = tokio::time::sleep(LOOK) => {}
                () = tokio::time::sleep_until(deadline) => return Err(Refused::Waited(told)),
            }
        };
        loop {
            let released = self.released.notified();
            match self.weigh(&demand) {
                Verdict::Fits => return Ok(self.reserve(&demand)),
                Verdict::TooLarge(error) => return Err(Refused::TooLarge(error)),
                Verdict::Wait(reason) => tell(waiting, &mut told, reason),
            }
            tokio::select! {
                () = released => {}
                () = tokio::time::sleep(LOOK) => {}
                () = tokio::time::sleep_until(deadline) => return Err(Refused::Waited(told)),
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        // The figures are consistent after every statement, whoever panicked.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reserve(self: &Arc<Self>, demand: &Demand) -> Permit {
        let space = demand.folder.as_deref().and_then(|folder| (self.space)(folder).ok());
        let mut running = self.running();
        let disk_budget =
            space.map(|space| space.usable().saturating_sub(running.promised(space.device)).max(1));
        running.number += 1;
        let number = running.number;
        let reservation = Reservation {
            memory: demand.estimate.memory_bytes,
            disk: demand.estimate.disk_bytes,
            device: space.map(|space| space.device),
            usage: demand.usage.clone(),
        };
        running.permits.insert(number, reservation);
        Permit { admission: Arc::clone(self), number, disk_budget }
    }

    fn weigh(&self, demand: &Demand) -> Verdict {
        match self.weigh_memory(demand.estimate.memory_bytes) {
            Verdict::Fits => self.weigh_disk(demand),
            other => other,
        }
    }

    fn weigh_memory(&self, needed: u64) -> Verdict {
        let total = self.memory_bytes;
        if needed > total {
            let message = format!(
                "the operation needs about {} MiB of memory and all operations of this worker may have {} MiB together",
                mib(needed),
                mib(total)
            );
            return Verdict::TooLarge(
                ErrorInfo::new(codes::MEMORY, RetryClass::Resource, message)
                    .with_hint("Raise GEOWORKER_MEMORY_MB, or submit a smaller raster."),
            );
        }
        let running = self.running();
        let used: u64 = running.permits.values().map(|permit| permit.memory).sum();
        if used.saturating_add(needed) <= total {
            return Verdict::Fits;
        }
        Verdict::Wait(format!(
            "waiting for {} MiB of memory; {} of {} MiB are in use by {}",
            mib(needed),
            mib(used),
            mib(total),
            operations(running.permits.len())
        ))
    }

    fn weigh_disk(&self, demand: &Demand) -> Verdict {
        let needed = demand.estimate.disk_bytes;
        let Some(folder) = demand.folder.as_deref().filter(|_| needed > 0) else { return Verdict::Fits };
        // A disk that cannot be asked is found out by writing to it.
        let Ok(space) = (self.space)(folder) else { return Verdict::Fits };
        let usable = space.usable();
        let running = self.running();
        let promised = running.promised(space.device);
        // What the others have written is given back at most.
        let written: u64 = running.on(space.device).map(|permit| permit.usage.disk()).sum();
        let alone = usable.saturating_add(written);
        if needed > alone {
            let message = format!(
                "the operation needs about {} MiB of disk for its output and temporary files and {} MiB are free, of \
                 which {} MiB stay free",
                mib(needed),
                mib(space.free),
                mib(space.reserve)
            );
            return Verdict::TooLarge(ErrorInfo::new(codes::DISK_FULL, RetryClass::Resource, message));
        }
        if needed.saturating_add(promised) <= usable {
            return Verdict::Fits;
        }
        Verdict::Wait(format!(
            "waiting for {} MiB of disk; {} MiB are free, of which {} MiB are promised to {}",
            mib(needed),
            mib(usable),
            mib(promised),
            operations(running.on(space.device).count())
        ))
    }
}

impl Running {
    fn on(&self, device: u64) -> impl Iterator<Item = &Reservation> {
        self.permits.values().filter(move |permit| permit.device == Some(device))
    }

    fn promised(&self, device: u64) -> u64 {
        self.on(device).map(Reservation::outstanding).fold(0, u64::saturating_add)
    }
}

fn tell(waiting: &mut (dyn FnMut(&str) + Send), told: &mut String, reason: String) {
    if *told != reason {
        waiting(&reason);
        *told = reason;
    }
}

enum Verdict {
    Fits,
    Wait(String),
    TooLarge(ErrorInfo),
}

/// Whole MiB, rounded up.
pub(crate) fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn operations(count: usize) -> String {
    if count == 1 { "1 operation".to_owned() } else { format!("{count} operations") }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    const MIB: u64 = 1 << 20;

    fn demand(memory: u64, disk: u64) -> Demand {
        Demand {
            estimate: Estimate { memory_bytes: memory * MIB, disk_bytes: disk * MIB },
            folder: Some(PathBuf::from("/")),
            usage: Usage::default(),
        }
    }

    /// 1000 MiB of memory; 1100 MiB of disk are free, of which 100 stay free.
    fn admission() -> Arc<Admission> {
        let space = |_: &Path| Ok(Space { device: 7, free: 1100 * MIB, reserve: 100 * MIB });
        Arc::new(Admission { space, ..Admission::new(1000 * MIB) })
    }

    async fn admit(admission: &Arc<Admission>, demand: Demand) -> Result<Permit, Refused> {
        admission.admit(demand, &mut |_| {}).await
    }

    fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn what_fits_is_admitted_at_once_and_released_on_drop() {
        let admission = admission();
        let first = admit(&admission, demand(600, 0)).await.expect("fits");
        let second = admit(&admission, demand(400, 0)).await.expect("fits beside it");
        let mut third = pin!(admit(&admission, demand(1000, 0)));
        assert!(poll(third.as_mut()).is_pending());
        drop(first);
        assert!(poll(third.as_mut()).is_pending(), "half of it is not enough");
        drop(second);
        assert!(poll(third.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn it_is_first_come_first_served() {
        let admission = admission();
        let running = admit(&admission, demand(600, 0)).await.expect("fits");
        let mut large = pin!(admit(&admission, demand(900, 0)));
        let mut small = pin!(admit(&admission, demand(100, 0)));
        assert!(poll(large.as_mut()).is_pending());
        assert!(poll(small.as_mut()).is_pending(), "a small one does not overtake");
        drop(running);
        assert!(poll(small.as_mut()).is_pending(), "not even when there is room");
        let Poll::Ready(Ok(permit)) = poll(large.as_mut()) else { panic!("it was its turn") };
        assert!(poll(small.as_mut()).is_ready(), "there is room beside it");
        drop(permit);
    }

    #[tokio::test]
    async fn a_place_in_the_queue_survives_releases_and_is_given_up_by_dropping() {
        let admission = admission();
        let most = admit(&admission, demand(800, 0)).await.expect("fits");
        let rest = admit(&admission, demand(200, 0)).await.expect("fits");
        let mut first = Box::pin(admit(&admission, demand(900, 0)));
        let mut second = pin!(admit(&admission, demand(300, 0)));
        let mut third = pin!(admit(&admission, demand(200, 0)));
        for waiter in [&mut second, &mut third] {
            assert!(poll(first.as_mut()).is_pending());
            assert!(poll(waiter.as_mut()).is_pending());
        }
        drop(rest);
        assert!(poll(third.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        // The first one is cancelled: the second, then the third are next.
        drop(first);
        assert!(poll(third.as_mut()).is_pending(), "the second comes before it");
        assert!(poll(second.as_mut()).is_pending());
        drop(most);
        let Poll::Ready(Ok(_permit)) = poll(second.as_mut()) else { panic!("it was its turn") };
        assert!(poll(third.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn what_is_too_large_alone_is_refused_at_once_with_the_figures() {
        let admission = admission();
        let _running = admit(&admission, demand(900, 0)).await.expect("fits");
        for (demand, code, figures) in [
            (demand(1001, 0), codes::MEMORY, ["1001 MiB", "1000 MiB"]),
            (demand(1, 1001), codes::DISK_FULL, ["1001 MiB", "1100 MiB"]),
        ] {
            let mut refused = pin!(admit(&admission, demand));
            let Poll::Ready(Err(Refused::TooLarge(error))) = poll(refused.as_mut()) else {
                panic!("it waits")
            };
            assert_eq!((error.code.as_str(), error.class), (code, RetryClass::Resource));
            assert!(figures.iter().all(|figure| error.message.contains(figure)), "{}", error.message);
        }
    }

    #[tokio::test]
    async fn disk_that_is_promised_is_not_given_twice() {
        let admission = admission();
        let large = demand(1, 700);
        let usage = large.usage.clone();
        let first = admit(&admission, large).await.expect("fits");
        assert_eq!(first.disk_budget, Some(1000 * MIB));
        let mut told = Vec::new();
        let mut note = |reason: &str| told.push(reason.to_owned());
        {
            let mut second = pin!(admission.admit(demand(1, 400), &mut note));
            assert!(poll(second.as_mut()).is_pending());
        }
        assert_eq!(
            told,
            ["waiting for 400 MiB of disk; 1000 MiB are free, of which 700 MiB are promised to 1 operation"]
        );
        // What it has written is missing from the free space already and not counted again.
        usage.note_disk(500 * MIB);
        let second = admit(&admission, demand(1, 400)).await.expect("fits now");
        assert_eq!(second.disk_budget, Some(800 * MIB));
        drop(first);
        assert_eq!(admit(&admission, demand(1, 1)).await.expect("fits").disk_budget, Some(600 * MIB));
    }

    #[tokio::test]
    async fn a_wait_says_what_for_and_ends() {
        let wait = Duration::from_millis(50);
        let admission = Arc::new(Admission { longest_wait: wait, ..Admission::new(1000 * MIB) });
        let _one = admit(&admission, demand(500, 0)).await.expect("fits");
        let _two = admit(&admission, demand(400, 0)).await.expect("fits");
        let mut told = Vec::new();
        let before = std::time::Instant::now();
        let waited = admission.admit(demand(300, 0), &mut |reason| told.push(reason.to_owned())).await;
        assert!(before.elapsed() >= wait);
        assert_eq!(told, ["waiting for 300 MiB of memory; 900 of 1000 MiB are in use by 2 operations"]);
        assert_eq!(waited.expect_err("gives up"), Refused::Waited(told.remove(0)));
        admit(&admission, demand(100, 0)).await.expect("the place was given up");
    }
}
