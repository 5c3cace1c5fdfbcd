//! Ids: SHA-256 over what makes a run or a task the one it is, so that they can be derived again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::json::canonical;

/// A text that is not an id.
#[derive(Debug, thiserror::Error)]
#[error("an id is 64 hexadecimal digits")]
pub struct InvalidId;

macro_rules! hex_id {
    ($name:ident, $what:literal) => {
        #[doc = $what]
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// 64 lower-case hexadecimal digits.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 12 digits, for people.
            #[must_use]
            pub fn short(&self) -> &str {
                &self.0[..12]
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if valid { Ok(Self(text.to_owned())) } else { Err(InvalidId) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

hex_id!(JobId, "Identity of one run of a job: type, canonical parameters and run ordinal.");
hex_id!(TaskId, "Identity of a task: job, stage and logical unit.");

impl JobId {
    /// The id of run `ordinal` (from 1) of a request.
    #[must_use]
    pub fn derive(job_type: &str, parameters: &Value, ordinal: u32) -> Self {
        Self(digest(&[job_type, &canonical(parameters), &ordinal.to_string()]))
    }
}

impl TaskId {
    /// The id of the task for `unit` in stage `stage` (from 1) of `job`.
    #[must_use]
    pub fn derive(job: &JobId, stage: u32, unit: &str) -> Self {
        Self(digest(&[job.as_str(), &stage.to_string(), unit]))
    }
}

/// Identity of a request: the same type and parameters give the same key, whatever the run.
#[must_use]
pub fn idempotency_key(job_type: &str, parameters: &Value) -> String {
    digest(&[job_type, &canonical(parameters)])
}

/// Hex SHA-256 over the parts, each with its length in front so that parts cannot run into each other.
#[must_use]
pub fn digest(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex(&hasher.finalize())
}

/// Lower-case hexadecimal digits of `bytes`.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_type_parameters_and_ordinal() {
        let parameters = json!({"a": 1});
        let id = JobId::derive("t", &parameters, 1);
        assert_eq!(id, JobId::derive("t", &json!({"a": 1}), 1));
        assert_ne!(id, JobId::derive("t", &parameters, 2));
        assert_ne!(id, JobId::derive("u", &parameters, 1));
        assert_eq!(idempotency_key("t", &parameters), idempotency_key("t", &parameters));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    }

    #[test]
    fn only_64_hex_digits_are_an_id() {
        assert!("abc".parse::<JobId>().is_err());
        assert!("A".repeat(64).parse::<JobId>().is_err());
        assert!("a".repeat(64).parse::<TaskId>().is_ok());
    }
}
