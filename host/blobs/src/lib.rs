//! Zones and objects: `bronze` in, `silver` out. [`Zones`] is the contract; [`FolderZones`] are folders, opened as
//! capabilities: no name can leave them.

mod error;
mod fence;
mod folder;
mod name;
mod owned;
mod staged;
mod zones;

pub use error::BlobError;
pub use fence::Fence;
pub use folder::FolderZones;
pub use name::BlobRef;
pub use owned::OwnedFolder;
pub use staged::Staged;
pub use zones::{BlobFacts, Object, Source, Zones};
