//! Sending: one link for each queue, deliveries one after the other without waiting for the broker's answers.

use std::time::Duration;

use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::messaging::{Batch, Data, Message, Outcome};
use fe2o3_amqp::{Sendable, Sender};
use tokio::sync::Mutex;
use tokio::time::timeout;
use uuid::Uuid;

use crate::error::{Failure, ServiceBusError};

/// Format of a delivery whose data sections are messages.
const BATCH_FORMAT: u32 = 0x8001_3700;
/// Time between two looks at whether the link is still there.
const LOOK: Duration = Duration::from_millis(250);
/// Descriptor and length before a data section.
const SECTION_HEADER: usize = 8;

/// A link that sends to a queue.
#[derive(Debug)]
pub(crate) struct QueueSender {
    link: Mutex<Sender>,
    /// Largest delivery, bytes; `None` is without a limit.
    limit: Option<usize>,
}

impl QueueSender {
    pub(crate) async fn attach(session: &mut SessionHandle<()>, queue: &str) -> Result<Self, Failure> {
        let name = format!("send-{}", Uuid::new_v4().simple());
        let link = Sender::builder().name(name.clone()).source(name).target(queue).attach(session).await?;
        let limit = link.max_message_size().map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Self { link: Mutex::new(link), limit })
    }

    /// Largest delivery, bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(usize::MAX)
    }

    /// Sends encoded messages as one delivery, all or none, and waits until the broker has it.
    pub(crate) async fn send(&self, messages: &[Vec<u8>]) -> Result<(), Failure> {
        let sections = messages.iter().map(|message| Data(message.clone().into()));
        let batch = Message::builder().body(Batch::new(sections.collect::<Vec<_>>())).build();
        let batch = Sendable::builder().message(batch).message_format(BATCH_FORMAT).build();
        let mut outcome = self.link.lock().await.send_batchable(batch).await?;
        // The outcome of a delivery does not tell when the link went away.
        let outcome = loop {
            match timeout(LOOK, &mut outcome).await {
                Ok(outcome) => break outcome?,
                Err(_) => self.check_attached().await?,
            }
        };
        match outcome {
            Outcome::Accepted(_) => Ok(()),
            Outcome::Rejected(rejected) => Err(match &rejected.error {
                Some(error) => Failure::from(error),
                None => Failure::Final(ServiceBusError::Refused("the message was rejected".into())),
            }),
            other => Err(Failure::Busy(format!("the message was not accepted: {other:?}"))),
        }
    }

    async fn check_attached(&self) -> Result<(), Failure> {
        let mut link = self.link.lock().await;
        match timeout(Duration::ZERO, link.on_detach()).await {
            Ok(detached) => Err(Failure::from(detached)),
            Err(_) => Ok(()),
        }
    }
}

/// Splits encoded messages into deliveries of at most `limit` bytes, in their order.
pub(crate) fn split(messages: &[Vec<u8>], limit: usize) -> Result<Vec<&[Vec<u8>]>, ServiceBusError> {
    let mut batches = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, message) in messages.iter().enumerate() {
        let own = message.len() + SECTION_HEADER;
        if own > limit {
            return Err(ServiceBusError::TooLarge { size: message.len(), limit });
        }
        if size + own > limit {
            batches.push(&messages[start..index]);
            (start, size) = (index, 0);
        }
        size += own;
    }
    if start < messages.len() {
        batches.push(&messages[start..]);
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(lengths: &[usize], limit: usize) -> Result<Vec<usize>, ServiceBusError> {
        let messages: Vec<Vec<u8>> = lengths.iter().map(|length| vec![0; *length]).collect();
        Ok(split(&messages, limit)?.iter().map(|batch| batch.len()).collect())
    }

    #[test]
    fn batches_stay_below_the_limit() {
        assert_eq!(sizes(&[], 100), Ok(vec![]));
        assert_eq!(sizes(&[42, 42], 100), Ok(vec![2]));
        assert_eq!(sizes(&[42, 43, 10], 100), Ok(vec![1, 2]));
        assert_eq!(sizes(&[92, 92, 1], 100), Ok(vec![1, 1, 1]));
    }

    #[test]
    fn a_message_that_is_too_large_is_refused_before_anything_is_sent() {
        assert_eq!(sizes(&[10, 93], 100), Err(ServiceBusError::TooLarge { size: 93, limit: 100 }));
    }
}
