//! What a plugin needs: implement [`TaskType`] or [`JobType`], list them in [`export_plugin!`], build for
//! `wasm32-unknown-unknown`.
//!
//! Everything that reaches outside of the guest is a function of [`host`], [`raster`] or [`blobs`]. They answer
//! from the journal on a later attempt, so a handler is an ordinary function that may be run again.

#![allow(clippy::missing_safety_doc, reason = "generated bindings")]

pub mod bindings;
mod dispatch;
pub mod params;
mod types;

#[doc(hidden)]
pub use dispatch::Dispatch;
pub use serde_json;
pub use types::{
    BlobRef, Failure, Finding, Job, JobType, JobTypeInfo, Planned, Route, StageInfo, Task, TaskType,
    TaskTypeInfo,
};

/// Raster operations of the host.
pub use bindings::geoworker::plugin::raster;

/// Blobs of the declared zones.
pub use bindings::geoworker::plugin::blobs;

/// The catalogue of STAC items.
pub use bindings::geoworker::plugin::catalog;

/// Results of the stages that are over.
pub use bindings::geoworker::plugin::results;

/// Log and progress.
pub mod host {
    use crate::bindings::geoworker::plugin::{log, progress};

    /// One line at level `info`.
    pub fn info(message: &str) {
        log::write("info", message);
    }

    /// One line at level `warn`.
    pub fn warn(message: &str) {
        log::write("warn", message);
    }

    /// How far the task is, 0 to 1.
    pub fn progress(fraction: f32, message: &str) {
        progress::report(fraction, message);
    }
}

/// Exports a plugin: `export_plugin! { tasks: [Greet], jobs: [HelloWorld] }`.
#[macro_export]
macro_rules! export_plugin {
    (tasks: [$($task:expr),* $(,)?], jobs: [$($job:expr),* $(,)?]) => {
        struct Plugin;
        impl $crate::Dispatch for Plugin {
            fn tasks() -> &'static [&'static dyn $crate::TaskType] {
                &[$(&$task),*]
            }
            fn jobs() -> &'static [&'static dyn $crate::JobType] {
                &[$(&$job),*]
            }
        }
        $crate::bindings::export!(Plugin with_types_in $crate::bindings);
    };
}
