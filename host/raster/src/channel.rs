//! How a native process reads an object: it asks its supervisor on its standard input, which is a socket.
//!
//! A question is an offset (8 bytes) and a length (4 bytes), both little-endian. An answer is a status byte, a length (4
//! bytes) and as many bytes: of the object where the status is [`FOUND`], of a [`RasterError`] as JSON where it is [`FAILED`].

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;

use crate::error::{NATIVE_PROTOCOL, RasterError};
use crate::object::ReadAt;

/// Bytes of a question.
pub const QUESTION: usize = 12;
/// Longest range of one question.
pub const LONGEST: usize = 8 << 20;
/// Status of an answer with bytes.
pub const FOUND: u8 = 0;
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
    pub fn over(socket: &impl AsFd) -> std::io::Result<Self> {
        let owned: OwnedFd = socket.as_fd().try_clone_to_owned()?;
        Ok(Self { stream: Mutex::new(UnixStream::from(owned)) })
    }

    fn ask(&self, offset: u64, buffer: &mut [u8]) -> std::io::Result<Result<usize, RasterError>> {
        let length = buffer.len().min(LONGEST);
        let mut question = [0; QUESTION];
        question[..8].copy_from_slice(&offset.to_le_bytes());
        question[8..].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        let mut stream = self.stream.lock().map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        stream.write_all(&question)?;
        let mut head = [0; 5];
        stream.read_exact(&mut head)?;
        let count = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] == FOUND && count <= length {
            stream.read_exact(&mut buffer[..count])?;
            return Ok(Ok(count));
        }
        let mut text = Vec::new();
        (&mut *stream).take(count as u64).read_to_end(&mut text)?;
        Ok(Err(serde_json::from_slice(&text)?))
    }
}

impl ReadAt for Channel {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, RasterError> {
        let gone = |error: std::io::Error| RasterError {
            code: NATIVE_PROTOCOL.into(),
            message: format!("the supervisor does not answer: {error}"),
            class: "transient".into(),
        };
        self.ask(offset, buffer).map_err(gone)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers one question with `answer` and returns the question.
    fn answered(answer: Vec<u8>, room: usize) -> ((u64, u32), Result<Vec<u8>, RasterError>) {
        let (child, mut parent) = UnixStream::pair().expect("a pair");
        let supervisor = std::thread::spawn(move || {
            let mut question = [0; QUESTION];
            parent.read_exact(&mut question).expect("asks");
            parent.write_all(&answer).expect("answers");
            let (offset, length) = question.split_at(8);
            (
                u64::from_le_bytes(offset.try_into().expect("8")),
                u32::from_le_bytes(length.try_into().expect("4")),
            )
        });
        let mut buffer = vec![0; room];
        let read = Channel::over(&child).expect("opens").read_at(1 << 40, &mut buffer);
        let read = read.map(|count| buffer[..count].to_vec());
        (supervisor.join().expect("ends"), read)
    }

    #[test]
    fn ranges_and_failures_come_through() {
        let (question, read) = answered([&[FOUND, 3, 0, 0, 0][..], b"abc"].concat(), 10);
        assert_eq!((question, read.expect("reads")), ((1 << 40, 10), b"abc".to_vec()));
        let error = RasterError::permanent("BLOB_NOT_FOUND", "it is gone");
        let text = serde_json::to_vec(&error).expect("is JSON");
        let length = u32::try_from(text.len()).expect("is short").to_le_bytes();
        let (_, read) = answered([&[FAILED][..], &length, &text].concat(), 10);
        assert_eq!(read.expect_err("fails"), error);
    }

    #[test]
    fn a_supervisor_that_is_gone_or_talks_nonsense_is_an_error() {
        let (_, read) = answered(vec![FOUND, 9, 0], 10);
        assert_eq!(read.expect_err("fails").code, NATIVE_PROTOCOL);
        // More than was asked for.
        let (_, read) = answered([&[FOUND, 11, 0, 0, 0][..], &[b'x'; 11]].concat(), 10);
        assert_eq!(read.expect_err("fails").code, NATIVE_PROTOCOL);
    }
}
