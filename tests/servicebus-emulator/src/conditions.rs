//! Error conditions as the service words them, for links, deliveries and management answers.

use fe2o3_amqp_types::definitions::{Error, ErrorCondition, Fields};
use fe2o3_amqp_types::primitives::Symbol;

/// A condition of AMQP or of Service Bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    BadRequest,
    ConnectionForced,
    DecodeError,
    DetachForced,
    InternalError,
    LockLost,
    MessageNotFound,
    NotAllowed,
    NotFound,
    NotImplemented,
    ServerBusy,
    SizeExceeded,
    Unauthorized,
}

impl Condition {
    /// Its symbol on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "com.microsoft:argument-error",
            Self::ConnectionForced => "amqp:connection:forced",
            Self::DecodeError => "amqp:decode-error",
            Self::DetachForced => "amqp:link:detach-forced",
            Self::InternalError => "amqp:internal-error",
            Self::LockLost => "com.microsoft:message-lock-lost",
            Self::MessageNotFound => "com.microsoft:message-not-found",
            Self::NotAllowed => "amqp:not-allowed",
            Self::NotFound => "amqp:not-found",
            Self::NotImplemented => "amqp:not-implemented",
            Self::ServerBusy => "com.microsoft:server-busy",
            Self::SizeExceeded => "amqp:link:message-size-exceeded",
            Self::Unauthorized => "amqp:unauthorized-access",
        }
    }

    /// Its status in answers of `$management` and `$cbs`.
    pub(crate) fn status(self) -> i32 {
        match self {
            Self::BadRequest | Self::DecodeError | Self::NotAllowed => 400,
            Self::Unauthorized => 401,
            Self::MessageNotFound | Self::NotFound => 404,
            Self::LockLost => 410,
            Self::SizeExceeded => 413,
            Self::ConnectionForced | Self::DetachForced | Self::InternalError => 500,
            Self::NotImplemented => 501,
            Self::ServerBusy => 503,
        }
    }

    /// The error that ends or refuses something.
    pub(crate) fn error(self, description: impl Into<String>) -> Error {
        let condition = ErrorCondition::Custom(Symbol::from(self.name()));
        // Without this empty map the Python client fails to read the error of a close.
        Error::new(condition, Some(description.into()), Some(Fields::new()))
    }
}

/// What a client reads after a request under load.
pub(crate) const BUSY: &str =
    "The request was terminated because the entity is being throttled. Please wait 2 seconds and try again.";
