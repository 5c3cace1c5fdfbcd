//! The worker: polls queues, claims tasks, keeps leases, runs plugins, supervises native operations, advances jobs.
//!
//! Every `select!` is biased: what ends something comes first, and a simulation repeats itself exactly.

mod admission;
mod attempt;
mod cgroup;
mod core;
mod decisions;
mod ending;
mod find;
mod keeper;
mod messages;
mod metrics;
mod missing;
mod objects;
mod operations;
mod platform;
mod plugin_calls;
mod pulse;
mod read_ahead;
mod relay;
pub mod replay;
mod run;
mod scratch;
mod settings;
mod storage;
mod submit;
mod supervisor;
mod truth;
mod views;
mod waiting;
mod watchdog;

pub use admission::Admission;
pub use find::{find_job, find_task};
pub use metrics::Metrics;
pub use objects::Objects;
pub use platform::Platform;
pub use plugin_calls::PluginCalls;
pub use pulse::{Loop, Pulse};
pub use run::{Shutdown, run};
pub use settings::{Slots, WorkerSettings};
pub use submit::{Submission, blob_error};
pub use supervisor::{Assignment, Native, NativeFailure, Report};
pub use views::{HandledView, JobStatus, JobTypeView, TaskDetail, TaskTypeView, TaskView};
pub use waiting::task_waits_for;
