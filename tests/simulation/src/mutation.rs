//! Rules that can be broken on purpose, to show that the simulation notices.

use clap::ValueEnum;

/// One broken rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mutation {
    /// An attempt's end is accepted whatever its lease epoch.
    NoEpochCheck,
    /// A task whose lease still holds can be claimed.
    ClaimIgnoresLease,
    /// Messages are forgotten instead of waiting in the outbox, and nobody sweeps.
    NoOutbox,
    /// A failed task does not count its stage down.
    EndOutsideTheOnePath,
    /// A stage is planned whatever stage the job stands at.
    PlanWithoutCompareAndSet,
    /// A job that is over can be ended again.
    FinalStateIsLeft,
    /// The sweeper takes healthy tasks away after a fixed time.
    SweeperRescuesTheHealthy,
    /// A stale attempt may publish.
    NoFence,
    /// A lost worker's attempts are not counted.
    AttemptsAreNotCounted,
}
