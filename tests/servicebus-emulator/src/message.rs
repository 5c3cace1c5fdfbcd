//! Messages on the wire: decoding what senders send, and showing stored messages as the service does.

use std::sync::Arc;
use std::time::Duration;

use fe2o3_amqp_types::messaging::annotations::OwnedKey;
use fe2o3_amqp_types::messaging::message::__private::{Deserializable, Serializable};
use fe2o3_amqp_types::messaging::{Body, DeliveryAnnotations, Message as Sections, MessageAnnotations};
use fe2o3_amqp_types::primitives::{OrderedMap, SimpleValue, Timestamp};
use serde_amqp::Value;
use uuid::Uuid;

use crate::queue::{Delivery, Message, Millis, Visibility};

/// A decoded message.
pub(crate) type Content = Sections<Body<Value>>;

/// What queues hold.
pub(crate) type Payload = Arc<Content>;

/// Message format of a batch: each data section is a message.
const BATCH_FORMAT: u32 = 0x8001_3700;

const SCHEDULED: &str = "x-opt-scheduled-enqueue-time";

/// Decodes one message.
pub(crate) fn decode(bytes: &[u8]) -> Result<Content, serde_amqp::Error> {
    Ok(serde_amqp::from_slice::<Deserializable<Content>>(bytes)?.0)
}

/// Encodes one message.
pub(crate) fn encode(content: &Content) -> Result<Vec<u8>, serde_amqp::Error> {
    serde_amqp::to_vec(&Serializable(content))
}

/// Decodes the messages of one transfer.
pub(crate) fn decode_transfer(format: u32, bytes: &[u8]) -> Result<Vec<Content>, serde_amqp::Error> {
    let content = decode(bytes)?;
    match content.body {
        Body::Data(sections) if format == BATCH_FORMAT => {
            sections.into_iter().map(|section| decode(&section.0)).collect()
        }
        _ => Ok(vec![content]),
    }
}

/// When the sender wants it delivered.
pub(crate) fn scheduled_for(content: &Content) -> Option<Millis> {
    let annotations = content.message_annotations.as_ref()?;
    match annotations.0.get(&OwnedKey::from(SCHEDULED))? {
        Value::Timestamp(time) => Some(time.milliseconds()),
        _ => None,
    }
}

/// How long the sender wants it kept.
pub(crate) fn time_to_live(content: &Content) -> Option<Duration> {
    let milliseconds = content.header.as_ref()?.ttl?;
    Some(Duration::from_millis(milliseconds.into()))
}

/// Bytes of a message without a lock: peeked, or received and deleted.
pub(crate) fn show(message: &Message<Payload>, visibility: Visibility) -> Result<Vec<u8>, serde_amqp::Error> {
    encode(&annotated(message, visibility, None))
}

/// Bytes of a locked message.
pub(crate) fn show_locked(delivery: &Delivery<Payload>) -> Result<Vec<u8>, serde_amqp::Error> {
    let mut content = annotated(&delivery.message, delivery.visibility, Some(delivery.locked_until));
    // Most clients read the token from the delivery tag; some want it here.
    let token = Value::Uuid(delivery.token.into());
    let mut annotations = OrderedMap::new();
    annotations.insert("x-opt-lock-token".into(), token);
    content.delivery_annotations = Some(DeliveryAnnotations(annotations));
    encode(&content)
}

/// The delivery tag of a lock: its GUID in the byte order of .NET.
pub(crate) fn delivery_tag(token: Uuid) -> Vec<u8> {
    token.to_bytes_le().to_vec()
}

fn annotated(message: &Message<Payload>, visibility: Visibility, locked_until: Option<Millis>) -> Content {
    let mut content = Content::clone(&message.payload);
    let mut header = content.header.take().unwrap_or_default();
    header.delivery_count = message.deliveries;
    content.header = Some(header);

    let mut annotations =
        content.message_annotations.take().map(|annotations| annotations.0).unwrap_or_default();
    let time = |milliseconds: Millis| Value::Timestamp(Timestamp::from(milliseconds));
    annotations.insert("x-opt-sequence-number".into(), Value::Long(message.sequence));
    annotations.insert("x-opt-enqueue-sequence-number".into(), Value::Long(message.sequence));
    annotations.insert("x-opt-enqueued-time".into(), time(message.enqueued));
    annotations.insert("x-opt-message-state".into(), Value::Int(visibility as i32));
    if let Some(until) = locked_until {
        annotations.insert("x-opt-locked-until".into(), time(until));
    }
    content.message_annotations = Some(MessageAnnotations(annotations));

    if let Some(why) = &message.dead_letter {
        let mut properties = content.application_properties.take().unwrap_or_default();
        let texts = [("DeadLetterReason", &why.reason), ("DeadLetterErrorDescription", &why.description)];
        for (name, text) in texts {
            if let Some(text) = text {
                properties.0.insert(name.to_owned(), SimpleValue::String(text.clone()));
            }
        }
        content.application_properties = Some(properties);
    }
    content
}

/// The text of a string or symbol.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        Value::Symbol(symbol) => Some(symbol.as_str()),
        _ => None,
    }
}
