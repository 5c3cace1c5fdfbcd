//! Blocks of DEFLATE: a Huffman code for the block, or the bytes as they are.

use super::{
    bits::Bits,
    huffman::Code,
    matches::Sequence,
    symbols::{DISTANCES, END_OF_BLOCK, LITERALS_AND_LENGTHS, of_distance, of_length},
};

/// 4 literals and 7 waiting bits fit 63 bits.
const LONGEST_CODE: usize = 14;
const LONGEST_LENGTH_CODE: usize = 7;
/// Symbols for the lengths of codes (RFC 1951, 3.2.7), of which two are used here for repetitions.
const LENGTH_SYMBOLS: usize = 19;
const REPEAT: u8 = 16;
const ZEROS: u8 = 17;
const MANY_ZEROS: u8 = 18;
const LENGTH_ORDER: [usize; LENGTH_SYMBOLS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const MOST_STORED: usize = 65535;

/// How often each symbol occurs in a block.
pub(super) struct Frequencies {
    literals: [u32; LITERALS_AND_LENGTHS],
    distances: [u32; DISTANCES],
}

impl Frequencies {
    /// Of a block's bytes and its sequences.
    pub(super) fn new(block: &[u8], sequences: &[Sequence]) -> Self {
        let mut this = Self { literals: [0; LITERALS_AND_LENGTHS], distances: [0; DISTANCES] };
        let mut counts = [[0u32; 256]; 4];
        let mut rest = block;
        for sequence in sequences {
            let (literals, after) = rest.split_at(sequence.literals as usize);
            count_more(literals, &mut counts);
            rest = &after[sequence.length as usize..];
            if sequence.length > 0 {
                this.literals[of_length(sequence.length).symbol] += 1;
                this.distances[of_distance(sequence.distance).symbol] += 1;
            }
        }
        this.literals[..256].copy_from_slice(&sum(&counts));
        this.literals[END_OF_BLOCK] = 1;
        this
    }
}

/// How often each byte comes.
pub(super) fn count_bytes(bytes: &[u8]) -> [u32; 256] {
    let mut counts = [[0; 256]; 4];
    count_more(bytes, &mut counts);
    sum(&counts)
}

fn sum(counts: &[[u32; 256]; 4]) -> [u32; 256] {
    std::array::from_fn(|byte| counts.iter().map(|counts| counts[byte]).sum())
}

/// Four counters for each byte, as the same one often comes several times in a row and would wait for itself.
fn count_more(bytes: &[u8], counts: &mut [[u32; 256]; 4]) {
    let (fours, rest) = bytes.as_chunks::<4>();
    let [a, b, c, d] = counts;
    for four in fours {
        a[usize::from(four[0])] += 1;
        b[usize::from(four[1])] += 1;
        c[usize::from(four[2])] += 1;
        d[usize::from(four[3])] += 1;
    }
    for byte in rest {
        a[usize::from(*byte)] += 1;
    }
}

/// Writes one block, in the shorter of the two ways.
pub(super) fn write(bits: &mut Bits<'_>, block: &[u8], sequences: &[Sequence], last: bool) {
    let frequencies = Frequencies::new(block, sequences);
    let literals = Code::new(&frequencies.literals, LONGEST_CODE);
    let distances = Code::new(&frequencies.distances, LONGEST_CODE);
    let extra: u64 = sequences
        .iter()
        .filter(|sequence| sequence.length > 0)
        .map(|s| u64::from(of_length(s.length).extra_bits + of_distance(s.distance).extra_bits))
        .sum();
    let body = literals.cost(&frequencies.literals) + distances.cost(&frequencies.distances) + extra;
    // The header takes less than 256 bytes.
    if body / 8 + 64 > block.len() as u64 {
        return store(bits, block, last);
    }
    bits.room((body / 8) as usize + 512);
    bits.put(u32::from(last), 1);
    bits.put(2, 2);
    write_codes(bits, &literals.lengths, &distances.lengths);
    write_sequences(bits, block, sequences, &literals, &distances);
    put(bits, literals.of(END_OF_BLOCK));
    bits.flush();
}

fn store(bits: &mut Bits<'_>, mut block: &[u8], last: bool) {
    loop {
        let (piece, rest) = block.split_at(block.len().min(MOST_STORED));
        bits.room(8);
        bits.put(u32::from(last && rest.is_empty()), 1);
        bits.put(0, 2);
        bits.align();
        let length = piece.len() as u16;
        bits.put(u32::from(length), 16);
        bits.put(u32::from(!length), 16);
        bits.flush();
        bits.bytes(piece);
        if rest.is_empty() {
            return;
        }
        block = rest;
    }
}

#[inline]
fn put(bits: &mut Bits<'_>, (word, count): (u32, u32)) {
    bits.put(word, count);
}

fn write_sequences(
    bits: &mut Bits<'_>,
    block: &[u8],
    sequences: &[Sequence],
    literals: &Code<LITERALS_AND_LENGTHS>,
    distances: &Code<DISTANCES>,
) {
    let mut rest = block;
    for sequence in sequences {
        let (bytes, after) = rest.split_at(sequence.literals as usize);
        rest = &after[sequence.length as usize..];
        let (fours, few) = bytes.as_chunks::<4>();
        for four in fours {
            for byte in four {
                put(bits, literals.of(usize::from(*byte)));
            }
            bits.flush();
        }
        for byte in few {
            put(bits, literals.of(usize::from(*byte)));
        }
        bits.flush();
        if sequence.length == 0 {
            continue;
        }
        // 14 + 5 + 14 + 13 bits at most.
        let length = of_length(sequence.length);
        put(bits, literals.of(length.symbol));
        bits.put(length.extra, length.extra_bits);
        let distance = of_distance(sequence.distance);
        put(bits, distances.of(distance.symbol));
        bits.put(distance.extra, distance.extra_bits);
        bits.flush();
    }
}

/// The header of a block: the lengths of both codes, run-length encoded, and with a Huffman code themselves.
fn write_codes(bits: &mut Bits<'_>, literals: &[u8], distances: &[u8]) {
    let literals = &literals[..used(literals).max(257)];
    let distances = &distances[..used(distances).max(1)];
    let lengths = [literals, distances].concat();
    let runs = run_lengths(&lengths);
    let mut frequencies = [0; LENGTH_SYMBOLS];
    for (symbol, _) in &runs {
        frequencies[usize::from(*symbol)] += 1;
    }
    // Decoders want this code complete: two symbols at least.
    frequencies[0] += 1;
    frequencies[usize::from(MANY_ZEROS)] += 1;
    let code = Code::new(&frequencies, LONGEST_LENGTH_CODE);
    let ordered = LENGTH_ORDER.map(|symbol| code.lengths[symbol]);
    let ordered = &ordered[..used(&ordered).max(4)];
    bits.put(literals.len() as u32 - 257, 5);
    bits.put(distances.len() as u32 - 1, 5);
    bits.put(ordered.len() as u32 - 4, 4);
    for length in ordered {
        bits.flush();
        bits.put(u32::from(*length), 3);
    }
    for (symbol, extra) in runs {
        bits.flush();
        put(bits, code.of(usize::from(symbol)));
        let extra_bits = match symbol {
            REPEAT => 2,
            ZEROS => 3,
            MANY_ZEROS => 7,
            _ => 0,
        };
        bits.put(extra, extra_bits);
    }
    bits.flush();
}

/// Without the zeros at the end.
fn used(lengths: &[u8]) -> usize {
    lengths.iter().rposition(|length| *length > 0).map_or(0, |last| last + 1)
}

/// Symbols, and the numbers that come after them.
fn run_lengths(lengths: &[u8]) -> Vec<(u8, u32)> {
    let mut runs = Vec::with_capacity(lengths.len());
    for run in lengths.chunk_by(|a, b| a == b) {
        let length = run[0];
        let mut left = run.len();
        if length > 0 {
            runs.push((length, 0));
            left -= 1;
        }
        while left >= 3 {
            let (symbol, most, least) = match (length, left) {
                (0, 11..) => (MANY_ZEROS, 138, 11),
                (0, _) => (ZEROS, 10, 3),
                _ => (REPEAT, 6, 3),
            };
            let some = left.min(most);
            runs.push((symbol, (some - least) as u32));
            left -= some;
        }
        runs.extend(std::iter::repeat_n((length, 0), left));
    }
    runs
}
