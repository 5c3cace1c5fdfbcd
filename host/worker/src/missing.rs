//! Work whose type no plugin here offers. Its message comes again after a while; a reload calls it at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use geoworker_queue::{OutgoingMessage, QueueError, ReceivedMessage};
use tokio_util::sync::CancellationToken;

use crate::platform::Platform;
use crate::settings::millis;

/// Messages that are remembered at most; the others come when their time has come.
const REMEMBERED: usize = 10_000;
/// A message that is due within this time may be the one that is looked at.
const MARGIN: Duration = Duration::from_secs(1);

/// Messages that were put off, by queue and body, with the time when they come again.
#[derive(Debug, Default)]
pub(crate) struct Missing(Mutex<HashMap<(String, String), Instant>>);

impl Missing {
    /// Remembers a message that is put off for `delay`. False where another copy of it is put off already: one is enough,
    /// or each reload would add one.
    fn remember(&self, queue: &str, body: &str, delay: Duration) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, now) = ((queue.to_owned(), body.to_owned()), Instant::now());
        if known.get(&key).is_some_and(|due| *due > now + MARGIN) {
            return false;
        }
        if known.len() >= REMEMBERED {
            known.retain(|_, due| *due > now);
        }
        if known.len() < REMEMBERED {
            known.insert(key, now + delay);
        }
        true
    }

    fn forget(&self, queue: &str, body: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&(queue.to_owned(), body.to_owned()));
    }

    /// Messages that are put off now, by queue.
    fn waiting(&self) -> HashMap<String, Vec<OutgoingMessage>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        known.retain(|_, due| *due > now);
        let mut queues: HashMap<String, Vec<OutgoingMessage>> = HashMap::new();
        for (queue, body) in known.keys() {
            let message = OutgoingMessage { body: body.clone(), delay_ms: 0 };
            queues.entry(queue.clone()).or_default().push(message);
        }
        queues
    }
}

impl Platform {
    /// Lets a message come again later, and once more with the next generation. A copy of one that does is dropped.
    pub(crate) async fn put_off(&self, queue: &str, message: &ReceivedMessage) -> Result<(), QueueError> {
        let delay = self.settings.sweep;
        if !self.missing.remember(queue, &message.body, delay) {
            return self.queue.complete(queue, &message.receipt).await;
        }
        let sent = self.send_later(queue, message, millis(delay)).await;
        if sent.is_err() {
            // It was not sent, or comes twice; neither copy may be dropped.
            self.missing.forget(queue, &message.body);
        }
        sent
    }
}

/// Sends what was put off once more with each new generation, until `stop`. What is still missing is dropped then, since its
/// first copy comes in its time.
pub(crate) async fn recall(platform: Platform, stop: CancellationToken) {
    let mut generations = platform.plugins.generations();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // The platform holds the sender.
            _ = generations.changed() => {}
        }
        for (queue, messages) in platform.missing.waiting() {
            match platform.queue.send(&queue, &messages).await {
                Ok(()) => tracing::info!(
                    queue,
                    messages = messages.len(),
                    "work that waited for a plugin is looked at"
                ),
                Err(error) => {
                    tracing::warn!(queue, %error, "work that waited for a plugin comes in its time");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(30);

    #[test]
    fn one_copy_of_a_message_is_put_off_and_called() {
        let missing = Missing::default();
        assert!(missing.remember("q", "a", DELAY), "the first");
        assert!(!missing.remember("q", "a", DELAY), "its copy, which a reload called");
        assert!(missing.remember("r", "a", DELAY), "of another queue");
        let waiting = missing.waiting();
        assert_eq!((waiting["q"].len(), waiting["r"].len()), (1, 1));
        assert!(!missing.remember("q", "a", DELAY), "called, and still put off");
    }

    #[test]
    fn a_message_whose_time_has_come_is_put_off_again() {
        let missing = Missing::default();
        assert!(missing.remember("q", "a", Duration::ZERO));
        assert!(missing.waiting().is_empty());
        assert!(missing.remember("q", "a", DELAY));
        assert_eq!(missing.waiting()["q"].len(), 1);
    }
}
