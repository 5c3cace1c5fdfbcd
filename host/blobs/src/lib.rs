//! Zones and objects: `bronze` in, `silver` out. A zone is a folder, opened as a capability: no name can leave it.

mod error;
mod fence;
mod folder;
mod name;
mod owned;

pub use error::BlobError;
pub use fence::Fence;
pub use folder::{BlobFacts, FolderZones, Staged};
pub use name::BlobRef;
pub use owned::OwnedFolder;
