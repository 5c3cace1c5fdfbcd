//! Zones and objects: `bronze` in, `silver` out. A zone is a folder, opened as a capability: no name can leave it.

mod error;
mod folder;
mod name;

pub use error::BlobError;
pub use folder::{BlobFacts, FolderZones, Staged};
pub use name::BlobRef;
