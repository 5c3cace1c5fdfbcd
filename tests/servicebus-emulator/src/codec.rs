//! AMQP frames: cutting them from the bytes of a connection, and appending them to those going out.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use fe2o3_amqp_types::definitions::{Error, ErrorCondition, Role};
use fe2o3_amqp_types::messaging::{DeliveryState, Rejected};
use fe2o3_amqp_types::performatives::{Disposition, Performative, Transfer};
use fe2o3_amqp_types::primitives::{OrderedMap, Symbol};
use serde::{Deserialize, Serialize};
use serde_amqp::Value;
use serde_amqp::de::Deserializer;
use serde_amqp::descriptor::Descriptor;
use serde_amqp::read::IoReader;

use crate::message::text;

/// Largest frame that is taken and sent.
pub(crate) const MAX_FRAME: u32 = 65_536;

/// Smallest limit a peer may set.
const MIN_FRAME: u32 = 512;

/// Room kept for the transfer performative in each frame.
const TRANSFER_ROOM: usize = 128;

/// Bytes waiting to be written above which deliveries pause.
const HIGH_WATER: usize = 1 << 20;

/// What a frame belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameType {
    Amqp = 0,
    Sasl = 1,
}

/// A frame without its header. An empty body is a heartbeat.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) channel: u16,
    pub(crate) body: Bytes,
}

/// A frame that breaks the rules.
#[derive(Debug, thiserror::Error)]
#[error("a frame of {size} bytes with a header of {header}")]
pub(crate) struct FrameError {
    size: usize,
    header: usize,
}

/// Cuts the first frame off; `None` until it is complete.
pub(crate) fn take_frame(buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(start) = buffer.first_chunk::<8>() else { return Ok(None) };
    let size = u32::from_be_bytes([start[0], start[1], start[2], start[3]]) as usize;
    let header = usize::from(start[4]) * 4;
    let channel = u16::from_be_bytes([start[6], start[7]]);
    if size > MAX_FRAME as usize || header < 8 || header > size {
        return Err(FrameError { size, header });
    }
    if buffer.len() < size {
        buffer.reserve(size - buffer.len());
        return Ok(None);
    }
    let mut body = buffer.split_to(size).freeze();
    body.advance(header);
    Ok(Some(Frame { channel, body }))
}

/// Reads the performative of a frame; what follows it is payload.
pub(crate) fn decode_performative(body: &Bytes) -> Result<(Performative, Bytes), serde_amqp::Error> {
    let mut reader = body.clone().reader();
    match Performative::deserialize(&mut Deserializer::new(IoReader::new(&mut reader))) {
        Ok(performative) => Ok((performative, reader.into_inner())),
        Err(error) => lenient_rejection(body).map(|found| (found, Bytes::new())).ok_or(error),
    }
}

/// A rejecting disposition whose error info has strings for keys, where the standard wants symbols: the JavaScript
/// client writes it so.
fn lenient_rejection(body: &[u8]) -> Option<Performative> {
    const DISPOSITION: u64 = 0x15;
    const REJECTED: u64 = 0x25;
    let fields = described(&serde_amqp::from_slice(body).ok()?, DISPOSITION)?;
    let number = |index: usize| match fields.get(index) {
        Some(Value::Uint(number)) => Some(*number),
        _ => None,
    };
    let rejected = described(fields.get(4)?, REJECTED)?;
    let error = match rejected.first() {
        Some(Value::Described(error)) => match &error.value {
            Value::List(fields) => fields.clone(),
            _ => return None,
        },
        _ => return None,
    };
    let mut info = OrderedMap::new();
    if let Some(Value::Map(entries)) = error.get(2) {
        for (key, value) in entries {
            info.insert(Symbol::from(text(key)?), value.clone());
        }
    }
    let condition = ErrorCondition::Custom(Symbol::from(error.first().and_then(text)?));
    Some(Performative::Disposition(Disposition {
        role: Role::Receiver,
        first: number(1)?,
        last: number(2),
        settled: matches!(fields.get(3), Some(Value::Bool(true))),
        state: Some(DeliveryState::Rejected(Rejected {
            error: Some(Error::new(condition, None, Some(info))),
        })),
        batchable: false,
    }))
}

fn described(value: &Value, code: u64) -> Option<Vec<Value>> {
    let Value::Described(described) = value else { return None };
    match (&described.descriptor, &described.value) {
        (Descriptor::Code(found), Value::List(fields)) if *found == code => Some(fields.clone()),
        _ => None,
    }
}

/// The bytes going out.
#[derive(Debug)]
pub(crate) struct FrameWriter {
    /// Frames in full, to be written in order.
    pub(crate) buffer: BytesMut,
    max_frame: usize,
    trace: bool,
}

impl FrameWriter {
    pub(crate) fn new(trace: bool) -> Self {
        Self { buffer: BytesMut::new(), max_frame: MIN_FRAME as usize, trace }
    }

    /// Takes over what the peer can read.
    pub(crate) fn limit_frames(&mut self, peer: u32) {
        self.max_frame = peer.clamp(MIN_FRAME, MAX_FRAME) as usize;
    }

    /// Frames of a message of so many bytes.
    pub(crate) fn frames_for(&self, size: u64) -> u32 {
        u32::try_from(size.div_ceil((self.max_frame - TRANSFER_ROOM) as u64)).unwrap_or(u32::MAX)
    }

    /// Whether so much waits already that deliveries should pause.
    pub(crate) fn is_full(&self) -> bool {
        self.buffer.len() > HIGH_WATER
    }

    /// Appends a performative.
    pub(crate) fn send<T: Serialize + std::fmt::Debug>(
        &mut self,
        channel: u16,
        performative: &T,
    ) -> Result<(), serde_amqp::Error> {
        if self.trace {
            eprintln!("-> {channel} {performative:?}");
        }
        let body = serde_amqp::to_vec(performative)?;
        self.append(FrameType::Amqp, channel, &body, &[]);
        Ok(())
    }

    /// Appends a delivery in as many transfers as the peer's frames need; returns their number.
    pub(crate) fn transfer(
        &mut self,
        channel: u16,
        head: Transfer,
        payload: &[u8],
    ) -> Result<u32, serde_amqp::Error> {
        let mut next = head;
        let mut chunks = payload.chunks(self.max_frame - TRANSFER_ROOM).peekable();
        let mut frames = 0;
        while let Some(chunk) = chunks.next() {
            next.more = chunks.peek().is_some();
            if self.trace {
                eprintln!("-> {channel} {next:?} with {} bytes", chunk.len());
            }
            let body = serde_amqp::to_vec(&next)?;
            self.append(FrameType::Amqp, channel, &body, chunk);
            // Only the first transfer of a delivery says which it is.
            next.delivery_id = None;
            next.delivery_tag = None;
            next.message_format = None;
            frames += 1;
        }
        Ok(frames)
    }

    /// Appends a SASL frame.
    pub(crate) fn sasl<T: Serialize>(&mut self, body: &T) -> Result<(), serde_amqp::Error> {
        let body = serde_amqp::to_vec(body)?;
        self.append(FrameType::Sasl, 0, &body, &[]);
        Ok(())
    }

    /// Appends an empty frame.
    pub(crate) fn heartbeat(&mut self) {
        self.append(FrameType::Amqp, 0, &[], &[]);
    }

    fn append(&mut self, frame_type: FrameType, channel: u16, body: &[u8], payload: &[u8]) {
        let size = 8 + body.len() + payload.len();
        self.buffer.reserve(size);
        self.buffer.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
        self.buffer.put_u8(2);
        self.buffer.put_u8(frame_type as u8);
        self.buffer.put_u16(channel);
        self.buffer.put_slice(body);
        self.buffer.put_slice(payload);
    }
}

#[cfg(test)]
mod tests {
    use serde_amqp::described::Described;

    use super::*;

    fn described_list(code: u64, fields: Vec<Value>) -> Value {
        let value = Value::List(fields);
        Value::Described(Box::new(Described { descriptor: Descriptor::Code(code), value }))
    }

    #[test]
    fn a_delivery_is_cut_to_the_frames_the_peer_reads() {
        let mut writer = FrameWriter::new(false);
        writer.limit_frames(1);
        let head = Transfer {
            handle: 3.into(),
            delivery_id: Some(7),
            delivery_tag: Some(vec![1; 16].into()),
            message_format: Some(0),
            settled: Some(false),
            more: false,
            rcv_settle_mode: None,
            state: None,
            resume: false,
            aborted: false,
            batchable: false,
        };
        let content: Vec<u8> = (0..1000).map(|byte| (byte % 251) as u8).collect();
        assert_eq!(writer.transfer(5, head, &content).unwrap(), 3);
        assert_eq!(writer.frames_for(1000), 3);

        let mut received = Vec::new();
        let mut marks = Vec::new();
        while let Some(frame) = take_frame(&mut writer.buffer).unwrap() {
            assert!(frame.body.len() + 8 <= MIN_FRAME as usize);
            assert_eq!(frame.channel, 5);
            let (Performative::Transfer(transfer), payload) = decode_performative(&frame.body).unwrap()
            else {
                panic!("not a transfer");
            };
            received.extend_from_slice(&payload);
            marks.push((transfer.delivery_id, transfer.more));
        }
        assert_eq!(received, content);
        assert_eq!(marks, [(Some(7), true), (None, true), (None, false)]);
    }

    #[test]
    fn a_frame_is_taken_when_it_is_complete_and_refused_when_it_cannot_be() {
        let mut writer = FrameWriter::new(false);
        writer.heartbeat();
        let whole = writer.buffer;
        for length in 0..whole.len() {
            assert!(take_frame(&mut BytesMut::from(&whole[..length])).unwrap().is_none());
        }
        assert!(take_frame(&mut whole.clone()).unwrap().unwrap().body.is_empty());
        assert!(take_frame(&mut BytesMut::from(&b"GET / HTTP/1.1\r\n"[..])).is_err());
        assert!(take_frame(&mut BytesMut::from(&[0, 0, 0, 8, 9, 0, 0, 0][..])).is_err());
    }

    #[test]
    fn a_rejection_with_strings_for_keys_is_understood() {
        let mut info = OrderedMap::new();
        info.insert(Value::String("DeadLetterReason".to_owned()), Value::String("NotARaster".to_owned()));
        let condition = Value::Symbol(Symbol::from("com.microsoft:dead-letter"));
        let error = described_list(0x1d, vec![condition, Value::Null, Value::Map(info)]);
        let rejected = described_list(0x25, vec![error]);
        let fields = vec![Value::Bool(true), Value::Uint(4), Value::Null, Value::Bool(false), rejected];
        let body = serde_amqp::to_vec(&described_list(0x15, fields)).unwrap();
        let (performative, _) = decode_performative(&body.into()).unwrap();
        let Performative::Disposition(disposition) = performative else { panic!("not a disposition") };
        assert_eq!((disposition.first, disposition.last, disposition.settled), (4, None, false));
        let Some(DeliveryState::Rejected(rejected)) = disposition.state else { panic!("not rejected") };
        let info = rejected.error.unwrap().info.unwrap();
        let reason = info.get(&Symbol::from("DeadLetterReason"));
        assert_eq!(reason, Some(&Value::String("NotARaster".to_owned())));
    }
}
