//! Reading an object ahead of a process that reads it mostly in order: each range from a remote store takes its time, and
//! several at once take hardly longer.

use std::collections::VecDeque;
use std::sync::Arc;

use geoworker_blobs::{BlobError, Object};
use tokio::task::JoinHandle;

/// Bytes of a piece that is fetched at a time where reading is in order.
const PIECE: u64 = 4 << 20;
/// Bytes that are fetched where it is not.
const SINGLE: u64 = 256 << 10;
/// Pieces that are under way or kept. Times [`PIECE`], this is the memory of one operation.
const PIECES: usize = 10;
/// Memory that one object takes at most.
pub(crate) const READ_AHEAD_BYTES: u64 = PIECES as u64 * PIECE;
/// Pieces ahead of the reader.
const AHEAD: u64 = 3;
/// Places at which an object is read at once: pixels, and the hash of the whole.
const READERS: usize = 2;
/// A read that begins at most this far behind the end of the last one goes on in order.
const NEAR: u64 = 1 << 20;

/// A range of the object, here or under way.
struct Piece {
    offset: u64,
    length: u64,
    bytes: Fetched,
}

enum Fetched {
    UnderWay(JoinHandle<Result<Vec<u8>, BlobError>>),
    Here(Vec<u8>),
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Fetched::UnderWay(fetching) = &self.bytes {
            fetching.abort();
        }
    }
}

/// An object with what was read of it last and what will be read next.
pub(crate) struct ReadAhead {
    object: Arc<dyn Object>,
    /// The one that was used last is at the back.
    pieces: VecDeque<Piece>,
    /// Where the last reads ended: an object may be read at two places at once.
    ends: VecDeque<u64>,
}

impl ReadAhead {
    pub(crate) fn new(object: Arc<dyn Object>) -> Self {
        Self { object, pieces: VecDeque::new(), ends: VecDeque::from([0]) }
    }

    /// Reads up to `length` bytes from `offset` on: at least one, unless the object ends there.
    pub(crate) async fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        let size = self.object.facts().size_bytes;
        let length = (length as u64).min(size.saturating_sub(offset));
        if length == 0 {
            return Ok(Vec::new());
        }
        let follows = |end: &u64| offset.checked_sub(*end).is_some_and(|gap| gap <= NEAR);
        let before = self.ends.iter().position(follows);
        let in_order = before.is_some();
        if self.position(offset).is_none() {
            let wanted = if in_order { PIECE } else { length.max(SINGLE) };
            self.fetch(offset, wanted);
        }
        if in_order {
            self.fetch_ahead(offset);
        }
        let bytes = self.take(offset, length).await?;
        match before {
            Some(before) => drop(self.ends.remove(before)),
            None if self.ends.len() == READERS => drop(self.ends.pop_front()),
            None => {}
        }
        self.ends.push_back(offset + bytes.len() as u64);
        Ok(bytes)
    }

    fn position(&self, offset: u64) -> Option<usize> {
        self.pieces.iter().position(|piece| (piece.offset..piece.offset + piece.length).contains(&offset))
    }

    /// Begins to fetch a range, up to the object's end.
    fn fetch(&mut self, offset: u64, length: u64) {
        let length = length.min(self.object.facts().size_bytes.saturating_sub(offset));
        let object = Arc::clone(&self.object);
        let count = usize::try_from(length).unwrap_or(usize::MAX);
        let fetching = tokio::spawn(async move { object.read(offset, count).await });
        if self.pieces.len() == PIECES {
            self.pieces.pop_front();
        }
        self.pieces.push_back(Piece { offset, length, bytes: Fetched::UnderWay(fetching) });
    }

    /// Begins to fetch what follows the piece at an offset, piece after piece.
    fn fetch_ahead(&mut self, offset: u64) {
        let Some(piece) = self.position(offset).and_then(|found| self.pieces.get(found)) else { return };
        let mut next = piece.offset + piece.length;
        for _ in 0..AHEAD {
            if next >= self.object.facts().size_bytes {
                return;
            }
            match self.position(next) {
                Some(found) => next = self.pieces[found].offset + self.pieces[found].length,
                None => {
                    self.fetch(next, PIECE);
                    next += PIECE;
                }
            }
        }
    }

    /// Waits for the piece at `offset` and cuts out what it has of the range.
    async fn take(&mut self, offset: u64, length: u64) -> Result<Vec<u8>, BlobError> {
        let Some(mut piece) = self.position(offset).and_then(|found| self.pieces.remove(found)) else {
            // It was pushed out by the ones that follow it: never, since there are more places than pieces ahead.
            let count = usize::try_from(length).unwrap_or(usize::MAX);
            return self.object.read(offset, count).await;
        };
        if let Fetched::UnderWay(fetching) = &mut piece.bytes {
            let fetched = fetching.await.map_err(|error| BlobError::Unavailable(error.to_string()))??;
            piece.bytes = Fetched::Here(fetched);
        }
        let Fetched::Here(bytes) = &piece.bytes else { return Ok(Vec::new()) };
        let start = usize::try_from(offset - piece.offset).unwrap_or(usize::MAX).min(bytes.len());
        let end = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(start).min(bytes.len());
        let part = bytes[start..end].to_vec();
        self.pieces.push_back(piece);
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use async_trait::async_trait;
    use chrono::DateTime;
    use geoworker_blobs::{BlobFacts, BlobRef};

    use super::*;

    /// An object whose byte at `n` tells `n`, and which counts what is asked of it.
    #[derive(Debug)]
    struct Counted {
        facts: BlobFacts,
        reads: AtomicUsize,
        broken: AtomicBool,
    }

    fn byte(offset: u64) -> u8 {
        (offset.wrapping_mul(0x9E37_79B9) >> 16) as u8
    }

    #[async_trait]
    impl Object for Counted {
        fn facts(&self) -> &BlobFacts {
            &self.facts
        }

        async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            if self.broken.load(Ordering::Relaxed) {
                return Err(BlobError::Unavailable("no answer".into()));
            }
            assert!(offset + length as u64 <= self.facts.size_bytes, "reads end with the object");
            Ok((offset..offset + length as u64).map(byte).collect())
        }
    }

    fn object(size: u64) -> (Arc<Counted>, ReadAhead) {
        let blob = BlobRef::new("bronze", "in", "x");
        let facts =
            BlobFacts { blob, size_bytes: size, last_modified: DateTime::UNIX_EPOCH, etag: "1".into() };
        let object = Arc::new(Counted { facts, reads: AtomicUsize::new(0), broken: AtomicBool::new(false) });
        (Arc::clone(&object), ReadAhead::new(object))
    }

    async fn whole(reader: &mut ReadAhead, step: usize, size: u64) {
        let mut offset = 0;
        while offset < size {
            let bytes = reader.read(offset, step).await.expect("reads");
            assert!(!bytes.is_empty());
            assert!(bytes.iter().enumerate().all(|(n, found)| *found == byte(offset + n as u64)));
            offset += bytes.len() as u64;
        }
    }

    #[tokio::test]
    async fn reading_in_order_takes_one_request_for_each_piece() {
        let size = 5 * PIECE + 17;
        let (object, mut reader) = object(size);
        whole(&mut reader, 100_000, size).await;
        assert_eq!(object.reads.load(Ordering::Relaxed), 6);
        assert!(reader.read(size, 10).await.expect("reads").is_empty(), "there is nothing behind the end");
    }

    #[tokio::test]
    async fn jumps_fetch_little_and_give_the_right_bytes() {
        let size = 40 * PIECE;
        let (object, mut reader) = object(size);
        for n in 1..20 {
            let offset = (n * 7 % 20) * 2 * PIECE + n;
            let bytes = reader.read(offset, 1000).await.expect("reads");
            assert_eq!(bytes, (offset..offset + 1000).map(byte).collect::<Vec<_>>());
        }
        assert!(object.reads.load(Ordering::Relaxed) <= 19 + AHEAD as usize);
        assert!(reader.pieces.iter().map(|piece| piece.length).sum::<u64>() <= PIECES as u64 * PIECE);
    }

    #[tokio::test]
    async fn a_failure_is_told_and_the_next_read_tries_again() {
        let (object, mut reader) = object(100);
        object.broken.store(true, Ordering::Relaxed);
        assert!(matches!(reader.read(0, 10).await, Err(BlobError::Unavailable(_))));
        object.broken.store(false, Ordering::Relaxed);
        assert_eq!(reader.read(0, 10).await.expect("reads").len(), 10);
    }
}
