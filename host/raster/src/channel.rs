//! How a native process reads and writes objects: it asks its supervisor on its standard input, which is a socket.
//!
//! A question is what is asked for (1 byte, see [`Ask`]), a number (8 bytes) and a length (4 bytes), little-endian, and as
//! many bytes as a block or an order has. An answer is a status byte, a length (4 bytes) and as many bytes: what was asked
//! for where the status is [`DONE`], a [`RasterError`] as JSON where it is [`FAILED`].

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use crate::error::{NATIVE_PROTOCOL, RasterError};
use crate::object::{ObjectFacts, Remote};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Ask {
    /// Bytes of the source: the number is the offset, the length that of the range.
    ReadSource = 0,
    /// Bytes of the sealed output.
    ReadOutput = 1,
    /// A block of the output is to be uploaded: the number is the block's, the length that of the bytes behind.
    PutBlock = 2,
    /// The output is its blocks in this order: their numbers (4 bytes each) are behind. The answer is [`ObjectFacts`] as JSON.
    Seal = 3,
}

impl Ask {
    /// Reads the byte of a question.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::ReadSource, Self::ReadOutput, Self::PutBlock, Self::Seal]
            .into_iter()
            .find(|ask| *ask as u8 == byte)
    }
}

/// Bytes of a question, without what is behind.
pub const QUESTION: usize = 13;
/// Longest range of one question.
pub const LONGEST_RANGE: usize = 8 << 20;
/// Longest that may be behind a question.
pub const LONGEST_PAYLOAD: usize = 16 << 20;
/// Status of an answer with what was asked for.
pub const DONE: u8 = 0;
/// Status of an answer with an error.
pub const FAILED: u8 = 1;

/// The child's end.
#[derive(Debug)]
pub struct Channel {
    stream: Mutex<UnixStream>,
}

impl Channel {
    /// Over an open socket, such as standard input. Nothing that was sent there may be buffered elsewhere.
    ///
    /// # Errors
    /// Where it cannot be duplicated.
    pub fn over(socket: &impl AsFd) -> io::Result<Self> {
        let owned: OwnedFd = socket.as_fd().try_clone_to_owned()?;
        Ok(Self { stream: Mutex::new(UnixStream::from(owned)) })
    }

    /// Asks, and puts what `answer` makes of the bytes that come.
    fn ask<T>(
        &self,
        (ask, number, length): (Ask, u64, usize),
        payload: &[u8],
        answer: impl FnOnce(&mut dyn Read, usize) -> io::Result<T>,
    ) -> Result<T, RasterError> {
        let asked = || -> io::Result<Result<T, RasterError>> {
            let mut question = [ask as u8; QUESTION];
            question[1..9].copy_from_slice(&number.to_le_bytes());
            question[9..].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
            let mut stream = self.stream.lock().map_err(|_| io::ErrorKind::BrokenPipe)?;
            stream.write_all(&question)?;
            stream.write_all(payload)?;
            let mut head = [0; 5];
            stream.read_exact(&mut head)?;
            let count = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if head[0] == DONE {
                return answer(&mut *stream, count).map(Ok);
            }
            Ok(Err(serde_json::from_slice(&exactly(&mut *stream, count)?)?))
        };
        asked().map_err(|error| RasterError {
            code: NATIVE_PROTOCOL.into(),
            message: format!("the supervisor does not answer: {error}"),
            class: "transient".into(),
        })?
    }
}

fn exactly(stream: &mut dyn Read, count: usize) -> io::Result<Vec<u8>> {
    if count > LONGEST_PAYLOAD {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl Remote for Channel {
    fn read(&self, output: bool, offset: u64, buffer: &mut [u8]) -> Result<usize, RasterError> {
        let length = buffer.len().min(LONGEST_RANGE);
        let ask = if output { Ask::ReadOutput } else { Ask::ReadSource };
        self.ask((ask, offset, length), &[], |stream, count| {
            let room = buffer.get_mut(..count).filter(|room| room.len() <= length);
            stream.read_exact(room.ok_or(io::ErrorKind::InvalidData)?)?;
            Ok(count)
        })
    }

    fn put(&self, number: u32, bytes: &[u8]) -> Result<(), RasterError> {
        self.ask((Ask::PutBlock, u64::from(number), bytes.len()), bytes, |_, _| Ok(()))
    }

    fn seal(&self, order: &[u32]) -> Result<ObjectFacts, RasterError> {
        let payload: Vec<u8> = order.iter().flat_map(|number| number.to_le_bytes()).collect();
        self.ask((Ask::Seal, 0, payload.len()), &payload, |stream, count| {
            Ok(serde_json::from_slice(&exactly(stream, count)?)?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one question of a `payload`-byte block or order with `answer`; returns what was asked.
    fn answered<T>(
        answer: Vec<u8>,
        payload: usize,
        ask: impl FnOnce(&Channel) -> Result<T, RasterError>,
    ) -> (Vec<u8>, Result<T, RasterError>) {
        let (child, mut parent) = UnixStream::pair().expect("a pair");
        let supervisor = std::thread::spawn(move || {
            let mut question = vec![0; QUESTION + payload];
            parent.read_exact(&mut question).expect("asks");
            parent.write_all(&answer).expect("answers");
            question
        });
        let outcome = ask(&Channel::over(&child).expect("opens"));
        (supervisor.join().expect("ends"), outcome)
    }

    fn read(answer: Vec<u8>) -> (Vec<u8>, Result<Vec<u8>, RasterError>) {
        answered(answer, 0, |channel| {
            let mut buffer = vec![0; 10];
            channel.read(false, 1 << 40, &mut buffer).map(|count| buffer[..count].to_vec())
        })
    }

    #[test]
    fn ranges_blocks_and_failures_come_through() {
        let (question, bytes) = read([&[DONE, 3, 0, 0, 0][..], b"abc"].concat());
        assert_eq!(question, [0, 0, 0, 0, 0, 0, 1, 0, 0, 10, 0, 0, 0]);
        assert_eq!(bytes.expect("reads"), b"abc");
        let (question, put) = answered(vec![DONE, 0, 0, 0, 0], 2, |channel| channel.put(7, b"xy"));
        assert_eq!(question, [2, 7, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, b'x', b'y']);
        put.expect("is put");
        let error = RasterError::permanent("BLOB_NOT_FOUND", "it is gone");
        let text = serde_json::to_vec(&error).expect("is JSON");
        let length = u32::try_from(text.len()).expect("is short").to_le_bytes();
        let (question, sealed) =
            answered([&[FAILED][..], &length, &text].concat(), 8, |channel| channel.seal(&[2, 1]));
        assert_eq!(question[QUESTION..], [2, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(sealed.expect_err("fails"), error);
    }

    #[test]
    fn a_supervisor_that_is_gone_or_talks_nonsense_is_an_error() {
        let (_, bytes) = read(vec![DONE, 9, 0]);
        assert_eq!(bytes.expect_err("fails").code, NATIVE_PROTOCOL);
        // More than was asked for.
        let (_, bytes) = read([&[DONE, 11, 0, 0, 0][..], &[b'x'; 11]].concat());
        assert_eq!(bytes.expect_err("fails").code, NATIVE_PROTOCOL);
    }

    #[test]
    fn every_question_has_its_byte() {
        for ask in [Ask::ReadSource, Ask::ReadOutput, Ask::PutBlock, Ask::Seal] {
            assert_eq!(Ask::from_byte(ask as u8), Some(ask));
        }
        assert_eq!(Ask::from_byte(9), None);
    }
}
