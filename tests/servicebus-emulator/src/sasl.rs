//! The SASL layer before the connection proper. Every offered mechanism lets everybody in.

use bytes::BytesMut;
use fe2o3_amqp_types::primitives::{Array, Symbol};
use fe2o3_amqp_types::sasl::{SaslCode, SaslInit, SaslMechanisms, SaslOutcome};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::codec::{FrameWriter, take_frame};
use crate::connection::ConnectionError;

const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";
const MECHANISMS: [&str; 4] = ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"];
const PLAIN: &str = "PLAIN";

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Nobody in particular: tokens follow on `$cbs`.
    Anonymous,
    /// Named by SASL PLAIN, which needs no token.
    Named,
}

/// Exchanges protocol headers and, if the client starts with it, the SASL layer.
pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
) -> Result<Peer, ConnectionError> {
    let mut peer = Peer::Anonymous;
    let mut header = read_header(stream, input).await?;
    if header == SASL_HEADER {
        peer = authenticate(stream, input).await?;
        header = read_header(stream, input).await?;
    }
    // A peer that wants another protocol is told ours.
    stream.write_all(&AMQP_HEADER).await?;
    if header == AMQP_HEADER { Ok(peer) } else { Err(ConnectionError::Protocol(header)) }
}

async fn authenticate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
) -> Result<Peer, ConnectionError> {
    let mut frames = FrameWriter::new(false);
    let mechanisms = Array(MECHANISMS.map(Symbol::from).to_vec());
    frames.sasl(&SaslMechanisms { sasl_server_mechanisms: mechanisms })?;
    stream.write_all(&SASL_HEADER).await?;
    stream.write_all(&frames.buffer.split()).await?;

    let frame = loop {
        if let Some(frame) = take_frame(input)? {
            break frame;
        }
        read_more(stream, input).await?;
    };
    let mechanism = serde_amqp::from_slice::<SaslInit>(&frame.body)?.mechanism;
    let offered = MECHANISMS.contains(&mechanism.as_str());
    let code = if offered { SaslCode::Ok } else { SaslCode::Auth };
    frames.sasl(&SaslOutcome { code, additional_data: None })?;
    stream.write_all(&frames.buffer.split()).await?;
    match (offered, mechanism.as_str()) {
        (false, other) => Err(ConnectionError::Mechanism(other.to_owned())),
        (true, PLAIN) => Ok(Peer::Named),
        (true, _) => Ok(Peer::Anonymous),
    }
}

async fn read_header<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
) -> Result<[u8; 8], ConnectionError> {
    loop {
        if let Some(header) = input.first_chunk::<8>().copied() {
            let _header = input.split_to(header.len());
            return Ok(header);
        }
        read_more(stream, input).await?;
    }
}

async fn read_more<S: AsyncRead + Unpin>(
    stream: &mut S,
    input: &mut BytesMut,
) -> Result<(), ConnectionError> {
    if stream.read_buf(input).await? == 0 { Err(ConnectionError::Gone) } else { Ok(()) }
}
