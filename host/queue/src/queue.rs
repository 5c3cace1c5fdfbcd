//! The contract of a peek-lock queue (R14).

use std::time::Duration;

use async_trait::async_trait;
use geoworker_machine::{ErrorInfo, RetryClass, codes};
use geoworker_store::StoreError;

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// JSON.
    pub body: String,
    /// Deliver after this many milliseconds, by the broker's clock; 0 is now.
    pub delay_ms: i64,
}

/// Proof of a lock: which message, and which delivery of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Position in the queue.
    pub sequence: i64,
    /// Token of this delivery.
    pub token: String,
}

/// A locked message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedMessage {
    /// Needed to settle it.
    pub receipt: Receipt,
    /// JSON.
    pub body: String,
    /// Deliveries so far, this one included.
    pub delivery_count: u32,
    /// How long the lock holds unless it is renewed.
    pub locked_for: Duration,
}

/// A message that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Position in the queue.
    pub sequence: i64,
    /// JSON.
    pub body: String,
    /// Code.
    pub reason: String,
    /// One sentence.
    pub detail: String,
}

/// Messages in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Ready to be received.
    pub active: u64,
    /// There are more messages than were counted.
    pub at_least: bool,
    /// Those that are being worked on are among the active ones: this broker does not tell them apart.
    pub active_is_locked: bool,
    /// Being worked on.
    pub locked: u64,
    /// Due later.
    pub scheduled: u64,
    /// Set aside.
    pub dead: u64,
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The lock expired or the message was settled before.
    #[error("the message's lock was lost")]
    LockLost,
    /// The broker did not answer.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
    /// The broker refuses the credentials.
    #[error("the broker refuses access: {0}")]
    Denied(String),
    /// There is no such queue.
    #[error("there is no queue '{0}'")]
    NotFound(String),
    /// The message is larger than the broker takes.
    #[error("the message is too large: {0}")]
    TooLarge(String),
}

impl QueueError {
    /// The public form.
    #[must_use]
    pub fn info(&self) -> ErrorInfo {
        let (code, class) = match self {
            Self::LockLost | Self::Unavailable(_) => (codes::QUEUE_UNAVAILABLE, RetryClass::Transient),
            Self::Denied(_) => (codes::QUEUE_DENIED, RetryClass::Transient),
            Self::NotFound(_) => (codes::QUEUE_NOT_FOUND, RetryClass::Transient),
            Self::TooLarge(_) => (codes::MESSAGE_INVALID, RetryClass::Permanent),
        };
        ErrorInfo::new(code, class, self.to_string())
    }
}

impl From<StoreError> for QueueError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<sqlx::Error> for QueueError {
    fn from(error: sqlx::Error) -> Self {
        Self::from(StoreError::from(error))
    }
}

/// A set of named queues with peek-lock semantics.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Sends messages, all or none.
    async fn send(&self, queue: &str, messages: &[OutgoingMessage]) -> Result<(), QueueError>;
    /// Locks up to `max` messages; waits up to `wait` for the first.
    async fn receive(
        &self,
        queue: &str,
        max: u32,
        wait: Duration,
    ) -> Result<Vec<ReceivedMessage>, QueueError>;
    /// Removes a message that was dealt with.
    async fn complete(&self, queue: &str, receipt: &Receipt) -> Result<(), QueueError>;
    /// Unlocks a message for the next receiver.
    async fn abandon(&self, queue: &str, receipt: &Receipt) -> Result<(), QueueError>;
    /// Sets a message aside with a reason.
    async fn dead_letter(
        &self,
        queue: &str,
        receipt: &Receipt,
        reason: &str,
        detail: &str,
    ) -> Result<(), QueueError>;
    /// Extends the lock by its full length; answers how long it holds.
    async fn renew(&self, queue: &str, receipt: &Receipt) -> Result<Duration, QueueError>;
    /// Counts messages.
    async fn depth(&self, queue: &str) -> Result<Depth, QueueError>;
    /// Messages that were set aside, oldest first.
    async fn dead_letters(&self, queue: &str, max: u32) -> Result<Vec<DeadLetter>, QueueError>;
    /// Puts up to `max` messages that were set aside back into the queue, oldest first; answers how many.
    async fn redrive(&self, queue: &str, max: u32) -> Result<u32, QueueError>;
}
