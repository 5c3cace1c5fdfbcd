//! States and the one table of transitions. The SQL guards, the documentation and the tests are made from it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? } final { $($last:ident),+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// All states.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in rows and messages.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Reads a name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }

            /// A final state is never left.
            #[must_use]
            pub fn is_final(self) -> bool {
                matches!(self, $(Self::$last)|+)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

states! {
    /// State of a job.
    JobState {
        /// Accepted; its first stage is not planned yet.
        Queued = "queued",
        /// A stage is running.
        Processing = "processing",
        /// Over; every task succeeded.
        Completed = "completed",
        /// Over; tasks failed in stages that allow it.
        CompletedWithErrors = "completed_with_errors",
        /// Over; it could not be done.
        Failed = "failed",
        /// Over; somebody cancelled it.
        Cancelled = "cancelled",
    } final { Completed, CompletedWithErrors, Failed, Cancelled }
}

states! {
    /// State of a task.
    TaskState {
        /// Created; its message is not known to be sent.
        Pending = "pending",
        /// Its message is on the queue.
        Queued = "queued",
        /// A worker holds its lease.
        Processing = "processing",
        /// An attempt failed; the next one waits for its time.
        PendingRetry = "pending_retry",
        /// Over, with a result.
        Completed = "completed",
        /// Over, with an error.
        Failed = "failed",
        /// Over, not needed.
        Skipped = "skipped",
        /// Over; somebody cancelled it or its job.
        Cancelled = "cancelled",
    } final { Completed, Failed, Skipped, Cancelled }
}

/// What happens to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskEvent {
    /// The relay sent its message.
    Sent,
    /// A worker claims it (a due retry and an expired lease are claims too).
    Claim,
    /// The attempt succeeded.
    Complete,
    /// The attempt failed for good.
    Fail,
    /// The attempt failed; another follows.
    Retry,
    /// The worker gives it back without having finished.
    GiveBack,
    /// It cannot be done now: it waits for its time, and the attempt does not count.
    Defer,
    /// It is not needed.
    Skip,
    /// Somebody cancels it or its job.
    Cancel,
}

impl TaskEvent {
    /// All events.
    pub const ALL: &'static [Self] = &[
        Self::Sent,
        Self::Claim,
        Self::Complete,
        Self::Fail,
        Self::Retry,
        Self::GiveBack,
        Self::Defer,
        Self::Skip,
        Self::Cancel,
    ];
}

/// Every transition of a task there is: (from, event, to).
pub const TASK_TRANSITIONS: &[(TaskState, TaskEvent, TaskState)] = {
    use {TaskEvent as E, TaskState as S};
    &[
        (S::Pending, E::Sent, S::Queued),
        (S::Pending, E::Claim, S::Processing),
        (S::Queued, E::Claim, S::Processing),
        (S::PendingRetry, E::Claim, S::Processing),
        (S::Processing, E::Claim, S::Processing),
        (S::Processing, E::Complete, S::Completed),
        (S::Processing, E::Fail, S::Failed),
        (S::Processing, E::Retry, S::PendingRetry),
        (S::Processing, E::GiveBack, S::Queued),
        (S::Processing, E::Defer, S::PendingRetry),
        (S::Pending, E::Skip, S::Skipped),
        (S::Queued, E::Skip, S::Skipped),
        (S::Processing, E::Skip, S::Skipped),
        (S::Pending, E::Cancel, S::Cancelled),
        (S::Queued, E::Cancel, S::Cancelled),
        (S::Processing, E::Cancel, S::Cancelled),
        (S::PendingRetry, E::Cancel, S::Cancelled),
    ]
};

/// Every transition of a job there is: (from, to).
pub const JOB_TRANSITIONS: &[(JobState, JobState)] = {
    use JobState as S;
    &[
        (S::Queued, S::Processing),
        (S::Queued, S::Failed),
        (S::Queued, S::Cancelled),
        (S::Processing, S::Processing),
        (S::Processing, S::Completed),
        (S::Processing, S::CompletedWithErrors),
        (S::Processing, S::Failed),
        (S::Processing, S::Cancelled),
    ]
};

impl TaskState {
    /// The state after `event`, or none where the event does not apply.
    #[must_use]
    pub fn after(self, event: TaskEvent) -> Option<Self> {
        TASK_TRANSITIONS.iter().find(|(from, on, _)| *from == self && *on == event).map(|(_, _, to)| *to)
    }
}

impl JobState {
    /// Whether a job may go from this state to `to`.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        JOB_TRANSITIONS.contains(&(self, to))
    }
}

/// The states from which `event` is possible, for SQL guards: `'queued','processing'`.
#[must_use]
pub fn sql_sources(event: TaskEvent) -> String {
    let names: Vec<String> = TASK_TRANSITIONS
        .iter()
        .filter(|(_, on, _)| *on == event)
        .map(|(from, _, _)| format!("'{from}'"))
        .collect();
    names.join(",")
}

/// The states from which a job may become `to`, for SQL guards.
#[must_use]
pub fn sql_job_sources(to: JobState) -> String {
    let names: Vec<String> = JOB_TRANSITIONS
        .iter()
        .filter(|(_, target)| *target == to)
        .map(|(from, _)| format!("'{from}'"))
        .collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R8, R10: every pair of state and event, so that a changed table shows here.
    #[test]
    fn the_task_table_is_exhaustive() {
        let mut allowed = Vec::new();
        for state in TaskState::ALL {
            for event in TaskEvent::ALL {
                if let Some(to) = state.after(*event) {
                    assert!(!state.is_final(), "{state} is final but {event:?} leaves it");
                    allowed.push(format!("{state} --{event:?}--> {to}"));
                }
            }
        }
        assert_eq!(
            allowed,
            [
                "pending --Sent--> queued",
                "pending --Claim--> processing",
                "pending --Skip--> skipped",
                "pending --Cancel--> cancelled",
                "queued --Claim--> processing",
                "queued --Skip--> skipped",
                "queued --Cancel--> cancelled",
                "processing --Claim--> processing",
                "processing --Complete--> completed",
                "processing --Fail--> failed",
                "processing --Retry--> pending_retry",
                "processing --GiveBack--> queued",
                "processing --Defer--> pending_retry",
                "processing --Skip--> skipped",
                "processing --Cancel--> cancelled",
                "pending_retry --Claim--> processing",
                "pending_retry --Cancel--> cancelled",
            ]
        );
    }

    #[test]
    fn transitions_are_deterministic() {
        for (position, (from, event, _)) in TASK_TRANSITIONS.iter().enumerate() {
            let same = TASK_TRANSITIONS.iter().position(|(f, e, _)| f == from && e == event);
            assert_eq!(same, Some(position), "{from} on {event:?} is listed twice");
        }
    }

    #[test]
    fn final_jobs_stay_final_and_every_state_is_reached() {
        for (from, _) in JOB_TRANSITIONS {
            assert!(!from.is_final(), "{from} is final");
        }
        for state in JobState::ALL {
            let reached = *state == JobState::Queued || JOB_TRANSITIONS.iter().any(|(_, to)| to == state);
            assert!(reached, "{state} cannot be reached");
            assert_eq!(JobState::from_name(state.as_str()), Some(*state));
        }
        for state in TaskState::ALL {
            let reached =
                *state == TaskState::Pending || TASK_TRANSITIONS.iter().any(|(_, _, to)| to == state);
            assert!(reached, "{state} cannot be reached");
            assert_eq!(TaskState::from_name(state.as_str()), Some(*state));
        }
    }

    #[test]
    fn sql_guards_come_from_the_table() {
        assert_eq!(sql_sources(TaskEvent::Complete), "'processing'");
        assert_eq!(sql_sources(TaskEvent::Claim), "'pending','queued','pending_retry','processing'");
        assert_eq!(sql_job_sources(JobState::Completed), "'processing'");
    }
}
