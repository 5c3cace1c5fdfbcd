//! Messages as the caller sees them, and their AMQP form.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fe2o3_amqp::types::messaging::annotations::OwnedKey;
use fe2o3_amqp::types::messaging::message::__private::{Deserializable, Serializable};
use fe2o3_amqp::types::messaging::{
    ApplicationProperties, Batch, Body, Data, Message, MessageAnnotations, MessageId, Properties,
};
use fe2o3_amqp::types::primitives::{OrderedMap, SimpleValue, Symbol, Timestamp, Value};
use uuid::Uuid;

use crate::body;
use crate::error::{Failure, ServiceBusError};

/// A message with a body of any kind.
pub(crate) type AmqpMessage = Message<Body<Value>>;

const SCHEDULED_FOR: &str = "x-opt-scheduled-enqueue-time";
const REASON: &str = "DeadLetterReason";
const DESCRIPTION: &str = "DeadLetterErrorDescription";
/// Fields of the body, and the properties by which operators and filters see them.
const LIFTED: [(&str, &str); 3] = [("task_id", "task_id"), ("parent_job_id", "job_id"), ("job_id", "job_id")];

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// Queues that detect duplicates drop a second message of this id. A repetition of a send keeps it.
    pub message_id: String,
    /// Bytes.
    pub body: Vec<u8>,
    /// Media type of the body.
    pub content_type: String,
    /// Text properties.
    pub properties: BTreeMap<String, String>,
    /// Not to be received before; `None` is at once. By the broker's clock.
    pub scheduled_for: Option<SystemTime>,
}

impl OutgoingMessage {
    /// A JSON message with an id of its own. `task_id`, and `job_id` or `parent_job_id` of the body become properties.
    #[must_use]
    pub fn json(body: String) -> Self {
        let fields: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        let lifted = LIFTED.iter().filter_map(|(field, property)| {
            let value = fields.get(field)?.as_str()?;
            Some(((*property).to_owned(), value.to_owned()))
        });
        Self {
            message_id: Uuid::new_v4().to_string(),
            properties: lifted.collect(),
            body: body.into_bytes(),
            content_type: "application/json".into(),
            scheduled_for: None,
        }
    }

    /// The encoded message.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, ServiceBusError> {
        let message = AmqpMessage {
            header: None,
            delivery_annotations: None,
            message_annotations: self.scheduled_for.map(|at| {
                let at = Value::Timestamp(Timestamp::from(milliseconds(at)));
                MessageAnnotations(OrderedMap::from_iter([(OwnedKey::from(SCHEDULED_FOR), at)]))
            }),
            properties: Some(Properties {
                message_id: Some(MessageId::String(self.message_id.clone())),
                content_type: Some(Symbol::from(self.content_type.as_str())),
                ..Properties::default()
            }),
            application_properties: (!self.properties.is_empty()).then(|| {
                let text =
                    |(name, value): (&String, &String)| (name.clone(), SimpleValue::String(value.clone()));
                ApplicationProperties(self.properties.iter().map(text).collect())
            }),
            body: Body::Data(Batch::new(vec![Data(self.body.clone().into())])),
            footer: None,
        };
        serde_amqp::to_vec(&Serializable(&message))
            .map_err(|error| ServiceBusError::Refused(error.to_string()))
    }
}

/// Proof of a lock: whoever has it may settle the message, through every client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lock {
    /// Position in the queue.
    pub sequence: i64,
    /// Token of this delivery.
    pub token: Uuid,
}

/// A received message that is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedMessage {
    /// Needed to settle it.
    pub lock: Lock,
    /// End of the lock, by the broker's clock, where it tells.
    pub locked_until: Option<SystemTime>,
    /// The message.
    pub message: QueueMessage,
}

/// A message in a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueMessage {
    /// Position in the queue.
    pub sequence: i64,
    /// Deliveries so far; of a received message, this one included.
    pub delivery_count: u32,
    /// Arrival, by the broker's clock.
    pub enqueued_at: Option<SystemTime>,
    /// What it waits for.
    pub state: MessageState,
    /// Id that the sender gave.
    pub message_id: Option<String>,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// Bytes; a body that is an AMQP value or sequence is turned to text or JSON.
    pub body: Vec<u8>,
    /// Properties that are text, numbers or flags, as text.
    pub properties: BTreeMap<String, String>,
    /// Why it was set aside: the code.
    pub dead_letter_reason: Option<String>,
    /// Why it was set aside: in words.
    pub dead_letter_description: Option<String>,
}

/// What a message waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MessageState {
    /// A receiver, or its settlement: the broker does not tell these apart.
    #[default]
    Active,
    /// To be asked for by its sequence number.
    Deferred,
    /// Its time.
    Scheduled,
}

impl QueueMessage {
    fn new(message: AmqpMessage, deliveries_now: u32) -> Self {
        let annotations = message.message_annotations.map(|annotations| annotations.0).unwrap_or_default();
        let annotation = |name: &str| annotations.get(&OwnedKey::from(name));
        let mut properties: BTreeMap<String, String> = message
            .application_properties
            .map(|properties| properties.0)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(name, value)| Some((name, body::plain_text(&value)?)))
            .collect();
        let own = message.properties.unwrap_or_default();
        let before = message.header.map_or(0, |header| header.delivery_count);
        Self {
            sequence: match annotation("x-opt-sequence-number") {
                Some(Value::Long(sequence)) => *sequence,
                _ => 0,
            },
            delivery_count: before.saturating_add(deliveries_now),
            enqueued_at: annotation("x-opt-enqueued-time").and_then(time),
            state: match annotation("x-opt-message-state") {
                Some(Value::Int(1)) => MessageState::Deferred,
                Some(Value::Int(2)) => MessageState::Scheduled,
                _ => MessageState::Active,
            },
            message_id: own.message_id.map(|id| match id {
                MessageId::String(id) => id,
                MessageId::Ulong(id) => id.to_string(),
                MessageId::Uuid(id) => Uuid::from(id).to_string(),
                MessageId::Binary(id) => String::from_utf8_lossy(&id).into_owned(),
            }),
            content_type: own.content_type.map(|name| name.0),
            body: body::bytes(message.body),
            dead_letter_reason: properties.remove(REASON),
            dead_letter_description: properties.remove(DESCRIPTION),
            properties,
        }
    }

    /// A peeked message, encoded.
    pub(crate) fn decode(encoded: &[u8]) -> Result<Self, Failure> {
        let message =
            serde_amqp::from_slice::<Deserializable<AmqpMessage>>(encoded).map_err(Failure::transport)?;
        Ok(Self::new(message.0, 0))
    }

    /// The same message, to be sent again.
    #[must_use]
    pub fn to_send_again(&self) -> OutgoingMessage {
        OutgoingMessage {
            message_id: self.message_id.clone().unwrap_or_else(|| Uuid::new_v4().to_string()),
            body: self.body.clone(),
            content_type: self.content_type.clone().unwrap_or_default(),
            properties: self.properties.clone(),
            scheduled_for: None,
        }
    }
}

impl LockedMessage {
    /// A delivery. The lock token is the delivery tag, a GUID in the order of Windows.
    pub(crate) fn new(tag: &[u8], message: AmqpMessage) -> Result<Self, Failure> {
        let token = <[u8; 16]>::try_from(tag).map(Uuid::from_bytes_le);
        let token = token.map_err(|_| Failure::Transport("a delivery without a lock token".into()))?;
        let annotations = message.message_annotations.as_ref();
        let locked_until = annotations.and_then(|all| all.0.get(&OwnedKey::from("x-opt-locked-until")));
        let locked_until = locked_until.and_then(time);
        let message = QueueMessage::new(message, 1);
        Ok(Self { lock: Lock { sequence: message.sequence, token }, locked_until, message })
    }
}

/// The point in time of an AMQP value.
pub(crate) fn time(value: &Value) -> Option<SystemTime> {
    match value {
        Value::Timestamp(at) => {
            Some(UNIX_EPOCH + Duration::from_millis(u64::try_from(at.milliseconds()).unwrap_or_default()))
        }
        _ => None,
    }
}

/// Milliseconds since 1970.
pub(crate) fn milliseconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_the_body_become_properties() {
        let message = OutgoingMessage::json(r#"{"task_id": "t1", "job_id": "j1", "more": 1}"#.into());
        let properties: Vec<_> = message.properties.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(properties, [("job_id", "j1"), ("task_id", "t1")]);
        assert!(OutgoingMessage::json("no json".into()).properties.is_empty());
    }

    #[test]
    fn a_message_survives_encoding() {
        let mut message = OutgoingMessage::json(r#"{"task_id":"t1"}"#.into());
        message.scheduled_for = Some(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123));
        let read = QueueMessage::decode(&message.encode().expect("encodes")).expect("decodes");
        message.scheduled_for = None;
        assert_eq!(read.to_send_again(), message);
        assert_eq!(read.state, MessageState::Active);
    }

    #[test]
    fn a_tag_is_a_windows_guid_and_anything_else_is_refused() {
        let encoded = OutgoingMessage::json("{}".into()).encode().expect("encodes");
        let message = || serde_amqp::from_slice::<Deserializable<AmqpMessage>>(&encoded).expect("decodes").0;
        let tag = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        let locked = LockedMessage::new(&tag, message()).expect("reads");
        assert_eq!(locked.lock.token.to_string(), "00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(locked.message.delivery_count, 1);
        assert!(LockedMessage::new(&tag[..4], message()).is_err());
    }
}
