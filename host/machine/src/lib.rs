//! CoreMachine: the rules by which jobs, stages and tasks move. Pure: no I/O, no clock, no async.
//!
//! The store, the worker and the documentation all take their transitions from [`state`].

pub mod codes;
pub mod error;
pub mod ids;
pub mod json;
pub mod messages;
pub mod mode;
pub mod retry;
pub mod routing;
pub mod stage;
pub mod state;

pub use error::{ErrorInfo, RetryClass};
pub use ids::{JobId, TaskId};
pub use messages::{JobMessage, StageComplete, TaskMessage};
pub use mode::AppMode;
pub use retry::RetryPolicy;
pub use state::{JobState, TaskState};
