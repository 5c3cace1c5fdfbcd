//! The state of each component. Nothing is asked over a network: what the loops saw last is told.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use geoworker_worker::{Loop, Platform};
use serde::Serialize;
use utoipa::ToSchema;

use crate::state::Api;

/// How a component is; the last is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Condition {
    /// It works.
    Ok,
    /// It works in part.
    Degraded,
    /// It does not work.
    Failing,
}

/// A component.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Component {
    /// How it is.
    state: Condition,
    /// Why, where it is not ok.
    detail: Option<String>,
    /// Since when it is so, in milliseconds since 1970 UTC.
    since: i64,
}

/// Components, and the worst of their states.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Health {
    /// The worst state.
    pub(crate) status: Condition,
    /// By name: `process`, `loops`, `queue`, `database`, `storage`, `plugins`.
    #[schema(value_type = BTreeMap<String, Component>)]
    components: BTreeMap<&'static str, Component>,
}

impl Health {
    /// What of `self` has one of these names.
    fn only(mut self, names: &[&str]) -> Self {
        self.components.retain(|name, _| names.contains(name));
        self.status = worst(&self.components);
        self
    }
}

/// Since when each component is as it is.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<BTreeMap<&'static str, (Condition, i64)>>);

impl History {
    fn since(&self, name: &'static str, state: Condition) -> i64 {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |past| past.as_millis());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let entry = known.entry(name).or_insert((state, now));
        if entry.0 != state {
            *entry = (state, now);
        }
        entry.1
    }
}

/// A state and why.
type Seen = (Condition, Option<String>);

const FINE: Seen = (Condition::Ok, None);

fn failing(why: impl Into<String>) -> Seen {
    (Condition::Failing, Some(why.into()))
}

/// Every component. Where none fails, the process can claim and run a task now.
pub(crate) fn all(api: &Api) -> Health {
    let process = match api.attached() {
        _ if api.stop.is_cancelled() => failing("it is stopping"),
        None => failing("it is starting: the database is not there yet"),
        Some(_) => FINE,
    };
    let mut seen = vec![("process", process)];
    if let Some(platform) = api.attached() {
        let loops = platform.pulse.loops();
        seen.push(("loops", turning(&loops)));
        seen.push(("queue", queue(&loops)));
        seen.push(("database", database(platform)));
        seen.push(("storage", storage(platform)));
        seen.push(("plugins", plugins(platform)));
    }
    let component = |(name, (state, detail)): (&'static str, Seen)| {
        (name, Component { state, detail, since: api.history.since(name, state) })
    };
    let components: BTreeMap<_, _> = seen.into_iter().map(component).collect();
    Health { status: worst(&components), components }
}

/// Whether the process lives: its receive loops turn. One that waits for its database lives.
pub(crate) fn live(api: &Api) -> Health {
    all(api).only(&["loops"])
}

fn worst(components: &BTreeMap<&'static str, Component>) -> Condition {
    components.values().map(|component| component.state).max().unwrap_or(Condition::Ok)
}

fn turning(loops: &[Loop]) -> Seen {
    let late: Vec<&str> = loops.iter().filter(|one| one.late).map(|one| one.queue.as_str()).collect();
    if late.is_empty() { FINE } else { failing(format!("stuck or crashed on {}", late.join(", "))) }
}

/// One loop that is answered can claim.
fn queue(loops: &[Loop]) -> Seen {
    let unanswered = loops.iter().filter(|one| one.failing).count();
    match unanswered {
        0 if loops.is_empty() => failing("nothing is received"),
        0 => FINE,
        all if all == loops.len() => failing("it does not answer"),
        some => (Condition::Degraded, Some(format!("it does not answer {some} of {} loops", loops.len()))),
    }
}

fn database(platform: &Platform) -> Seen {
    if platform.database_answers() { FINE } else { failing("it does not answer: no work is taken") }
}

fn storage(platform: &Platform) -> Seen {
    if platform.storage_answers() { FINE } else { failing("it does not answer: no work is taken") }
}

/// Messages of types that are not there wait; without any type there is nothing to run.
fn plugins(platform: &Platform) -> Seen {
    let registry = platform.registry();
    let failed: Vec<String> = registry
        .reports()
        .iter()
        .filter(|report| report.error.is_some())
        .map(|report| match &report.serving {
            Some(_) => format!("{} (the version before serves)", report.file),
            None => report.file.clone(),
        })
        .collect();
    if registry.task_types().next().is_none() {
        return failing("no task type is loaded");
    }
    if failed.is_empty() {
        return FINE;
    }
    (Condition::Degraded, Some(format!("failed to load: {}", failed.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(late: bool, failing: bool) -> Loop {
        Loop { queue: "raster-tasks".into(), late, failing }
    }

    #[test]
    fn a_loop_that_hangs_is_named() {
        assert_eq!(turning(&[one(false, false)]).0, Condition::Ok);
        let (state, why) = turning(&[one(false, false), one(true, false)]);
        assert_eq!(state, Condition::Failing);
        assert!(why.expect("says why").contains("raster-tasks"));
    }

    #[test]
    fn a_queue_is_there_while_it_answers_one_loop() {
        assert_eq!(queue(&[]).0, Condition::Failing);
        assert_eq!(queue(&[one(false, true), one(false, false)]).0, Condition::Degraded);
        assert_eq!(queue(&[one(false, true)]).0, Condition::Failing);
    }

    #[test]
    fn since_changes_with_the_state_alone() {
        let history = History::default();
        let first = history.since("queue", Condition::Ok);
        if let Ok(mut known) = history.0.lock() {
            known.insert("queue", (Condition::Ok, first - 1000));
        }
        assert_eq!(history.since("queue", Condition::Ok), first - 1000);
        assert!(history.since("queue", Condition::Failing) >= first);
    }
}
