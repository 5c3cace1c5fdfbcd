//! Queues of Azure Service Bus.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use geoworker_servicebus::{
    Client, Lock, LockedMessage, OutgoingMessage as Outgoing, ServiceBusError, dead_letters,
};

use crate::queue::{DeadLetter, Depth, OutgoingMessage, Queue, QueueError, Receipt, ReceivedMessage};

/// Messages that are looked at to tell the depth of a queue; of more, this many are counted.
const DEEPEST: u32 = 5000;
/// Dead letters that are counted; of more, this many.
const MOST_DEAD: u32 = 250;

/// Taken for the lock where the broker does not tell its end: soon renewed, which tells it.
const UNTOLD: Duration = Duration::from_secs(5);

/// [`Queue`] on a Service Bus namespace. The queues themselves, the length of their locks and how often they deliver
/// are set up in the namespace.
///
/// What differs from other queues: messages that are sent together may arrive in part if they are larger than one
/// delivery; [`Depth::active`] counts locked messages too, because the service does not tell them apart; times are of
/// this machine's clock when they are sent.
#[derive(Debug, Clone)]
pub struct ServiceBusQueue {
    client: Client,
}

impl ServiceBusQueue {
    /// Queues of a client's namespace.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl Queue for ServiceBusQueue {
    async fn send(&self, queue: &str, messages: &[OutgoingMessage]) -> Result<(), QueueError> {
        let messages: Vec<Outgoing> = messages.iter().map(outgoing).collect();
        Ok(self.client.send(queue, &messages).await?)
    }

    async fn receive(
        &self,
        queue: &str,
        max: u32,
        wait: Duration,
    ) -> Result<Vec<ReceivedMessage>, QueueError> {
        Ok(self.client.receive(queue, max, wait).await?.into_iter().map(received).collect())
    }

    async fn complete(&self, queue: &str, receipt: &Receipt) -> Result<(), QueueError> {
        Ok(self.client.complete(queue, lock(receipt)?).await?)
    }

    async fn abandon(&self, queue: &str, receipt: &Receipt) -> Result<(), QueueError> {
        Ok(self.client.abandon(queue, lock(receipt)?).await?)
    }

    async fn dead_letter(
        &self,
        queue: &str,
        receipt: &Receipt,
        reason: &str,
        detail: &str,
    ) -> Result<(), QueueError> {
        Ok(self.client.dead_letter(queue, lock(receipt)?, reason, detail).await?)
    }

    async fn renew(&self, queue: &str, receipt: &Receipt) -> Result<Duration, QueueError> {
        Ok(left(self.client.renew(queue, lock(receipt)?).await?))
    }

    async fn depth(&self, queue: &str) -> Result<Depth, QueueError> {
        let letters = dead_letters(queue);
        let (counts, dead) =
            tokio::try_join!(self.client.counts(queue, DEEPEST), self.client.counts(&letters, MOST_DEAD))?;
        Ok(Depth {
            active: counts.active,
            at_least: !counts.exact,
            active_is_locked: true,
            scheduled: counts.scheduled,
            dead: dead.active,
            ..Depth::default()
        })
    }

    async fn dead_letters(&self, queue: &str, max: u32) -> Result<Vec<DeadLetter>, QueueError> {
        let letters = self.client.peek(&dead_letters(queue), 0, max).await?;
        let letter = |message: geoworker_servicebus::QueueMessage| DeadLetter {
            sequence: message.sequence,
            body: text(&message.body),
            reason: message.dead_letter_reason.unwrap_or_default(),
            detail: message.dead_letter_description.unwrap_or_default(),
        };
        Ok(letters.into_iter().map(letter).collect())
    }

    async fn redrive(&self, queue: &str, max: u32) -> Result<u32, QueueError> {
        Ok(self.client.redrive(queue, max).await?)
    }
}

impl From<ServiceBusError> for QueueError {
    fn from(error: ServiceBusError) -> Self {
        match error {
            ServiceBusError::LockLost => Self::LockLost,
            ServiceBusError::NotFound(what) => Self::NotFound(what),
            ServiceBusError::Unauthorized(detail) => Self::Denied(detail),
            ServiceBusError::TooLarge { size, limit } => {
                Self::TooLarge(format!("{size} bytes, where the queue takes {limit}"))
            }
            other => Self::Unavailable(other.to_string()),
        }
    }
}

fn outgoing(message: &OutgoingMessage) -> Outgoing {
    let delay = u64::try_from(message.delay_ms).unwrap_or_default();
    let scheduled_for = (delay > 0).then(|| SystemTime::now() + Duration::from_millis(delay));
    Outgoing { scheduled_for, ..Outgoing::json(message.body.clone()) }
}

fn received(message: LockedMessage) -> ReceivedMessage {
    let Lock { sequence, token } = message.lock;
    ReceivedMessage {
        receipt: Receipt { sequence, token: token.to_string() },
        body: text(&message.message.body),
        delivery_count: message.message.delivery_count,
        locked_for: message.locked_until.map_or(UNTOLD, left),
    }
}

/// Time to the end of a lock. That is by the broker's clock: the difference of the clocks is in it.
fn left(until: SystemTime) -> Duration {
    until.duration_since(SystemTime::now()).unwrap_or_default()
}

/// A receipt of another kind of queue locks nothing here.
fn lock(receipt: &Receipt) -> Result<Lock, QueueError> {
    let token = receipt.token.parse().map_err(|_| QueueError::LockLost)?;
    Ok(Lock { sequence: receipt.sequence, token })
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

#[cfg(test)]
mod tests {
    use geoworker_servicebus::{PlainHosts, Settings};
    use geoworker_servicebus_emulator::{Emulator, Settings as Broker, queue::Rules};

    use super::*;
    use crate::settings::QueueSettings;

    #[tokio::test]
    async fn the_service_bus_queue_conforms() {
        let settings = QueueSettings { lock: Duration::from_millis(1500), max_deliveries: 3 };
        let defaults =
            Rules { lock: settings.lock, max_deliveries: settings.max_deliveries, ..Rules::default() };
        let emulator = Emulator::start(Broker { defaults, ..Broker::default() }).await.expect("starts");
        let queue = || {
            let settings =
                Settings::from_connection_string(&emulator.connection_string(), PlainHosts::Loopback);
            ServiceBusQueue::new(Client::new(settings.expect("reads")))
        };
        crate::conformance::run(&queue(), &queue(), settings).await;
    }

    #[tokio::test]
    async fn a_receipt_of_another_queue_locks_nothing() {
        let foreign = Receipt { sequence: 1, token: "1-1".into() };
        assert!(matches!(lock(&foreign), Err(QueueError::LockLost)));
    }
}
