//! The plugin host: loads WebAssembly components, bounds them, and lets them ask for journaled operations.
//!
//! [`Registry`] holds what was loaded, [`load_file`] is the pipeline with an outcome for each file, [`Limits`] bounds
//! every call, and [`HostServices`] is what a guest's requests end at.

mod bindings;
mod cache;
mod call;
mod component;
mod described;
mod engine;
mod error;
mod guest;
mod imports;
mod lifted;
pub mod limits;
mod load;
mod metadata;
mod registry;
mod schema;
mod services;
mod usage;

/// Package and version of the contract that the host offers.
pub const CONTRACT: &str = "geoworker:plugin@1.0.0";

pub use bindings::{BlobRef, FileFacts, JobContext, TaskContext, TaskDefinition, TaskRoute};
pub use call::{Finding, Validation};
pub use engine::PluginEngine;
pub use error::PluginError;
pub use limits::{Limits, LimitsPolicy, PartialLimits};
pub use load::{LoadReport, LoadStage, load_directory, load_file};
pub use metadata::PluginMetadata;
pub use registry::{JobTypeInfo, LoadedPlugin, Registry, TaskTypeInfo};
pub use services::{HostServices, JournaledOperation, NoServices, OperationError, UnitResult, request_hash};
pub use usage::{CallObserver, CallReport, Usage};
