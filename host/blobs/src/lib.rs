//! Zones and objects: `bronze` in, `silver` out. [`Zones`] is the contract; [`FolderZones`] are folders, opened as
//! capabilities: no name can leave them; [`AzureZones`] are storage accounts.

mod azure;
#[cfg(test)]
mod conformance;
mod error;
mod fence;
mod folder;
mod name;
mod owned;
mod staged;
mod zones;

pub use azure::{Account, AccountError, AzureZones};
pub use error::BlobError;
pub use fence::Fence;
pub use folder::FolderZones;
pub use name::BlobRef;
pub use owned::OwnedFolder;
pub use staged::Staged;
pub use zones::{BlobFacts, Object, Output, Source, Upload, Zones};
