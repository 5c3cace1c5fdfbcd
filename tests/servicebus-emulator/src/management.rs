//! `$management`: renewal, settlement by lock token, scheduling, peeking, deferred messages.

use fe2o3_amqp_types::primitives::{Array, Binary, Timestamp};
use serde_amqp::Value;
use uuid::Uuid;

use crate::address::Address;
use crate::broker::Broker;
use crate::conditions::Condition;
use crate::faults::Operation;
use crate::message::{decode, show, show_locked, text};
use crate::queue::{DeadLetter, Part, Sequence, Settlement, Visibility};
use crate::request::{Answer, Request, map};

/// Messages of one peek at most.
const PEEK_LIMIT: usize = 250;

/// Which faults can strike this request.
pub(crate) fn operation(request: &Request) -> Option<Operation> {
    match verb(request) {
        "renew-lock" => Some(Operation::Renew),
        "update-disposition" => Some(Operation::Complete),
        "schedule-message" => Some(Operation::Send),
        _ => None,
    }
}

/// The locks a request is about.
pub(crate) fn lock_tokens(request: &Request) -> Result<Vec<Uuid>, Answer> {
    let token = |value: &Value| match value {
        Value::Uuid(token) => Ok(Uuid::from_bytes(token.clone().into_inner())),
        other => Err(bad_request(format!("a lock token is a uuid, not {other:?}"))),
    };
    request.elements("lock-tokens").iter().map(token).collect()
}

/// Does what is asked.
pub(crate) fn handle(broker: &Broker, address: &Address, request: &Request) -> Answer {
    let answer = match verb(request) {
        "renew-lock" => renew_lock(broker, address, request),
        "update-disposition" => update_disposition(broker, address, request),
        "schedule-message" => schedule(broker, address, request),
        "cancel-scheduled-message" => cancel(broker, address, request),
        "peek-message" => peek(broker, address, request),
        "receive-by-sequence-number" => receive_deferred(broker, address, request),
        other => Err(Answer::refused(Condition::NotImplemented, format!("no operation {other:?}"))),
    };
    answer.unwrap_or_else(|refusal| refusal)
}

fn renew_lock(broker: &Broker, address: &Address, request: &Request) -> Result<Answer, Answer> {
    let mut ends = Vec::new();
    for token in lock_tokens(request)? {
        ends.push(Value::Timestamp(Timestamp::from(broker.renew(address, token)?)));
    }
    Ok(Answer::fields([("expirations", Value::Array(Array(ends)))]))
}

fn update_disposition(broker: &Broker, address: &Address, request: &Request) -> Result<Answer, Answer> {
    let owned = |name| request.field(name).and_then(text).map(ToOwned::to_owned);
    let settlement = match request.field("disposition-status").and_then(text) {
        Some("completed") => Settlement::Complete,
        Some("abandoned") => Settlement::Abandon,
        Some("defered") => Settlement::Defer,
        Some("suspended") => Settlement::DeadLetter(DeadLetter {
            reason: owned("deadletter-reason"),
            description: owned("deadletter-description"),
        }),
        other => return Err(bad_request(format!("no disposition status {other:?}"))),
    };
    for token in lock_tokens(request)? {
        broker.settle(address, token, settlement.clone())?;
    }
    Ok(Answer::done())
}

fn schedule(broker: &Broker, address: &Address, request: &Request) -> Result<Answer, Answer> {
    if address.part == Part::DeadLetter {
        return Err(Answer::refused(Condition::NotAllowed, "nothing can be sent to a dead-letter queue"));
    }
    let mut contents = Vec::new();
    for entry in request.elements("messages") {
        let Value::Map(entry) = entry else { return Err(bad_request("a message entry is a map")) };
        let Some(Value::Binary(bytes)) = entry.get(&Value::String("message".to_owned())) else {
            return Err(bad_request("a message entry holds a binary \"message\""));
        };
        if bytes.len() as u64 > broker.settings.max_message {
            return Err(Answer::refused(Condition::SizeExceeded, "the message is too large"));
        }
        contents.push(decode(bytes)?);
    }
    let mut sequences = Vec::new();
    for content in contents {
        sequences.push(Value::Long(broker.send(&address.queue, content)?));
    }
    Ok(Answer::fields([("sequence-numbers", Value::Array(Array(sequences)))]))
}

fn cancel(broker: &Broker, address: &Address, request: &Request) -> Result<Answer, Answer> {
    for sequence in sequences(request)? {
        if !broker.cancel(&address.queue, sequence)? {
            return Err(not_found(sequence));
        }
    }
    Ok(Answer::done())
}

fn peek(broker: &Broker, address: &Address, request: &Request) -> Result<Answer, Answer> {
    let from = match request.field("from-sequence-number") {
        Some(Value::Long(from)) => *from,
        _ => 0,
    };
    let limit = match request.field("message-count") {
        Some(Value::Int(count)) => usize::try_from(*count).unwrap_or(0).min(PEEK_LIMIT),
        _ => 1,
    };
    let mut messages = Vec::new();
    for (message, visibility) in broker.peek(address, from, limit)? {
        messages.push(map([("message", binary(show(&message, visibility)?))]));
    }
    if messages.is_empty() {
        return Ok(Answer::no_content());
    }
    Ok(Answer::fields([("messages", Value::List(messages))]))
}

fn receive_deferred(broker: &Broker, address: &Address, request: &Request) -> Result<Answer, Answer> {
    // 0 = receive and delete, 1 = peek-lock.
    let deletes = matches!(request.field("receiver-settle-mode"), Some(Value::Uint(0)));
    let mut messages = Vec::new();
    for sequence in sequences(request)? {
        let delivery = broker.receive_deferred(address, sequence)?.ok_or_else(|| not_found(sequence))?;
        let token = ("lock-token", Value::Uuid(delivery.token.into()));
        if deletes {
            broker.settle(address, delivery.token, Settlement::Complete)?;
            let shown = show(&delivery.message, Visibility::Deferred)?;
            messages.push(map([("message", binary(shown)), token]));
        } else {
            messages.push(map([("message", binary(show_locked(&delivery)?)), token]));
        }
    }
    Ok(Answer::fields([("messages", Value::List(messages))]))
}

fn verb(request: &Request) -> &str {
    request.operation.strip_prefix("com.microsoft:").unwrap_or(&request.operation)
}

fn sequences(request: &Request) -> Result<Vec<Sequence>, Answer> {
    let sequence = |value: &Value| match value {
        Value::Long(sequence) => Ok(*sequence),
        other => Err(bad_request(format!("a sequence number is a long, not {other:?}"))),
    };
    request.elements("sequence-numbers").iter().map(sequence).collect()
}

fn binary(bytes: Vec<u8>) -> Value {
    Value::Binary(Binary::from(bytes))
}

fn not_found(sequence: Sequence) -> Answer {
    Answer::refused(Condition::MessageNotFound, format!("no message with sequence number {sequence}"))
}

fn bad_request(description: impl Into<String>) -> Answer {
    Answer::refused(Condition::BadRequest, description)
}
