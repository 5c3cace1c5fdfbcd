//! Errors of the client, and what a failed attempt means.

use std::fmt;

use fe2o3_amqp::link::{
    DetachError, IllegalLinkStateError, LinkStateError, ReceiverAttachError, RecvError, SendError,
    SenderAttachError,
};
use fe2o3_amqp::types::definitions::{self, AmqpError, ErrorCondition, LinkError};

/// What an operation can end with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceBusError {
    /// The lock expired, or the message was settled before. After a `complete` that was repeated because its answer
    /// was lost, this may mean that the first one worked.
    #[error("the message's lock was lost")]
    LockLost,
    /// One message is larger than the queue takes.
    #[error("a message of {size} bytes is larger than the {limit} bytes that the queue takes")]
    TooLarge {
        /// Bytes of the encoded message.
        size: usize,
        /// Most bytes of an encoded message.
        limit: usize,
    },
    /// There is no such queue, or no such scheduled message.
    #[error("not found: {0}")]
    NotFound(String),
    /// The broker or the identity provider refused the credential.
    #[error("not authorized: {0}")]
    Unauthorized(String),
    /// The broker asked for patience for longer than an operation may take.
    #[error("the broker is busy: {0}")]
    Busy(String),
    /// The broker could not be reached within the time of an operation.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
    /// The broker refused the request; to repeat it is useless.
    #[error("the broker refused the request: {0}")]
    Refused(String),
}

/// Why one attempt failed.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// The connection cannot be trusted any more.
    Transport(String),
    /// The credential was refused; a fresh token may help once.
    Unauthorized(String),
    /// The broker asks for patience; the connection is fine.
    Busy(String),
    /// The identity provider gave no token.
    Token(String),
    /// The answer: to ask again is useless.
    Final(ServiceBusError),
}

impl Failure {
    pub(crate) fn transport(error: impl fmt::Display) -> Self {
        Self::Transport(error.to_string())
    }

    /// The error of a condition that the broker named.
    pub(crate) fn of_condition(condition: &str, detail: &str) -> Self {
        let text = format!("{condition} {detail}").trim().to_owned();
        match condition {
            "com.microsoft:message-lock-lost" => Self::Final(ServiceBusError::LockLost),
            "amqp:not-found" | "com.microsoft:message-not-found" => {
                Self::Final(ServiceBusError::NotFound(text))
            }
            "amqp:unauthorized-access" | "com.microsoft:auth-failed" => Self::Unauthorized(text),
            "com.microsoft:server-busy" | "com.microsoft:timeout" | "amqp:resource-limit-exceeded" => {
                Self::Busy(text)
            }
            "com.microsoft:entity-disabled"
            | "com.microsoft:argument-error"
            | "com.microsoft:argument-out-of-range"
            | "amqp:not-allowed"
            | "amqp:not-implemented"
            | "amqp:link:message-size-exceeded" => Self::Final(ServiceBusError::Refused(text)),
            _ => Self::Transport(text),
        }
    }

    /// The failure as the caller sees it, once there is no time left.
    pub(crate) fn into_error(self) -> ServiceBusError {
        match self {
            Self::Transport(detail) => ServiceBusError::Unavailable(detail),
            Self::Unauthorized(detail) | Self::Token(detail) => ServiceBusError::Unauthorized(detail),
            Self::Busy(detail) => ServiceBusError::Busy(detail),
            Self::Final(error) => error,
        }
    }
}

impl From<&definitions::Error> for Failure {
    fn from(error: &definitions::Error) -> Self {
        let condition = match &error.condition {
            ErrorCondition::AmqpError(AmqpError::NotFound) => "amqp:not-found",
            ErrorCondition::AmqpError(AmqpError::UnauthorizedAccess) => "amqp:unauthorized-access",
            ErrorCondition::AmqpError(AmqpError::ResourceLimitExceeded) => "amqp:resource-limit-exceeded",
            ErrorCondition::AmqpError(AmqpError::NotAllowed) => "amqp:not-allowed",
            ErrorCondition::AmqpError(AmqpError::NotImplemented) => "amqp:not-implemented",
            ErrorCondition::LinkError(LinkError::MessageSizeExceeded) => "amqp:link:message-size-exceeded",
            ErrorCondition::Custom(name) => name.0.as_str(),
            other => {
                return Self::Transport(format!(
                    "{other:?} {}",
                    error.description.as_deref().unwrap_or_default()
                ));
            }
        };
        Self::of_condition(condition, error.description.as_deref().unwrap_or_default())
    }
}

impl From<LinkStateError> for Failure {
    fn from(error: LinkStateError) -> Self {
        match &error {
            LinkStateError::RemoteClosedWithError(remote)
            | LinkStateError::RemoteDetachedWithError(remote) => Self::from(remote),
            _ => Self::transport(error),
        }
    }
}

impl From<IllegalLinkStateError> for Failure {
    fn from(error: IllegalLinkStateError) -> Self {
        Self::transport(error)
    }
}

impl From<DetachError> for Failure {
    fn from(error: DetachError) -> Self {
        Self::from(LinkStateError::from(error))
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::LinkStateError(state) => Self::from(state),
            SendError::Detached(detached) => Self::from(detached),
            other => Self::transport(other),
        }
    }
}

impl From<RecvError> for Failure {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::LinkStateError(state) => Self::from(state),
            other => Self::transport(other),
        }
    }
}

impl From<SenderAttachError> for Failure {
    fn from(error: SenderAttachError) -> Self {
        match &error {
            SenderAttachError::RemoteClosedWithError(remote) => Self::from(remote),
            _ => Self::transport(error),
        }
    }
}

impl From<ReceiverAttachError> for Failure {
    fn from(error: ReceiverAttachError) -> Self {
        match &error {
            ReceiverAttachError::RemoteClosedWithError(remote) => Self::from(remote),
            _ => Self::transport(error),
        }
    }
}
