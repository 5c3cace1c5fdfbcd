//! One connection with everything on it. It is never repaired: after a transport error the client makes another.

use std::collections::HashMap;
use std::sync::Arc;

use fe2o3_amqp::connection::ConnectionHandle;
use fe2o3_amqp::sasl_profile::SaslProfile;
use fe2o3_amqp::session::SessionHandle;
use fe2o3_amqp::{Connection as AmqpConnection, Session};
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

use crate::claims::Claims;
use crate::error::Failure;
use crate::requests::Requests;
use crate::send::QueueSender;
use crate::settings::{Settings, Transport};
use crate::stream;

const MAX_FRAME: u32 = 64 * 1024;
/// The broker is taken for dead when nothing came for this long, milliseconds.
const IDLE: u32 = 60_000;

/// An open connection with one session.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Which of the client's connections this is.
    pub(crate) generation: u64,
    settings: Arc<Settings>,
    session: Mutex<SessionHandle<()>>,
    claims: Claims,
    management: Mutex<HashMap<String, Arc<Requests>>>,
    senders: Mutex<HashMap<String, Arc<QueueSender>>>,
    handle: Mutex<ConnectionHandle<()>>,
}

impl Connection {
    pub(crate) async fn open(settings: Arc<Settings>, generation: u64) -> Result<Self, Failure> {
        let mut handle = open(&settings).await?;
        let mut session = Session::begin(&mut handle).await.map_err(Failure::transport)?;
        let claims = Claims::new(Requests::attach(&mut session, "$cbs").await?);
        tracing::debug!(host = settings.host, generation, "connected to the broker");
        Ok(Self {
            generation,
            settings,
            session: Mutex::new(session),
            claims,
            management: Mutex::default(),
            senders: Mutex::default(),
            handle: Mutex::new(handle),
        })
    }

    /// Has every queue's claim made again before its next use.
    pub(crate) async fn forget_claims(&self) {
        self.claims.forget().await;
    }

    /// Says goodbye; a connection that is dropped does so too, without waiting for the answer.
    pub(crate) async fn close(&self) {
        // It is over either way.
        let _ = self.session.lock().await.end().await;
        let _ = self.handle.lock().await.close().await;
    }

    /// The session, once it may use the queue.
    pub(crate) async fn session(&self, entity: &str) -> Result<MutexGuard<'_, SessionHandle<()>>, Failure> {
        self.claims.ensure(&self.settings.credential, &self.settings.host, entity).await?;
        Ok(self.session.lock().await)
    }

    /// The management node of a queue.
    pub(crate) async fn management(&self, entity: &str) -> Result<Arc<Requests>, Failure> {
        self.claims.ensure(&self.settings.credential, &self.settings.host, entity).await?;
        let mut all = self.management.lock().await;
        if let Some(requests) = all.get(entity) {
            return Ok(requests.clone());
        }
        let node = format!("{entity}/$management");
        let requests = Arc::new(Requests::attach(&mut *self.session.lock().await, &node).await?);
        all.insert(entity.to_owned(), requests.clone());
        Ok(requests)
    }

    /// The link that sends to a queue.
    pub(crate) async fn sender(&self, queue: &str) -> Result<Arc<QueueSender>, Failure> {
        self.claims.ensure(&self.settings.credential, &self.settings.host, queue).await?;
        let mut all = self.senders.lock().await;
        if let Some(sender) = all.get(queue) {
            return Ok(sender.clone());
        }
        let sender = Arc::new(QueueSender::attach(&mut *self.session.lock().await, queue).await?);
        all.insert(queue.to_owned(), sender.clone());
        Ok(sender)
    }
}

async fn open(settings: &Settings) -> Result<ConnectionHandle<()>, Failure> {
    let builder = AmqpConnection::builder()
        .container_id(format!("geoworker-{}", Uuid::new_v4().simple()))
        .hostname(Some(settings.host.as_str()))
        .sasl_profile(SaslProfile::Anonymous)
        .max_frame_size(MAX_FRAME)
        .idle_time_out(IDLE);
    let opened = match &settings.transport {
        Transport::Plain => {
            let stream = stream::plain(&settings.host, settings.port).await.map_err(Failure::transport)?;
            builder.open_with_stream(stream).await
        }
        Transport::Tls { extra_roots } => {
            let stream = stream::tls(&settings.host, settings.port, extra_roots.as_deref()).await;
            builder.open_with_stream(stream.map_err(Failure::transport)?).await
        }
    };
    opened.map_err(Failure::transport)
}
