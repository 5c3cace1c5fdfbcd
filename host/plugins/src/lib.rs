//! The plugin host: loads WebAssembly components, bounds them, and lets them ask for journaled operations.
//!
//! [`Plugins`] is what serves and can be reloaded, [`Registry`] one generation of it, [`Loader`] the pipeline with an
//! outcome for each file. [`Limits`] bounds every call, and [`HostServices`] is what a guest's requests end at.

mod bindings;
mod cache;
mod call;
mod compile;
mod component;
mod described;
mod engine;
mod error;
mod generations;
mod guest;
mod imports;
mod lifted;
pub mod limits;
mod load;
mod lockfile;
mod metadata;
mod registry;
mod schema;
mod services;
mod signature;
mod trust;
mod usage;
mod watch;

/// Package and version of the contract that the host offers.
pub const CONTRACT: &str = "geoworker:plugin@1.0.0";

pub use bindings::{BlobRef, FileFacts, JobContext, TaskContext, TaskDefinition, TaskRoute};
pub use cache::ArtefactCache;
pub use call::{Finding, Validation};
pub use engine::PluginEngine;
pub use error::PluginError;
pub use generations::{Changes, Plugins};
pub use limits::{Limits, LimitsPolicy, PartialLimits};
pub use load::{LoadReport, LoadStage, Loader, load_directory, load_file};
pub use lockfile::{LOCK_FILE, LockDifference, LockFile};
pub use metadata::PluginMetadata;
pub use registry::{JobTypeInfo, LoadedPlugin, Registry, TaskTypeInfo};
pub use services::{HostServices, JournaledOperation, NoServices, OperationError, UnitResult, request_hash};
pub use signature::{SigningKey, signature_path};
pub use trust::TrustPolicy;
pub use usage::{CallObserver, CallReport, Usage};
pub use watch::{WatchMode, WatchSettings, watch};
