//! What ends a link, a session or a connection before its time: broken rules and injected faults alike.

use fe2o3_amqp_types::definitions::Error;

use crate::broker::Broker;
use crate::conditions::Condition;
use crate::faults::{Action, Point};

/// The end of something, carried up like an error to the place that can end it.
#[derive(Debug)]
pub(crate) enum Interruption {
    /// Detach the link with this handle.
    Detach(u32, Error),
    /// End the session.
    End(Error),
    /// Close the connection.
    Close(Error),
    /// Cut the connection.
    Drop,
}

/// A fault that ends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nuisance {
    Busy,
    LoseLock,
}

impl Interruption {
    /// The link is idle, as the service says it.
    pub(crate) fn detach(handle: u32) -> Self {
        let text = "The link is force detached by the broker because of inactivity or an upgrade.";
        Self::Detach(handle, Condition::DetachForced.error(text))
    }

    /// The session ends for no reason of the client's.
    pub(crate) fn end() -> Self {
        Self::End(Condition::InternalError.error("The session was ended by the broker."))
    }

    /// The connection closes for no reason of the client's.
    pub(crate) fn close() -> Self {
        Self::Close(Condition::ConnectionForced.error("The connection was closed by the container."))
    }
}

impl From<serde_amqp::Error> for Interruption {
    fn from(error: serde_amqp::Error) -> Self {
        Self::Close(Condition::DecodeError.error(error.to_string()))
    }
}

/// Lets a fault strike at this point of an operation on the link with this handle.
pub(crate) fn strike(broker: &Broker, point: Point, handle: u32) -> Result<Option<Nuisance>, Interruption> {
    match broker.strike(point) {
        None => Ok(None),
        Some(Action::Busy) => Ok(Some(Nuisance::Busy)),
        Some(Action::LoseLock) => Ok(Some(Nuisance::LoseLock)),
        Some(Action::Detach) => Err(Interruption::detach(handle)),
        Some(Action::End) => Err(Interruption::end()),
        Some(Action::Close) => Err(Interruption::close()),
        Some(Action::Drop) => Err(Interruption::Drop),
    }
}
