//! Bodies of other senders: data, a value, or sequences.

use fe2o3_amqp::types::messaging::{AmqpValue, Body};
use fe2o3_amqp::types::primitives::{SimpleValue, Value};
use serde_json::Value as Json;
use uuid::Uuid;

/// The bytes of a body: data as it is, a text or binary value as its bytes, everything else as JSON.
pub(crate) fn bytes(body: Body<Value>) -> Vec<u8> {
    match body {
        Body::Data(sections) => sections.into_iter().flat_map(|section| section.0.into_vec()).collect(),
        Body::Value(AmqpValue(Value::String(text))) => text.into_bytes(),
        Body::Value(AmqpValue(Value::Binary(bytes))) => bytes.into_vec(),
        Body::Value(AmqpValue(value)) => json(&value).to_string().into_bytes(),
        Body::Sequence(sections) => {
            let items = sections.into_iter().flat_map(|section| section.0);
            Json::Array(items.map(|item| json(&item)).collect()).to_string().into_bytes()
        }
        Body::Empty => Vec::new(),
    }
}

/// What JSON cannot say becomes null.
fn json(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::Ubyte(number) => (*number).into(),
        Value::Ushort(number) => (*number).into(),
        Value::Uint(number) => (*number).into(),
        Value::Ulong(number) => (*number).into(),
        Value::Byte(number) => (*number).into(),
        Value::Short(number) => (*number).into(),
        Value::Int(number) => (*number).into(),
        Value::Long(number) => (*number).into(),
        Value::Float(number) => number.0.into(),
        Value::Double(number) => number.0.into(),
        Value::Char(letter) => letter.to_string().into(),
        Value::Timestamp(at) => at.milliseconds().into(),
        Value::Uuid(id) => Uuid::from(id.clone()).to_string().into(),
        Value::Binary(bytes) => String::from_utf8_lossy(bytes).into(),
        Value::String(text) => text.as_str().into(),
        Value::Symbol(text) => text.0.as_str().into(),
        Value::Described(described) => json(&described.value),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Array(items) => items.0.iter().map(json).collect(),
        Value::Map(fields) => {
            Json::Object(fields.iter().map(|(name, value)| (text(&json(name)), json(value))).collect())
        }
        _ => Json::Null,
    }
}

fn text(json: &Json) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}

/// Text, numbers, flags, times and ids as text; nothing for the rest.
pub(crate) fn plain_text(value: &SimpleValue) -> Option<String> {
    Some(match value {
        SimpleValue::String(text) => text.clone(),
        SimpleValue::Symbol(text) => text.0.clone(),
        SimpleValue::Bool(flag) => flag.to_string(),
        SimpleValue::Ubyte(number) => number.to_string(),
        SimpleValue::Ushort(number) => number.to_string(),
        SimpleValue::Uint(number) => number.to_string(),
        SimpleValue::Ulong(number) => number.to_string(),
        SimpleValue::Byte(number) => number.to_string(),
        SimpleValue::Short(number) => number.to_string(),
        SimpleValue::Int(number) => number.to_string(),
        SimpleValue::Long(number) => number.to_string(),
        SimpleValue::Float(number) => number.to_string(),
        SimpleValue::Double(number) => number.to_string(),
        SimpleValue::Char(letter) => letter.to_string(),
        SimpleValue::Timestamp(at) => at.milliseconds().to_string(),
        SimpleValue::Uuid(id) => Uuid::from(id.clone()).to_string(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use fe2o3_amqp::types::messaging::{AmqpSequence, Batch, Data};
    use fe2o3_amqp::types::primitives::OrderedMap;

    use super::*;

    #[test]
    fn bodies_of_every_kind_are_read() {
        let text = |text: &str| Value::String(text.into());
        let map = Value::Map(OrderedMap::from_iter([
            (text("task_id"), text("t")),
            (Value::Int(1), Value::Bool(true)),
        ]));
        let data = |part: &str| Data(part.as_bytes().to_vec().into());
        let cases = [
            (Body::Data(Batch::new(vec![data("{\"a\":"), data("1}")])), "{\"a\":1}"),
            (Body::Value(AmqpValue(text("{}"))), "{}"),
            (Body::Value(AmqpValue(Value::Binary(b"{}".to_vec().into()))), "{}"),
            (Body::Value(AmqpValue(map)), "{\"1\":true,\"task_id\":\"t\"}"),
            (
                Body::Sequence(Batch::new(vec![
                    AmqpSequence(vec![text("a")]),
                    AmqpSequence(vec![Value::Long(2)]),
                ])),
                "[\"a\",2]",
            ),
            (Body::Empty, ""),
        ];
        for (body, expected) in cases {
            assert_eq!(String::from_utf8(bytes(body)).expect("text"), expected);
        }
    }
}
