//! A deterministic simulation of many workers under faults.
//!
//! The real machine, worker and plugin host run on a simulated store, simulated queues and simulated time. One seed decides
//! everything: the work, the faults (statements that fail or whose answers are lost, messages that are lost, doubled, late
//! and out of order, processes that die or stand still between any two statements, clocks that differ), and what people do
//! meanwhile (cancel, retry). Afterwards the invariants are checked against what really happened. A seed that fails prints
//! its trace; the same number plays it again. The simulated store passes the suite of the real ones, and
//! [`Mutation`]s break one rule each, to show that the simulation notices.

mod dice;
mod invariants;
mod mutation;
mod people;
mod queue;
mod run;
mod store;
mod world;

pub use mutation::Mutation;
pub use run::{Outcome, Simulation};
