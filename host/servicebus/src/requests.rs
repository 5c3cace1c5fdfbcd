//! Requests and answers over one pair of links, any number at a time: answers find their request by its id.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::types::definitions::SenderSettleMode;
use fe2o3_amqp::types::messaging::{AmqpValue, ApplicationProperties, Body, Message, MessageId, Properties};
use fe2o3_amqp::types::primitives::{SimpleValue, Value};
use fe2o3_amqp::{Receiver, Sender};
use tokio::sync::{Mutex, oneshot};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::error::Failure;
use crate::message::AmqpMessage;

/// The sending half, and the requests that wait.
#[derive(Debug)]
pub(crate) struct Requests {
    sender: Mutex<Sender>,
    reply_to: String,
    next_id: AtomicU64,
    waiting: Arc<Waiting>,
    reader: AbortHandle,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    /// As of HTTP.
    pub(crate) status: i32,
    /// Name of the error, where there is one.
    pub(crate) condition: String,
    /// Text.
    pub(crate) description: String,
    /// Body.
    pub(crate) body: Value,
}

/// Requests without an answer yet; nothing once the link is gone.
#[derive(Debug)]
struct Waiting(StdMutex<Result<HashMap<u64, oneshot::Sender<Answer>>, Failure>>);

impl Waiting {
    fn add(&self, id: u64) -> Result<oneshot::Receiver<Answer>, Failure> {
        let (sender, receiver) = oneshot::channel();
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Ok(waiting) => waiting.insert(id, sender),
            Err(failure) => return Err(failure.clone()),
        };
        Ok(receiver)
    }

    fn take(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Ok(waiting) => waiting.remove(&id),
            Err(_) => None,
        }
    }

    /// Drops all that wait, which tells them.
    fn fail(&self, failure: Failure) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Err(failure);
    }

    fn failure(&self) -> Failure {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Ok(_) => Failure::Transport("the answer was dropped".into()),
            Err(failure) => failure.clone(),
        }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Requests {
    /// Attaches to a node, e.g. `$cbs` or `tasks/$management`.
    pub(crate) async fn attach(session: &mut SessionHandle<()>, node: &str) -> Result<Self, Failure> {
        let name = format!("{}-{}", node.replace('/', "-"), Uuid::new_v4().simple());
        let sender = Sender::builder()
            .name(format!("{name}-requests"))
            .source(name.as_str())
            .target(node)
            .sender_settle_mode(SenderSettleMode::Settled)
            .attach(session)
            .await?;
        let receiver = Receiver::builder()
            .name(format!("{name}-answers"))
            .source(node)
            .target(name.as_str())
            .attach(session)
            .await?;
        let waiting = Arc::new(Waiting(StdMutex::new(Ok(HashMap::new()))));
        let reader = tokio::spawn(read(receiver, waiting.clone())).abort_handle();
        Ok(Self { sender: Mutex::new(sender), reply_to: name, next_id: AtomicU64::new(1), waiting, reader })
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn call(
        &self,
        properties: impl IntoIterator<Item = (&'static str, SimpleValue)>,
        body: Value,
    ) -> Result<Answer, Failure> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let message = Message::builder()
            .properties(Properties {
                message_id: Some(MessageId::Ulong(id)),
                reply_to: Some(self.reply_to.clone()),
                ..Properties::default()
            })
            .application_properties(application_properties(properties))
            .body(AmqpValue(body))
            .build();
        let answer = self.waiting.add(id)?;
        // Forgets the request if the caller gives up.
        let _forget = Forget { id, waiting: &self.waiting };
        self.sender.lock().await.send(message).await?;
        answer.await.map_err(|_| self.waiting.failure())
    }
}

struct Forget<'a> {
    id: u64,
    waiting: &'a Waiting,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.waiting.take(self.id);
    }
}

fn application_properties(
    properties: impl IntoIterator<Item = (&'static str, SimpleValue)>,
) -> ApplicationProperties {
    let mut all = ApplicationProperties::default();
    for (name, value) in properties {
        all.0.insert(name.to_owned(), value);
    }
    all
}

/// Hands every answer to its request until the link ends.
async fn read(mut receiver: Receiver, waiting: Arc<Waiting>) {
    loop {
        match next(&mut receiver).await {
            Ok(message) => deliver(message, &waiting),
            // Whatever the broker says at the end: these links are of no use any more, and the connection is replaced.
            Err(failure) => return waiting.fail(Failure::Transport(format!("{failure:?}"))),
        }
    }
}

async fn next(receiver: &mut Receiver) -> Result<AmqpMessage, Failure> {
    let delivery = receiver.recv::<Body<Value>>().await?;
    receiver.accept(&delivery).await?;
    Ok(delivery.into_message())
}

/// An answer that nobody waits for any more is dropped.
fn deliver(message: AmqpMessage, waiting: &Waiting) {
    let id = message.properties.as_ref().and_then(|properties| properties.correlation_id.clone());
    if let Some(MessageId::Ulong(id)) = id
        && let Some(caller) = waiting.take(id)
    {
        let _ = caller.send(answer(message));
    }
}

/// `$cbs` and `$management` spell their properties differently.
fn answer(message: AmqpMessage) -> Answer {
    let properties = message.application_properties.unwrap_or_default();
    let text = |names: [&str; 2]| {
        let value = names.iter().find_map(|name| properties.0.get(*name));
        match value {
            Some(SimpleValue::String(text)) => text.clone(),
            Some(SimpleValue::Symbol(text)) => text.0.clone(),
            _ => String::new(),
        }
    };
    let status = ["statusCode", "status-code"].iter().find_map(|name| match properties.0.get(*name) {
        Some(SimpleValue::Int(status)) => Some(*status),
        _ => None,
    });
    Answer {
        status: status.unwrap_or_default(),
        condition: text(["errorCondition", "error-condition"]),
        description: text(["statusDescription", "status-description"]),
        body: match message.body {
            Body::Value(AmqpValue(value)) => value,
            _ => Value::Null,
        },
    }
}

impl Answer {
    /// The answer, if it is a good one.
    pub(crate) fn ok(self) -> Result<Self, Failure> {
        use crate::error::ServiceBusError::{LockLost, NotFound, Refused};
        let detail = format!("{} {}", self.status, self.description);
        match (self.status, self.condition.as_str()) {
            (200..=299, _) => Ok(self),
            (_, condition) if condition.ends_with("lock-lost") => Err(Failure::Final(LockLost)),
            (410, _) => Err(Failure::Final(LockLost)),
            (404, _) => Err(Failure::Final(NotFound(detail))),
            (401 | 403, _) => Err(Failure::Unauthorized(detail)),
            (408 | 429 | 500..=599, _) => Err(Failure::Busy(detail)),
            (_, "") => Err(Failure::Final(Refused(detail))),
            (_, condition) => Err(Failure::of_condition(condition, &detail)),
        }
    }
}
