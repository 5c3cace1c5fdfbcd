//! Settling messages, and the jobs queue.

use geoworker_machine::messages::JobsQueueMessage;
use geoworker_machine::{ErrorInfo, RetryClass, codes};
use geoworker_queue::{OutgoingMessage, QueueError, ReceivedMessage};

use crate::core::is_missing_plugin;
use crate::platform::Platform;

/// What becomes of a message (R15).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Dealt with.
    Complete,
    /// For the next receiver, at once.
    Abandon,
    /// Dealt with for now; a new message follows after this many milliseconds.
    Later(i64),
    /// No plugin here offers its type: as `Later`, and looked at again with the next generation of plugins.
    NoPlugin,
    /// Set aside.
    Dead {
        /// Code.
        reason: String,
        /// One sentence.
        detail: String,
    },
}

impl Settlement {
    pub(crate) fn dead(reason: &str, detail: &str) -> Self {
        Self::Dead { reason: reason.to_owned(), detail: detail.to_owned() }
    }
}

/// Deals with a message of the jobs queue.
pub(crate) async fn on_jobs_message(
    platform: &Platform,
    message: &ReceivedMessage,
) -> Result<Settlement, ErrorInfo> {
    let (job, finished) = match JobsQueueMessage::parse(&message.body) {
        Ok(JobsQueueMessage::Job(job)) => (job.job_id, job.stage.saturating_sub(1)),
        Ok(JobsQueueMessage::StageComplete(done)) => (done.job_id, done.completed_stage),
        Err(error) => return Ok(Settlement::dead(codes::MESSAGE_INVALID, &error.to_string())),
    };
    match platform.advance(&job, finished).await {
        Ok(()) => Ok(Settlement::Complete),
        Err(error) if is_missing_plugin(&error) => {
            tracing::warn!(job_id = %job, code = error.code, "the job waits: {}", error.message);
            Ok(Settlement::NoPlugin)
        }
        Err(error) if error.class == RetryClass::Permanent => {
            Ok(Settlement::dead(&error.code, &error.message))
        }
        Err(error) => Err(error),
    }
}

impl Platform {
    /// Settles a message. A lost lock is no failure: the message comes again and the row says what to do.
    pub(crate) async fn settle(&self, queue: &str, message: &ReceivedMessage, settlement: Settlement) {
        let receipt = &message.receipt;
        let settled = match settlement {
            Settlement::Complete => self.queue.complete(queue, receipt).await,
            Settlement::Abandon => self.queue.abandon(queue, receipt).await,
            Settlement::Dead { reason, detail } => {
                self.queue.dead_letter(queue, receipt, &reason, &detail).await
            }
            Settlement::Later(ms) => self.send_later(queue, message, ms).await,
            Settlement::NoPlugin => self.put_off(queue, message).await,
        };
        match settled {
            Ok(()) => {}
            Err(QueueError::LockLost) => {
                tracing::debug!(queue, "the message's lock was lost before it was settled");
            }
            Err(error) => {
                tracing::warn!(queue, %error, "the message could not be settled; it will come again");
            }
        }
    }

    pub(crate) async fn send_later(
        &self,
        queue: &str,
        message: &ReceivedMessage,
        ms: i64,
    ) -> Result<(), QueueError> {
        self.queue.send(queue, &[OutgoingMessage { body: message.body.clone(), delay_ms: ms }]).await?;
        self.queue.complete(queue, &message.receipt).await
    }
}
