//! Names of blobs.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::BlobError;

/// Longest name, as in Azure Blob Storage.
const MAX_NAME: usize = 1024;
/// Longest container name.
const MAX_CONTAINER: usize = 63;

/// A blob: zone, container and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// `bronze`, `silver` or another zone of the operator.
    pub zone: String,
    /// First folder.
    pub container: String,
    /// The rest, `/` between its parts.
    pub name: String,
}

impl BlobRef {
    /// A reference; it is checked when it is used.
    pub fn new(zone: impl Into<String>, container: impl Into<String>, name: impl Into<String>) -> Self {
        Self { zone: zone.into(), container: container.into(), name: name.into() }
    }

    /// Refuses names that are not plain relative paths.
    ///
    /// # Errors
    /// [`BlobError::InvalidName`] with the rule that was broken.
    pub fn check(&self) -> Result<(), BlobError> {
        check_container(&self.container)?;
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return Err(invalid(format!("a blob name has 1 to {MAX_NAME} bytes")));
        }
        for part in self.name.split('/') {
            check_part(part)?;
        }
        Ok(())
    }

    /// Path within the zone.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.container, self.name)
    }
}

impl fmt::Display for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.zone, self.container, self.name.escape_debug())
    }
}

pub(crate) fn check_container(container: &str) -> Result<(), BlobError> {
    if container.is_empty() || container.len() > MAX_CONTAINER || container.contains('/') {
        return Err(invalid(format!("a container name has 1 to {MAX_CONTAINER} bytes and no '/'")));
    }
    check_part(container)
}

fn check_part(part: &str) -> Result<(), BlobError> {
    let rule = if part.is_empty() {
        "a name has no empty part"
    } else if part == "." || part == ".." {
        "a name has no part '.' or '..'"
    } else if part.starts_with('.') {
        "no part of a name begins with '.'"
    } else if part
        .chars()
        .any(|c| c.is_control() || matches!(c, '\\' | ':' | '*' | '?' | '"' | '<' | '>' | '|'))
    {
        "a name has no control characters and none of \\ : * ? \" < > |"
    } else {
        return Ok(());
    };
    Err(invalid(rule.to_owned()))
}

fn invalid(rule: String) -> BlobError {
    BlobError::InvalidName(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_not_plain_paths_are_refused() {
        let long = "a".repeat(1025);
        let bad = [
            "",
            "/etc/passwd",
            "../x",
            "a/../b",
            "a//b",
            "a/",
            "./a",
            "a/.hidden",
            "a\0b",
            "a\nb",
            "C:\\x",
            "a\\b",
            "/vsicurl/http://x",
            &long,
        ];
        for name in bad {
            let result = BlobRef::new("bronze", "c", name).check();
            assert!(matches!(result, Err(BlobError::InvalidName(_))), "{name:?} was accepted");
        }
        for container in ["", "..", "a/b", ".x"] {
            assert!(BlobRef::new("bronze", container, "n").check().is_err(), "{container:?} was accepted");
        }
        for name in ["a.tif", "2024/05/scene 1_b-2 (copy).tif", "ü/é.tif"] {
            assert!(BlobRef::new("bronze", "c", name).check().is_ok(), "{name:?} was refused");
        }
    }
}
