//! What goes into a queue and comes out of it.

use std::time::Duration;

use uuid::Uuid;

/// Milliseconds since 1970-01-01 UTC.
pub type Millis = i64;

/// Number the queue gives to each message, from 1.
pub type Sequence = i64;

/// Reason of a message that was delivered too often.
pub const MAX_DELIVERIES_EXCEEDED: &str = "MaxDeliveryCountExceeded";

/// Reason of a message that was not received in time.
pub const TIME_TO_LIVE_EXPIRED: &str = "TTLExpiredException";

/// What a queue does with its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Length of a peek-lock, and of each renewal.
    pub lock: Duration,
    /// Deliveries after which a message moves to the dead-letter sub-queue.
    pub max_deliveries: u32,
    /// Life of a message that does not state a shorter one; `None` = for ever.
    pub time_to_live: Option<Duration>,
    /// Whether a message that outlived its time is dead-lettered (`true`) or dropped (`false`).
    pub dead_letter_expired: bool,
}

/// The two places of a queue that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The queue itself.
    Main,
    /// `/$DeadLetterQueue`. Delivery count and time to live have no effect in it.
    DeadLetter,
}

/// Why a message is in the dead-letter sub-queue.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadLetter {
    /// `DeadLetterReason`.
    pub reason: Option<String>,
    /// `DeadLetterErrorDescription`.
    pub description: Option<String>,
}

/// A message as the queue holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message<P> {
    /// Its number for life.
    pub sequence: Sequence,
    /// When it became available for the first time.
    pub enqueued: Millis,
    /// Deliveries that ended without success.
    pub deliveries: u32,
    /// When it stops being deliverable.
    pub expires: Option<Millis>,
    /// Set as long as it is in the dead-letter sub-queue.
    pub dead_letter: Option<DeadLetter>,
    /// What the sender sent.
    pub payload: P,
}

/// State shown to those who peek, with the numbers of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Ready or locked.
    Active = 0,
    /// Received by its sequence number only.
    Deferred = 1,
    /// Waiting for its time.
    Scheduled = 2,
}

/// A message handed out under a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery<P> {
    /// Key for renewal and settlement.
    pub token: Uuid,
    /// End of the lock.
    pub locked_until: Millis,
    /// Whether it had been deferred.
    pub visibility: Visibility,
    /// The message.
    pub message: Message<P>,
}

/// How a receiver ends its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// Done: the message is deleted.
    Complete,
    /// Failed: the message is available again, one delivery older.
    Abandon,
    /// Given back untouched: available again, not older.
    Release,
    /// Put aside, to be received by its sequence number.
    Defer,
    /// Moved to the dead-letter sub-queue.
    DeadLetter(DeadLetter),
}

/// The lock ran out, was lost, or never existed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the lock supplied is invalid: it expired, or the message was removed from the queue")]
pub struct LockLost;

/// Number of messages in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Ready to be received.
    pub ready: usize,
    /// Held by receivers.
    pub locked: usize,
    /// Deferred.
    pub deferred: usize,
    /// Scheduled for later.
    pub scheduled: usize,
    /// In the dead-letter sub-queue, locked or not.
    pub dead: usize,
}

/// Whole milliseconds of a duration.
#[must_use]
pub fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}
