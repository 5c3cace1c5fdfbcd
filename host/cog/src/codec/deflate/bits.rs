//! Bits in DEFLATE's order: the lowest of a byte first.

/// Writes bits to a vector. A caller that asks for [`room`](Self::room) first never waits for it to grow.
pub(super) struct Bits<'a> {
    out: &'a mut Vec<u8>,
    /// Bytes written; the vector is longer while the writer lives.
    end: usize,
    /// The lower `count` bits come next; all others are 0.
    bits: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    /// Appends to `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        let end = out.len();
        Self { out, end, bits: 0, count: 0 }
    }

    /// Makes room for so many bytes; without it, bits are lost.
    pub(super) fn room(&mut self, bytes: usize) {
        self.out.resize(self.end + bytes + 8, 0);
    }

    /// Adds bits; 63 at most may be waiting, so [`flush`](Self::flush) in time.
    #[inline]
    pub(super) fn put(&mut self, bits: u32, count: u32) {
        self.bits |= u64::from(bits) << self.count;
        self.count += count;
    }

    /// Writes all whole bytes, so that 7 bits at most are waiting.
    #[inline]
    pub(super) fn flush(&mut self) {
        if let Some(to) = self.out.get_mut(self.end..).and_then(|rest| rest.first_chunk_mut()) {
            *to = self.bits.to_le_bytes();
        }
        self.end += (self.count / 8) as usize;
        self.bits >>= self.count & !7;
        self.count &= 7;
    }

    /// Fills the last byte with zeros.
    pub(super) fn align(&mut self) {
        self.flush();
        self.count = self.count.next_multiple_of(8);
        self.flush();
    }

    /// Whole bytes, after [`align`](Self::align).
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.room(bytes.len());
        self.out[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// The end; the last byte is filled with zeros.
    pub(super) fn finish(mut self) {
        self.align();
        self.out.truncate(self.end);
    }
}
