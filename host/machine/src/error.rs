//! The error that is stored with a task or job and shown to people.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What may be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryClass {
    /// The same attempt would fail again.
    Permanent,
    /// Another attempt may succeed.
    Transient,
    /// Another attempt may succeed, after a longer wait.
    Throttled,
    /// Memory or disk ran out: only a cheaper plan may succeed.
    Resource,
}

impl RetryClass {
    /// The name in messages, rows and the plugin contract.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::Resource => "resource",
        }
    }

    /// Reads a name; unknown ones are permanent, as the plugin contract says.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "transient" => Self::Transient,
            "throttled" => Self::Throttled,
            "resource" => Self::Resource,
            _ => Self::Permanent,
        }
    }
}

/// A failure with a stable code. It is public: no secrets, no internal paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ErrorInfo {
    /// Stable code in capitals, see [`crate::codes`].
    pub code: String,
    /// One sentence.
    pub message: String,
    /// What may be done.
    pub class: RetryClass,
    /// What to do, where the message does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ErrorInfo {
    /// A failure of the given class.
    pub fn new(code: &str, class: RetryClass, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), message: message.into(), class, hint: None }
    }

    /// A failure that would happen again.
    pub fn permanent(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, RetryClass::Permanent, message)
    }

    /// A failure that may not happen again.
    pub fn transient(code: &str, message: impl Into<String>) -> Self {
        Self::new(code, RetryClass::Transient, message)
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
