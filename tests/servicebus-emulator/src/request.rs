//! Requests to `$cbs` and `$management`: messages with an operation, answered on the requester's own link.

use fe2o3_amqp_types::messaging::{AmqpValue, ApplicationProperties, Body, MessageId, Properties};
use fe2o3_amqp_types::primitives::{OrderedMap, SimpleValue, Symbol};
use serde_amqp::Value;

use crate::broker::UnknownQueue;
use crate::conditions::Condition;
use crate::message::Content;
use crate::queue::LockLost;

/// Keys and values of a request or its answer.
pub(crate) type Fields = OrderedMap<Value, Value>;

/// Names of the answer's properties: the two nodes spell them differently.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Spelling {
    Cbs,
    Management,
}

/// What was asked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) operation: String,
    pub(crate) properties: ApplicationProperties,
    /// Address of the link that waits for the answer.
    pub(crate) reply_to: String,
    pub(crate) body: Value,
    message_id: Option<MessageId>,
}

/// What is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: i32,
    description: String,
    condition: Option<Condition>,
    body: Value,
}

impl Request {
    pub(crate) fn read(content: Content) -> Self {
        let properties = content.application_properties.unwrap_or_default();
        let about = content.properties.unwrap_or_default();
        let body = match content.body {
            Body::Value(AmqpValue(body)) => body,
            _ => Value::Null,
        };
        Self {
            operation: text_property(&properties, "operation").unwrap_or_default().to_owned(),
            properties,
            reply_to: about.reply_to.unwrap_or_default(),
            body,
            message_id: about.message_id,
        }
    }

    /// A property that is a text.
    pub(crate) fn property(&self, name: &str) -> Option<&str> {
        text_property(&self.properties, name)
    }

    /// The fields of a request whose body is a map.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        match &self.body {
            Value::Map(fields) => fields.get(&Value::String(name.to_owned())),
            _ => None,
        }
    }

    /// The elements of a field that is an array or a list.
    pub(crate) fn elements(&self, name: &str) -> &[Value] {
        match self.field(name) {
            Some(Value::Array(array)) => &array.0,
            Some(Value::List(list)) => list,
            Some(single) => std::slice::from_ref(single),
            None => &[],
        }
    }

    /// The message that carries `answer` back.
    pub(crate) fn answer(&self, answer: Answer, spelling: Spelling) -> Content {
        let (status, description) = match spelling {
            Spelling::Cbs => ("status-code", "status-description"),
            Spelling::Management => ("statusCode", "statusDescription"),
        };
        let mut properties = ApplicationProperties::default();
        properties.0.insert(status.to_owned(), SimpleValue::Int(answer.status));
        properties.0.insert(description.to_owned(), SimpleValue::String(answer.description));
        if let Some(condition) = answer.condition {
            let symbol = SimpleValue::Symbol(Symbol::from(condition.name()));
            properties.0.insert("errorCondition".to_owned(), symbol);
        }
        let about = Properties {
            correlation_id: self.message_id.clone(),
            to: Some(self.reply_to.clone()),
            ..Properties::default()
        };
        Content {
            header: None,
            delivery_annotations: None,
            message_annotations: None,
            properties: Some(about),
            application_properties: Some(properties),
            body: Body::Value(AmqpValue(answer.body)),
            footer: None,
        }
    }
}

impl Answer {
    /// Success without content.
    pub(crate) fn done() -> Self {
        Self::with(Value::Null)
    }

    /// Success with these fields.
    pub(crate) fn fields<const N: usize>(fields: [(&str, Value); N]) -> Self {
        Self::with(map(fields))
    }

    /// Nothing to return.
    pub(crate) fn no_content() -> Self {
        Self { status: 204, description: "No Content".to_owned(), condition: None, body: Value::Null }
    }

    /// A token was taken.
    pub(crate) fn accepted() -> Self {
        Self { status: 202, description: "Accepted".to_owned(), condition: None, body: Value::Null }
    }

    /// The request was refused.
    pub(crate) fn refused(condition: Condition, description: impl Into<String>) -> Self {
        Self {
            status: condition.status(),
            description: description.into(),
            condition: Some(condition),
            body: Value::Null,
        }
    }

    fn with(body: Value) -> Self {
        Self { status: 200, description: "OK".to_owned(), condition: None, body }
    }
}

impl From<LockLost> for Answer {
    fn from(error: LockLost) -> Self {
        Self::refused(Condition::LockLost, error.to_string())
    }
}

impl From<UnknownQueue> for Answer {
    fn from(error: UnknownQueue) -> Self {
        Self::refused(Condition::NotFound, error.to_string())
    }
}

impl From<serde_amqp::Error> for Answer {
    fn from(error: serde_amqp::Error) -> Self {
        Self::refused(Condition::BadRequest, format!("a message cannot be read or written: {error}"))
    }
}

/// A map with texts for keys.
pub(crate) fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let mut map = Fields::new();
    for (name, value) in fields {
        map.insert(Value::String(name.to_owned()), value);
    }
    Value::Map(map)
}

fn text_property<'p>(properties: &'p ApplicationProperties, name: &str) -> Option<&'p str> {
    match properties.0.get(name)? {
        SimpleValue::String(text) => Some(text),
        SimpleValue::Symbol(symbol) => Some(symbol.as_str()),
        _ => None,
    }
}
