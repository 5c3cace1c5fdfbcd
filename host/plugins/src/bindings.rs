//! Bindings generated from `wit/`. The records are serialisable: requests and answers cross into the journal and
//! to native processes under the contract's own field names.

#![expect(missing_docs, reason = "wit/plugin.wit documents each item")]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "plugin",
    imports: { default: async | trappable },
    exports: { default: async },
    additional_derives: [PartialEq, serde::Serialize, serde::Deserialize],
});

pub(crate) use exports::geoworker::plugin::{job_types, task_types};
pub(crate) use geoworker::plugin::{blobs, catalog, log, progress, raster, results, types};
pub use job_types::{JobContext, TaskDefinition};
pub use task_types::{TaskContext, TaskRoute};
pub use types::{BlobFacts as FileFacts, BlobRef};
