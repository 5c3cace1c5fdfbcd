//! One connection: reads frames, hands them to its sessions, writes what they answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fe2o3_amqp_types::performatives::{Close, End, Open, Performative};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::broker::Broker;
use crate::cbs::Tokens;
use crate::codec::{FrameError, FrameWriter, MAX_FRAME, decode_performative, take_frame};
use crate::faults::Action;
use crate::interruption::Interruption;
use crate::sasl::{Peer, greet};
use crate::session::{Context, Session};

/// How long a client may be silent, as in the service.
const IDLE_TIMEOUT: Duration = Duration::from_secs(240);

/// How often heartbeats, tokens and silence are looked after.
const HOUSEKEEPING: Duration = Duration::from_millis(250);

/// Room made for reading at once.
const READ_ROOM: usize = 64 * 1024;

const HIGHEST_CHANNEL: u16 = 4999;

/// Why a connection ended without a close.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    #[error("reading or writing failed")]
    Io(#[from] std::io::Error),
    #[error("a performative cannot be read or written")]
    Codec(#[from] serde_amqp::Error),
    #[error("not an AMQP frame")]
    Frame(#[from] FrameError),
    #[error("not AMQP 1.0: {0:?}")]
    Protocol([u8; 8]),
    #[error("SASL mechanism {0:?} is not offered")]
    Mechanism(String),
    #[error("the client went away")]
    Gone,
    #[error("cut on demand")]
    Cut,
}

struct Connection {
    context: Context,
    sessions: BTreeMap<u16, Session>,
    /// Silence after which the client wants a heartbeat. Unknown until it opens: nothing may be sent before.
    heartbeat: Option<Duration>,
    last_heartbeat: Instant,
    last_read: Instant,
    closing: bool,
    trace: bool,
}

/// Serves one client until it leaves.
pub(crate) async fn serve<S>(mut stream: S, broker: Arc<Broker>) -> Result<(), ConnectionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut input = BytesMut::with_capacity(READ_ROOM);
    let mut strikes = broker.strikes.subscribe();
    let peer = greet(&mut stream, &mut input).await?;
    let mut connection = Connection::new(broker, peer);
    let wake = Arc::clone(&connection.context.waiter.wake);
    let mut housekeeping = interval(HOUSEKEEPING);
    housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut reader, mut writer) = tokio::io::split(stream);
    loop {
        connection.take_frames(&mut input)?;
        connection.pump()?;
        let output = &mut connection.context.frames;
        if connection.closing && output.buffer.is_empty() {
            return Ok(writer.shutdown().await?);
        }
        if input.capacity() - input.len() < READ_ROOM / 4 {
            input.reserve(READ_ROOM);
        }
        let reads = !connection.closing && !output.is_full();
        let writes = !output.buffer.is_empty();
        tokio::select! {
            read = reader.read_buf(&mut input), if reads => {
                if read? == 0 {
                    return Ok(());
                }
                connection.last_read = Instant::now();
            }
            written = writer.write_buf(&mut output.buffer), if writes => {
                if written? == 0 {
                    return Err(ConnectionError::Gone);
                }
                writer.flush().await?;
            }
            action = strikes.recv() => match action {
                Ok(action) => connection.strike(action)?,
                Err(RecvError::Lagged(_) | RecvError::Closed) => {}
            },
            () = wake.notified() => {}
            _ = housekeeping.tick() => connection.keep_house()?,
        }
    }
}

impl Connection {
    fn new(broker: Arc<Broker>, peer: Peer) -> Self {
        let trace = broker.settings.trace;
        let tokens = Tokens::new(peer == Peer::Named);
        let (waiter, frames) = (broker.waiter(), FrameWriter::new(trace));
        Self {
            context: Context { broker, frames, waiter, tokens },
            sessions: BTreeMap::new(),
            heartbeat: None,
            last_heartbeat: Instant::now(),
            last_read: Instant::now(),
            closing: false,
            trace,
        }
    }

    fn take_frames(&mut self, input: &mut BytesMut) -> Result<(), ConnectionError> {
        while !self.closing
            && let Some(frame) = take_frame(input)?
        {
            if frame.body.is_empty() {
                continue;
            }
            let (performative, payload) = decode_performative(&frame.body)?;
            if self.trace {
                eprintln!("<- {} {performative:?} with {} bytes", frame.channel, payload.len());
            }
            if let Err(interruption) = self.take(frame.channel, performative, &payload) {
                self.interrupt(frame.channel, interruption)?;
            }
        }
        Ok(())
    }

    fn take(
        &mut self,
        channel: u16,
        performative: Performative,
        payload: &Bytes,
    ) -> Result<(), Interruption> {
        let context = &mut self.context;
        match performative {
            Performative::Open(open) => return self.open(&open),
            Performative::Begin(begin) => {
                let session = Session::begin(context, channel, &begin)?;
                self.sessions.insert(channel, session);
                return Ok(());
            }
            Performative::End(_) => {
                if self.sessions.remove(&channel).is_some() {
                    context.frames.send(channel, &End { error: None })?;
                }
                return Ok(());
            }
            Performative::Close(_) => {
                self.closing = true;
                return Ok(context.frames.send(0, &Close { error: None })?);
            }
            _ => {}
        }
        // A session that was just ended may still have frames on their way.
        let Some(session) = self.sessions.get_mut(&channel) else { return Ok(()) };
        match performative {
            Performative::Attach(attach) => session.attach(context, attach),
            Performative::Flow(flow) => session.flow(context, &flow),
            Performative::Transfer(transfer) => session.transfer(context, transfer, payload),
            Performative::Disposition(disposition) => session.disposition(context, &disposition),
            Performative::Detach(detach) => session.detach(context, &detach),
            _ => Ok(()),
        }
    }

    fn open(&mut self, open: &Open) -> Result<(), Interruption> {
        self.context.frames.limit_frames(open.max_frame_size.0);
        let answer = Open {
            container_id: "geoworker-servicebus-emulator".to_owned(),
            hostname: None,
            max_frame_size: MAX_FRAME.into(),
            channel_max: HIGHEST_CHANNEL.into(),
            idle_time_out: u32::try_from(IDLE_TIMEOUT.as_millis()).ok(),
            outgoing_locales: None,
            incoming_locales: None,
            offered_capabilities: None,
            desired_capabilities: None,
            properties: None,
        };
        self.context.frames.send(0, &answer)?;
        // Twice as often as the client asks, so that a late one is not too late.
        self.heartbeat = open.idle_time_out.map(|limit| Duration::from_millis(u64::from(limit) / 2));
        Ok(())
    }

    fn pump(&mut self) -> Result<(), ConnectionError> {
        self.each_session(Session::pump)
    }

    /// Runs `step` on every session; after an interruption again, until it passes or the session is gone.
    fn each_session(
        &mut self,
        step: impl Fn(&mut Session, &mut Context) -> Result<(), Interruption>,
    ) -> Result<(), ConnectionError> {
        let channels: Vec<u16> = self.sessions.keys().copied().collect();
        for channel in channels {
            while let Some(session) = self.sessions.get_mut(&channel)
                && let Err(interruption) = step(session, &mut self.context)
            {
                self.interrupt(channel, interruption)?;
            }
        }
        Ok(())
    }

    fn interrupt(&mut self, channel: u16, interruption: Interruption) -> Result<(), ConnectionError> {
        let frames = &mut self.context.frames;
        match interruption {
            Interruption::Detach(handle, error) => {
                let Some(session) = self.sessions.get_mut(&channel) else { return Ok(()) };
                match session.force_detach(&mut self.context, handle, error) {
                    Ok(()) => {}
                    Err(_) => return Err(ConnectionError::Cut),
                }
            }
            Interruption::End(error) => {
                if self.sessions.remove(&channel).is_some() {
                    frames.send(channel, &End { error: Some(error) })?;
                }
            }
            Interruption::Close(error) => {
                self.sessions.clear();
                self.closing = true;
                frames.send(0, &Close { error: Some(error) })?;
            }
            Interruption::Drop => return Err(ConnectionError::Cut),
        }
        Ok(())
    }

    /// Lets a fault strike that is meant for every connection.
    fn strike(&mut self, action: Action) -> Result<(), ConnectionError> {
        match action {
            Action::Detach => self.each_session(|session, _| match session.queue_links().first() {
                Some(handle) => Err(Interruption::detach(*handle)),
                None => Ok(()),
            }),
            Action::End => self.each_session(|_, _| Err(Interruption::end())),
            Action::Close => self.interrupt(0, Interruption::close()),
            Action::Drop => Err(ConnectionError::Cut),
            Action::Busy | Action::LoseLock => Ok(()),
        }
    }

    fn keep_house(&mut self) -> Result<(), ConnectionError> {
        let now = Instant::now();
        if self.heartbeat.is_some_and(|heartbeat| now - self.last_heartbeat >= heartbeat) {
            self.last_heartbeat = now;
            self.context.frames.heartbeat();
        }
        if now - self.last_read > IDLE_TIMEOUT {
            return self.interrupt(0, Interruption::close());
        }
        self.each_session(|session, context| session.check_tokens(context))
    }
}
