//! Requests to a queue's management node: settlement by lock token, schedules, a look at messages.

use std::time::SystemTime;

use fe2o3_amqp::types::primitives::{Array, OrderedMap, SimpleValue, Value};
use serde_bytes::ByteBuf;
use uuid::Uuid;

use crate::error::{Failure, ServiceBusError};
use crate::message::{OutgoingMessage, QueueMessage, time};
use crate::requests::{Answer, Requests};

/// Time that the broker gives itself, milliseconds.
const SERVER_TIMEOUT: u32 = 10_000;

/// How to settle a locked message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Settlement<'a> {
    Complete,
    Abandon,
    DeadLetter { reason: &'a str, description: &'a str },
}

/// Settles a message; the broker has confirmed it when this returns.
pub(crate) async fn settle(queue: &Requests, token: Uuid, how: Settlement<'_>) -> Result<(), Failure> {
    let mut fields = vec![tokens(token)];
    match how {
        Settlement::Complete => fields.push(("disposition-status", text("completed"))),
        Settlement::Abandon => fields.push(("disposition-status", text("abandoned"))),
        Settlement::DeadLetter { reason, description } => fields.extend([
            ("disposition-status", text("suspended")),
            ("deadletter-reason", text(reason)),
            ("deadletter-description", text(description)),
        ]),
    }
    call(queue, "update-disposition", fields).await?;
    Ok(())
}

/// Extends a lock by its full length; the new end, by the broker's clock.
pub(crate) async fn renew(queue: &Requests, token: Uuid) -> Result<SystemTime, Failure> {
    let answer = call(queue, "renew-lock", vec![tokens(token)]).await?;
    let ends = items(field(&answer.body, "expirations"));
    ends.first().and_then(time).ok_or_else(|| malformed("renew-lock"))
}

/// Schedules encoded messages; their sequence numbers.
pub(crate) async fn schedule(
    queue: &Requests,
    messages: &[(&OutgoingMessage, &Vec<u8>)],
) -> Result<Vec<i64>, Failure> {
    let entries = messages.iter().map(|(message, encoded)| {
        map([
            ("message-id", text(&message.message_id)),
            ("message", Value::Binary(ByteBuf::from((*encoded).clone()))),
        ])
    });
    let answer = call(queue, "schedule-message", vec![("messages", Value::List(entries.collect()))]).await?;
    let sequences: Vec<i64> =
        items(field(&answer.body, "sequence-numbers")).iter().filter_map(long).collect();
    if sequences.len() == messages.len() { Ok(sequences) } else { Err(malformed("schedule-message")) }
}

/// Takes scheduled messages back.
pub(crate) async fn cancel(queue: &Requests, sequences: &[i64]) -> Result<(), Failure> {
    let sequences = Value::Array(Array(sequences.iter().map(|sequence| Value::Long(*sequence)).collect()));
    call(queue, "cancel-scheduled-message", vec![("sequence-numbers", sequences)]).await?;
    Ok(())
}

/// Up to `max` messages from a sequence number on, locked ones too.
pub(crate) async fn peek(queue: &Requests, from: i64, max: u32) -> Result<Vec<QueueMessage>, Failure> {
    let max = i32::try_from(max).unwrap_or(i32::MAX);
    let fields = vec![("from-sequence-number", Value::Long(from)), ("message-count", Value::Int(max))];
    let answer = call(queue, "peek-message", fields).await?;
    let decode = |entry: &Value| match field(entry, "message") {
        Some(Value::Binary(encoded)) => QueueMessage::decode(encoded),
        _ => Err(malformed("peek-message")),
    };
    items(field(&answer.body, "messages")).iter().map(decode).collect()
}

async fn call(queue: &Requests, operation: &str, fields: Vec<(&str, Value)>) -> Result<Answer, Failure> {
    let properties = [
        ("operation", SimpleValue::String(format!("com.microsoft:{operation}"))),
        ("com.microsoft:server-timeout", SimpleValue::Uint(SERVER_TIMEOUT)),
    ];
    queue.call(properties, map(fields)).await?.ok()
}

fn tokens(token: Uuid) -> (&'static str, Value) {
    ("lock-tokens", Value::Array(Array(vec![Value::Uuid(token.into())])))
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn map<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Map(OrderedMap::from_iter(fields.into_iter().map(|(name, value)| (text(name), value))))
}

fn field<'a>(body: &'a Value, name: &str) -> Option<&'a Value> {
    match body {
        Value::Map(fields) => fields.get(&text(name)),
        _ => None,
    }
}

fn items(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::Array(items)) => &items.0,
        Some(Value::List(items)) => items,
        _ => &[],
    }
}

fn long(value: &Value) -> Option<i64> {
    match value {
        Value::Long(number) => Some(*number),
        _ => None,
    }
}

fn malformed(operation: &str) -> Failure {
    Failure::Final(ServiceBusError::Refused(format!("the answer to {operation} is malformed")))
}
