//! Queues in memory with peek-lock semantics, which lose, double, delay and reorder messages.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use geoworker_queue::{DeadLetter, Depth, OutgoingMessage, Queue, QueueError, Receipt, ReceivedMessage};
use tokio::time::Instant;

use crate::world::{Message, Process, World};

/// How often a waiting receiver looks.
const LOOK: Duration = Duration::from_millis(250);
/// Deliveries after which a message is set aside.
const MAX_DELIVERIES: u32 = 10;

/// The queues as one process reaches them.
#[derive(Debug, Clone)]
pub(crate) struct SimQueue {
    pub(crate) world: Arc<World>,
    pub(crate) process: Process,
}

fn unavailable() -> QueueError {
    QueueError::Unavailable("the simulated broker does not answer".into())
}

impl SimQueue {
    fn take(&self, queue: &str, max: u32) -> Vec<ReceivedMessage> {
        let now = self.world.now();
        let lock = i64::try_from(self.world.lease.as_millis()).unwrap_or(i64::MAX);
        let mut tables = self.world.lock();
        let mut ready: Vec<usize> = (0..tables.messages.len())
            .filter(|index| {
                let message = &tables.messages[*index];
                message.queue == queue && !message.dead && message.visible_at <= now
            })
            .collect();
        let mut taken = Vec::new();
        while taken.len() < max as usize && !ready.is_empty() {
            // Any of them: the order of messages means nothing.
            let last = u64::try_from(ready.len() - 1).unwrap_or(0);
            let pick = usize::try_from(tables.dice.between(0, last)).unwrap_or(0);
            let message = &mut tables.messages[ready.swap_remove(pick)];
            message.deliveries += 1;
            if message.deliveries > MAX_DELIVERIES {
                message.dead = true;
                continue;
            }
            let token = format!("{}-{}", message.sequence, message.deliveries);
            (message.visible_at, message.token) = (now + lock, Some(token.clone()));
            taken.push(ReceivedMessage {
                receipt: Receipt { sequence: message.sequence, token },
                body: message.body.clone(),
                delivery_count: message.deliveries,
                locked_for: self.world.lease,
            });
        }
        taken
    }

    async fn settle(
        &self,
        name: &str,
        receipt: &Receipt,
        change: impl FnOnce(&mut Message, i64),
    ) -> Result<(), QueueError> {
        let act = |world: &World| {
            let now = world.now();
            let mut tables = world.lock();
            let held = tables.messages.iter_mut().find(|message| {
                message.sequence == receipt.sequence && message.token.as_ref() == Some(&receipt.token)
            });
            match held.filter(|message| message.visible_at > now && !message.dead) {
                Some(message) => change(message, now),
                None => return Err(QueueError::LockLost),
            }
            tables.messages.retain(|message| message.visible_at >= 0);
            Ok(())
        };
        self.world.statement(self.process, name, act).await.ok_or_else(unavailable)?
    }
}

#[async_trait]
impl Queue for SimQueue {
    async fn send(&self, queue: &str, messages: &[OutgoingMessage]) -> Result<(), QueueError> {
        let act = |world: &World| {
            for message in messages {
                let copies = 1 + i32::from(world.double_message());
                for _ in 0..copies {
                    if world.drop_message() {
                        continue;
                    }
                    let visible_at = world.now() + message.delay_ms.max(0) + world.lateness();
                    let mut tables = world.lock();
                    tables.counter += 1;
                    let sequence = tables.counter;
                    tables.messages.push(Message {
                        sequence,
                        queue: queue.to_owned(),
                        body: message.body.clone(),
                        visible_at,
                        token: None,
                        deliveries: 0,
                        dead: false,
                    });
                }
            }
        };
        self.world.statement(self.process, "send", act).await.ok_or_else(unavailable)
    }

    async fn receive(
        &self,
        queue: &str,
        max: u32,
        wait: Duration,
    ) -> Result<Vec<ReceivedMessage>, QueueError> {
        let until = Instant::now() + wait;
        loop {
            let messages = self.world.statement(self.process, "receive", |_| self.take(queue, max)).await;
            let messages = messages.ok_or_else(unavailable)?;
            if !messages.is_empty() || Instant::now() >= until {
                return Ok(messages);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn complete(&self, _: &str, receipt: &Receipt) -> Result<(), QueueError> {
        // Removed after it was found: times are never negative.
        self.settle("complete", receipt, |message, _| message.visible_at = -1).await
    }

    async fn abandon(&self, _: &str, receipt: &Receipt) -> Result<(), QueueError> {
        self.settle("abandon", receipt, |message, now| (message.token, message.visible_at) = (None, now))
            .await
    }

    async fn dead_letter(&self, _: &str, receipt: &Receipt, _: &str, _: &str) -> Result<(), QueueError> {
        self.settle("dead_letter", receipt, |message, _| message.dead = true).await
    }

    async fn renew(&self, _: &str, receipt: &Receipt) -> Result<Duration, QueueError> {
        let lock = i64::try_from(self.world.lease.as_millis()).unwrap_or(i64::MAX);
        self.settle("renew_lock", receipt, |message, now| message.visible_at = now + lock).await?;
        Ok(self.world.lease)
    }

    async fn depth(&self, queue: &str) -> Result<Depth, QueueError> {
        let now = self.world.now();
        let tables = self.world.lock();
        let of_queue = tables.messages.iter().filter(|message| message.queue == queue && !message.dead);
        let (locked, free): (Vec<_>, Vec<_>) =
            of_queue.partition(|message| message.token.is_some() && message.visible_at > now);
        Ok(Depth { active: free.len() as u64, locked: locked.len() as u64, ..Depth::default() })
    }

    async fn dead_letters(&self, _: &str, _: u32) -> Result<Vec<DeadLetter>, QueueError> {
        Ok(Vec::new())
    }

    async fn redrive(&self, _: &str, _: u32) -> Result<u32, QueueError> {
        Ok(0)
    }
}
