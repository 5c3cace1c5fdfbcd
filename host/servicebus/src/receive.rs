//! Receiving: a link that lives for one call. The messages stay locked after it is gone, and are settled through the
//! management node, which a broker only likes once the link no longer holds them.

use std::time::Duration;

use fe2o3_amqp::Receiver;
use fe2o3_amqp::link::receiver::CreditMode;
use fe2o3_amqp::types::definitions::{ReceiverSettleMode, SenderSettleMode};
use fe2o3_amqp::types::messaging::Body;
use fe2o3_amqp::types::primitives::Value;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::connection::Connection;
use crate::error::Failure;
use crate::message::LockedMessage;

/// Time to close a link, after which it is left to itself.
const CLOSE: Duration = Duration::from_secs(5);
/// A message that was on its way when the credit was taken back comes within this time, or several round trips.
const ON_ITS_WAY: Duration = Duration::from_millis(100);
/// An attachment may have waited for a token or for others: its time says little then.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);
/// Round trips to wait for it.
const ROUND_TRIPS: u32 = 4;

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Most messages.
    pub(crate) max: u32,
    /// End of the wait for the first one.
    pub(crate) until: Instant,
    /// Longest time for the broker to answer.
    pub(crate) answer_time: Duration,
}

/// Locks messages of a queue: those that are there by `until`, or when `given_up` is cancelled.
pub(crate) async fn fetch(
    connection: &Connection,
    entity: &str,
    wanted: Wanted,
    given_up: &CancellationToken,
) -> Result<Vec<LockedMessage>, Failure> {
    if given_up.is_cancelled() {
        return Ok(Vec::new());
    }
    let late = |_| Failure::Transport("the broker did not answer".into());
    let begin = Instant::now();
    let mut receiver = timeout(wanted.answer_time, attach(connection, entity)).await.map_err(late)??;
    let settled_after = ((Instant::now() - begin) * ROUND_TRIPS).clamp(ON_ITS_WAY, LONGEST_SILENCE);
    receiver.set_credit(wanted.max).await?;
    let first = tokio::select! {
        first = timeout_at(wanted.until, next(&mut receiver)) => first.ok().transpose()?,
        () = given_up.cancelled() => None,
    };
    let mut messages: Vec<_> = first.into_iter().collect();
    if let Err(failure) = take_rest(&mut receiver, wanted.max, settled_after, &mut messages).await {
        if messages.is_empty() {
            return Err(failure);
        }
        // What is here is locked. The next operation finds the connection broken.
        tracing::debug!(entity, ?failure, "the link broke after messages had come");
        return Ok(messages);
    }
    // They are locked with or without a farewell.
    let _ = timeout(CLOSE, receiver.close()).await;
    Ok(messages)
}

async fn attach(connection: &Connection, entity: &str) -> Result<Receiver, Failure> {
    let name = format!("receive-{}", Uuid::new_v4().simple());
    let mut session = connection.session(entity).await?;
    let receiver = Receiver::builder()
        .name(name.clone())
        .source(entity)
        .target(name)
        .sender_settle_mode(SenderSettleMode::Unsettled)
        .receiver_settle_mode(ReceiverSettleMode::Second)
        .credit_mode(CreditMode::Manual)
        .attach(&mut session)
        .await?;
    Ok(receiver)
}

async fn next(receiver: &mut Receiver) -> Result<LockedMessage, Failure> {
    let delivery = receiver.recv::<Body<Value>>().await?;
    let tag = delivery.delivery_tag().to_vec();
    LockedMessage::new(&tag, delivery.into_message())
}

/// Takes the credit back, and with it what the broker has at hand. The AMQP library does not tell when the broker has
/// answered, so that the end is silence.
async fn take_rest(
    receiver: &mut Receiver,
    max: u32,
    silence: Duration,
    messages: &mut Vec<LockedMessage>,
) -> Result<(), Failure> {
    let missing = |messages: &Vec<LockedMessage>| messages.len() < max as usize;
    if missing(messages) {
        receiver.drain().await?;
    }
    while missing(messages) {
        match timeout(silence, next(receiver)).await {
            Ok(message) => messages.push(message?),
            Err(_) => break,
        }
    }
    Ok(())
}
