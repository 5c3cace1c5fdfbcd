//! The client: what can be done with the queues of a namespace.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attempts::Attempts;
use crate::connection::Connection;
use crate::error::ServiceBusError;
use crate::held::Held;
use crate::management::{self, Settlement};
use crate::message::{Lock, LockedMessage, MessageState, OutgoingMessage, QueueMessage};
use crate::receive::{self, Wanted};
use crate::send;
use crate::settings::Settings;

/// Path of a queue's dead letters below it.
const DEAD_LETTERS: &str = "$DeadLetterQueue";
/// Messages of one look. The service's limit is 250, but the answer must not be larger than a message may be.
const PEEK: u32 = 100;

/// A client of all queues of a namespace. Clones share one connection, which is opened when it is needed.
#[derive(Debug, Clone)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    attempts: Attempts,
    max_batch: usize,
    tasks: TaskTracker,
}

/// How many messages a queue holds, as far as was looked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready, or locked by a receiver: the broker does not tell these apart.
    pub active: u64,
    /// Due later.
    pub scheduled: u64,
    /// To be asked for by their sequence number.
    pub deferred: u64,
    /// False if there are more than were looked at.
    pub exact: bool,
}

impl Client {
    /// A client; nothing is connected yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let max_batch = settings.max_batch;
        Self(Arc::new(Shared { attempts: Attempts::new(settings), max_batch, tasks: TaskTracker::new() }))
    }

    /// Sends messages, in their order, in as few deliveries as the queue's limit allows. One delivery arrives as a
    /// whole or not at all; of several, the first may have arrived when this fails. A delivery whose confirmation was
    /// lost is repeated with the same message ids.
    ///
    /// # Errors
    ///
    /// `TooLarge` if one message alone is too large; then nothing is sent.
    pub async fn send(&self, queue: &str, messages: &[OutgoingMessage]) -> Result<(), ServiceBusError> {
        let encoded = messages.iter().map(OutgoingMessage::encode).collect::<Result<Vec<_>, _>>()?;
        if encoded.is_empty() {
            return Ok(());
        }
        let limit = self
            .0
            .attempts
            .ask(|connection| async move { Ok(connection.sender(queue).await?.limit()) })
            .await?;
        for batch in send::split(&encoded, limit.min(self.0.max_batch))? {
            self.0
                .attempts
                .ask(|connection| async move { connection.sender(queue).await?.send(batch).await })
                .await?;
        }
        Ok(())
    }

    /// Schedules messages that can be cancelled; their sequence numbers. An answer that is lost leads to a second
    /// schedule with the same message id.
    ///
    /// # Errors
    ///
    /// See [`ServiceBusError`].
    pub async fn schedule(
        &self,
        queue: &str,
        messages: &[OutgoingMessage],
    ) -> Result<Vec<i64>, ServiceBusError> {
        let encoded = messages.iter().map(OutgoingMessage::encode).collect::<Result<Vec<_>, _>>()?;
        let entries: Vec<_> = messages.iter().zip(&encoded).collect();
        let entries = entries.as_slice();
        self.0
            .attempts
            .ask(|connection| async move {
                management::schedule(&*connection.management(queue).await?, entries).await
            })
            .await
    }

    /// Takes scheduled messages back.
    ///
    /// # Errors
    ///
    /// `NotFound` if one is no longer scheduled.
    pub async fn cancel(&self, queue: &str, sequences: &[i64]) -> Result<(), ServiceBusError> {
        self.0
            .attempts
            .ask(|connection| async move {
                management::cancel(&*connection.management(queue).await?, sequences).await
            })
            .await
    }

    /// Locks up to `max` messages; waits up to `wait` for the first. If the caller stops waiting, messages that come
    /// nevertheless are given back in the background.
    ///
    /// # Errors
    ///
    /// See [`ServiceBusError`].
    pub async fn receive(
        &self,
        queue: &str,
        max: u32,
        wait: Duration,
    ) -> Result<Vec<LockedMessage>, ServiceBusError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let given_up = CancellationToken::new();
        let _until_dropped = given_up.clone().drop_guard();
        let (sender, receiver) = oneshot::channel();
        let (client, queue) = (self.clone(), queue.to_owned());
        self.0.tasks.spawn(async move {
            let fetched = client.fetch(&queue, max, wait, &given_up).await;
            // If nobody takes them any more, the messages are given back as they are dropped.
            let _ = sender.send(fetched.map(|messages| Held::new(client, queue, messages)));
        });
        match receiver.await {
            Ok(held) => Ok(held?.take()),
            Err(_) => Err(ServiceBusError::Unavailable("the client is shut down".into())),
        }
    }

    async fn fetch(
        &self,
        queue: &str,
        max: u32,
        wait: Duration,
        given_up: &CancellationToken,
    ) -> Result<Vec<LockedMessage>, ServiceBusError> {
        let wanted = Wanted { max, until: Instant::now() + wait, answer_time: self.0.attempts.answer_time() };
        let fetch =
            async |connection: Arc<Connection>| receive::fetch(&connection, queue, wanted, given_up).await;
        self.0.attempts.run(wait, fetch).await
    }

    /// Removes a message that was dealt with. The broker has confirmed it when this returns.
    ///
    /// # Errors
    ///
    /// `LockLost` if the lock ended; see there for what it may mean after a broken connection.
    pub async fn complete(&self, queue: &str, lock: Lock) -> Result<(), ServiceBusError> {
        self.settle(queue, lock, Settlement::Complete).await
    }

    /// Unlocks a message for the next receiver.
    ///
    /// # Errors
    ///
    /// `LockLost` if the lock ended.
    pub async fn abandon(&self, queue: &str, lock: Lock) -> Result<(), ServiceBusError> {
        self.settle(queue, lock, Settlement::Abandon).await
    }

    /// Sets a message aside, with a code and words that say why.
    ///
    /// # Errors
    ///
    /// `LockLost` if the lock ended.
    pub async fn dead_letter(
        &self,
        queue: &str,
        lock: Lock,
        reason: &str,
        description: &str,
    ) -> Result<(), ServiceBusError> {
        self.settle(queue, lock, Settlement::DeadLetter { reason, description }).await
    }

    async fn settle(&self, queue: &str, lock: Lock, how: Settlement<'_>) -> Result<(), ServiceBusError> {
        self.0
            .attempts
            .ask(|connection| async move {
                management::settle(&*connection.management(queue).await?, lock.token, how).await
            })
            .await
    }

    /// Extends a lock by its full length; its new end, by the broker's clock.
    ///
    /// # Errors
    ///
    /// `LockLost` if the lock ended.
    pub async fn renew(&self, queue: &str, lock: Lock) -> Result<SystemTime, ServiceBusError> {
        self.0
            .attempts
            .ask(|connection| async move {
                management::renew(&*connection.management(queue).await?, lock.token).await
            })
            .await
    }

    /// Looks at up to `max` messages from a sequence number on, without locking them. Locked and scheduled ones are
    /// seen too.
    ///
    /// # Errors
    ///
    /// See [`ServiceBusError`].
    pub async fn peek(&self, queue: &str, from: i64, max: u32) -> Result<Vec<QueueMessage>, ServiceBusError> {
        let (mut seen, mut from) = (Vec::new(), from);
        loop {
            let missing = max.saturating_sub(u32::try_from(seen.len()).unwrap_or(u32::MAX)).min(PEEK);
            if missing == 0 {
                return Ok(seen);
            }
            let page = self
                .0
                .attempts
                .ask(|connection| async move {
                    management::peek(&*connection.management(queue).await?, from, missing).await
                })
                .await?;
            let Some(last) = page.last() else { return Ok(seen) };
            from = last.sequence.saturating_add(1);
            seen.extend(page);
        }
    }

    /// Counts messages by looking at up to `limit` of them. The service tells counts only over HTTPS.
    ///
    /// # Errors
    ///
    /// See [`ServiceBusError`].
    pub async fn counts(&self, queue: &str, limit: u32) -> Result<Counts, ServiceBusError> {
        let seen = self.peek(queue, 0, limit.saturating_add(1)).await?;
        let exact = seen.len() <= limit as usize;
        let count =
            |state| seen.iter().take(limit as usize).filter(|message| message.state == state).count() as u64;
        Ok(Counts {
            active: count(MessageState::Active),
            scheduled: count(MessageState::Scheduled),
            deferred: count(MessageState::Deferred),
            exact,
        })
    }

    /// Moves up to `max` dead letters back to their queue, oldest first; how many. Each is sent before its dead
    /// letter is removed, so that a failure in between leaves both.
    ///
    /// # Errors
    ///
    /// See [`ServiceBusError`].
    pub async fn redrive(&self, queue: &str, max: u32) -> Result<u32, ServiceBusError> {
        let letters = dead_letters(queue);
        let mut moved = 0;
        while moved < max {
            let Some(letter) = self.receive(&letters, 1, Duration::ZERO).await?.pop() else { break };
            let sent = self.send(queue, &[letter.message.to_send_again()]).await;
            if sent.is_err() {
                // It comes back with the end of its lock at the latest.
                let _ = self.abandon(&letters, letter.lock).await;
            }
            sent?;
            self.complete(&letters, letter.lock).await?;
            moved += 1;
        }
        Ok(moved)
    }

    /// Receivers, and messages that are given back.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// Waits until messages that nobody took were given back, and closes the connection.
    pub async fn close(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.attempts.close().await;
    }
}

/// Path of the dead letters of a queue, which are received and looked at as messages are.
#[must_use]
pub fn dead_letters(queue: &str) -> String {
    format!("{queue}/{DEAD_LETTERS}")
}
