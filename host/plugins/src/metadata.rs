//! What a plugin file says about itself without being run.

use geoworker_machine::{ErrorInfo, codes};
use serde::{Deserialize, Serialize};
use wasmparser::{Parser, Payload};

use crate::limits::PartialLimits;

/// Longest section that is read, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Content of the custom section of a plugin; all members are optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginMetadata {
    /// Name for people.
    pub name: Option<String>,
    /// Semantic version of the file.
    pub version: Option<String>,
    /// SPDX expression.
    pub license: Option<String>,
    /// Hex SHA-256 of the sources that it was built of.
    pub source_sha256: Option<String>,
    /// Limits that it would like; the operator's ceiling decides.
    pub limits: PartialLimits,
}

impl PluginMetadata {
    /// Name of the custom section, at the outermost level of module or component.
    pub const SECTION: &str = "geoworker-plugin";

    /// Reads the metadata of a file, where it has any.
    ///
    /// # Errors
    /// `PLUGIN_NOT_WASM` where the file is no WebAssembly, `PLUGIN_METADATA` where the section is not valid, too
    /// large or there twice.
    pub fn read(bytes: &[u8]) -> Result<Option<Self>, ErrorInfo> {
        let mut found = None;
        let mut level = 0_u32;
        for payload in Parser::new(0).parse_all(bytes) {
            let payload = payload.map_err(|error| {
                let message = format!("the file is not a valid module or component: {}", error.message());
                ErrorInfo::permanent(codes::PLUGIN_NOT_WASM, message)
            })?;
            match payload {
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => level += 1,
                Payload::End(_) => level = level.saturating_sub(1),
                Payload::CustomSection(section) if level == 0 && section.name() == Self::SECTION => {
                    let earlier = found.replace(parse(section.data())?);
                    earlier.map_or(Ok(()), |_| Err(invalid("it is there twice")))?;
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn parse(data: &[u8]) -> Result<PluginMetadata, ErrorInfo> {
    if data.len() > MAX_BYTES {
        return Err(invalid(&format!("it has {} bytes; at most {MAX_BYTES}", data.len())));
    }
    serde_json::from_slice(data).map_err(|error| invalid(&error.to_string()))
}

fn invalid(reason: &str) -> ErrorInfo {
    let message = format!("the section {} is not valid: {reason}", PluginMetadata::SECTION);
    ErrorInfo::permanent(codes::PLUGIN_METADATA, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    /// A module with a custom section; contents stay below 128 bytes, so that lengths take one byte.
    fn with_section(file: &[u8], content: &str) -> Vec<u8> {
        let name = PluginMetadata::SECTION;
        let length = u8::try_from(1 + name.len() + content.len()).expect("is short");
        assert!(length < 128);
        let name_length = u8::try_from(name.len()).expect("is short");
        [file, &[0, length, name_length], name.as_bytes(), content.as_bytes()].concat()
    }

    #[test]
    fn the_outermost_section_is_read() {
        assert_eq!(PluginMetadata::read(MODULE), Ok(None));
        let file = with_section(MODULE, r#"{"name": "n", "limits": {"memory_mib": 128}}"#);
        let found = PluginMetadata::read(&file).expect("is valid").expect("is there");
        assert_eq!(found.name.as_deref(), Some("n"));
        assert_eq!(serde_json::json!(found.limits), serde_json::json!({"memory_mib": 128}));
    }

    #[test]
    fn broken_sections_are_refused() {
        let code = |file: &[u8]| PluginMetadata::read(file).expect_err("is refused").code;
        assert_eq!(code(&with_section(MODULE, "{")), codes::PLUGIN_METADATA);
        assert_eq!(code(&with_section(MODULE, r#"{"limits": {"memory": 1}}"#)), codes::PLUGIN_METADATA);
        assert_eq!(code(&with_section(&with_section(MODULE, "{}"), "{}")), codes::PLUGIN_METADATA);
        assert_eq!(code(&with_section(MODULE, "{}")[..20]), codes::PLUGIN_NOT_WASM);
    }
}
