//! Finds repetitions, quickly rather than thoroughly.

use super::{
    block::count_bytes,
    symbols::{FARTHEST, LONGEST},
};

/// Literals, and then perhaps a repetition.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sequence {
    /// Bytes that come as they are.
    pub(super) literals: u32,
    /// Bytes that repeat earlier ones: 3 to 258, or 0 for none (at the end of a block).
    pub(super) length: u32,
    /// How far back the earlier ones begin.
    pub(super) distance: u32,
}

/// Remembers for each hash of some bytes where it came last.
pub(super) struct Matches {
    /// The lower 16 bits of positions, so that the table fits the first-level cache. Old positions look new
    /// after 64 KiB, which does no harm: the bytes there are compared.
    table: Box<[u16; SLOTS]>,
}

const SLOT_BITS: u32 = 14;
const SLOTS: usize = 1 << SLOT_BITS;
/// After 2^n bytes without a repetition the search takes steps of 2 bytes, after twice as many of 3, and so on.
const PATIENCE: u32 = 6;
/// More would save nothing, and miss where noise ends (a tile that is half nodata).
const LONGEST_STEP: usize = 31;

impl Matches {
    pub(super) fn new() -> Self {
        Self { table: Box::new([0; SLOTS]) }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.table.fill(0);
    }

    /// Appends the sequences of `bytes[start..end]`; repetitions may begin before. Those that would cost more than
    /// their literals are not taken.
    pub(super) fn find(
        &mut self,
        bytes: &[u8],
        start: usize,
        end: usize,
        prices: &Prices,
        found: &mut Vec<Sequence>,
    ) {
        let block = &bytes[..end];
        let ignored = 64 - 8 * prices.shortest;
        let mut done = start;
        let mut at = start;
        while let Some(word) = word_at(block, at) {
            let slot = &mut self.table[slot_of(word << ignored)];
            let distance = usize::from((at as u16).wrapping_sub(*slot));
            *slot = at as u16;
            let differ = match word_at(block, at.wrapping_sub(distance)) {
                Some(earlier) if distance.wrapping_sub(1) < FARTHEST => earlier ^ word,
                _ => 1,
            };
            if differ << ignored != 0 || !prices.worth(word, differ, distance) {
                at += 1 + ((at - done) >> PATIENCE).min(LONGEST_STEP);
                continue;
            }
            let (from, length) = extend(block, done, at, distance, differ);
            found.push(Sequence {
                literals: (from - done) as u32,
                length: length as u32,
                distance: distance as u32,
            });
            done = from + length;
            at = done;
            // One place near the end, so that a run goes on with the shortest distance.
            if let Some(word) = word_at(block, done - 1) {
                self.table[slot_of(word << ignored)] = (done - 1) as u16;
            }
        }
        if done < end {
            found.push(Sequence { literals: (end - done) as u32, length: 0, distance: 0 });
        }
    }
}

/// Makes a repetition that was found at `at` as long as possible in both directions, but not before `done`.
/// `differ` is 0 where its first 8 bytes are the same.
#[inline]
fn extend(block: &[u8], done: usize, at: usize, distance: usize, differ: u64) -> (usize, usize) {
    let mut length = (differ.trailing_zeros() / 8) as usize;
    if differ == 0 {
        length += same(block, at - distance + length, at + length);
    }
    let mut from = at;
    while from > done && from > distance && length < LONGEST && block[from - 1] == block[from - 1 - distance]
    {
        from -= 1;
        length += 1;
    }
    (from, length)
}

#[inline]
fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline]
fn slot_of(hashed: u64) -> usize {
    (hashed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - SLOT_BITS)) as usize
}

/// How many bytes are the same from two places on; 8 less than the longest match at most.
#[inline]
fn same(bytes: &[u8], earlier: usize, at: usize) -> usize {
    let limit = (LONGEST - 8).min(bytes.len() - at);
    let (a, b) = (&bytes[earlier..earlier + limit], &bytes[at..at + limit]);
    let mut length = 0;
    for (x, y) in a.as_chunks().0.iter().zip(b.as_chunks().0) {
        let differ = u64::from_le_bytes(*x) ^ u64::from_le_bytes(*y);
        if differ != 0 {
            return length + (differ.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    length + a[length..].iter().zip(&b[length..]).take_while(|(x, y)| x == y).count()
}

/// What bytes cost as literals and as repetitions, in 1/8 bits.
pub(super) struct Prices {
    literals: [u8; 256],
    /// Fewest bytes that are hashed and compared: shorter repetitions are hardly worth their bits.
    shortest: u32,
}

/// The code of a length and that of a distance, about.
const CODES: u32 = 12 * 8;
/// What the bytes of a repetition must cost on the average, in bits.
const MIDDLING: f32 = 21.0;

impl Prices {
    /// For a block of bytes, as if all became literals.
    pub(super) fn new(block: &[u8]) -> Self {
        let counts = count_bytes(block);
        let total = block.len().max(1) as f32;
        let bits = counts.map(|count| (total / count.max(1) as f32).log2());
        let all: f32 = counts.iter().zip(bits).map(|(count, bits)| *count as f32 * bits).sum();
        let shortest = (MIDDLING * total / all.max(1.0)).ceil().clamp(4.0, 8.0) as u32;
        Self { literals: bits.map(|bits| (bits * 8.0) as u8), shortest }
    }

    /// Whether the same bytes at a distance are cheaper than those of `word`, up to the first that differ.
    #[inline]
    fn worth(&self, word: u64, differ: u64, distance: usize) -> bool {
        if differ == 0 {
            return true;
        }
        let same = word.to_le_bytes().into_iter().take((differ.trailing_zeros() / 8) as usize);
        let literals: u32 = same.map(|byte| u32::from(self.literals[usize::from(byte)])).sum();
        literals > CODES + 8 * (distance | 1).ilog2()
    }
}
