//! A DEFLATE encoder for rasters, where predictors leave noise: Huffman codes do most of the work, and only
//! repetitions that are found at the first look, and that are shorter than their literals, are taken.
//!
//! On noise it is smaller than libdeflate's level 6, whose many short repetitions cost more than they save, and
//! several times faster.

use super::{
    bits::Bits,
    block,
    matches::{Matches, Prices, Sequence},
};
use libdeflater::adler32;

/// Bytes of a block: less and the codes' lengths cost more than better codes save.
const BLOCK: usize = 1 << 17;
/// A window of 32 KiB, no dictionary, and a check value that makes it a multiple of 31 (RFC 1950).
const ZLIB_HEADER: [u8; 2] = [0x78, 0x01];

/// The encoder; keeps its buffers between tiles.
pub(in super::super) struct Fast {
    matches: Matches,
    sequences: Vec<Sequence>,
}

impl Fast {
    pub(in super::super) fn new() -> Self {
        Self { matches: Matches::new(), sequences: Vec::new() }
    }

    /// Appends `bytes` as one zlib stream. They are fewer than 4 GiB.
    pub(in super::super) fn compress(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&ZLIB_HEADER);
        self.matches.clear();
        let mut bits = Bits::new(out);
        let mut start = 0;
        loop {
            let end = bytes.len().min(start + BLOCK);
            let block = &bytes[start..end];
            self.sequences.clear();
            self.matches.find(bytes, start, end, &Prices::new(block), &mut self.sequences);
            let last = end == bytes.len();
            block::write(&mut bits, block, &self.sequences, last);
            start = end;
            if last {
                break;
            }
        }
        bits.finish();
        out.extend_from_slice(&adler32(bytes).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn there_and_back(fast: &mut Fast, bytes: &[u8]) -> usize {
        let mut out = vec![1, 2];
        fast.compress(bytes, &mut out);
        let mut back = Vec::new();
        flate2::read::ZlibDecoder::new(&out[2..]).read_to_end(&mut back).unwrap();
        assert!(back == bytes);
        // A second opinion.
        let mut back = vec![0; bytes.len()];
        let mut decoder = libdeflater::Decompressor::new();
        assert_eq!(decoder.zlib_decompress(&out[2..], &mut back), Ok(bytes.len()));
        assert!(back == bytes);
        out.len() - 2
    }

    fn noise(mut state: u64) -> impl Iterator<Item = u8> {
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
    }

    #[test]
    fn extremes() {
        let mut fast = Fast::new();
        there_and_back(&mut fast, &[]);
        there_and_back(&mut fast, &[5]);
        assert!(there_and_back(&mut fast, &vec![0; 1 << 20]) < 2000);
        let all: Vec<u8> = noise(1).take(300_000).collect();
        assert!(there_and_back(&mut fast, &all) < 300_100, "noise is stored");
        // Frequencies like Fibonacci's numbers make codes longer than allowed.
        let mut skewed = Vec::new();
        let (mut a, mut b) = (1, 1);
        for byte in 0..24u8 {
            skewed.extend(std::iter::repeat_n(byte, a));
            (a, b) = (b, a + b);
        }
        let mut order: Vec<(u8, u8)> = noise(3).zip(skewed).collect();
        order.sort_by_key(|(key, _)| *key);
        let shuffled: Vec<u8> = order.into_iter().map(|(_, byte)| byte).collect();
        there_and_back(&mut fast, &shuffled);
    }

    #[test]
    fn lengths_around_a_block() {
        let mut fast = Fast::new();
        let bytes: Vec<u8> = noise(2).map(|byte| byte & 7).take(BLOCK * 2 + 9).collect();
        for length in [BLOCK - 1, BLOCK, BLOCK + 1, BLOCK * 2 + 9] {
            there_and_back(&mut fast, &bytes[..length]);
        }
    }

    proptest! {
        #[test]
        fn any_bytes(
            words in proptest::collection::vec(proptest::collection::vec(0u8..200, 1..20), 1..6),
            order in proptest::collection::vec((0usize..6, 1usize..40), 0..300),
        ) {
            let bytes: Vec<u8> =
                order.iter().flat_map(|(word, times)| words[word % words.len()].repeat(*times)).collect();
            there_and_back(&mut Fast::new(), &bytes);
        }
    }
}
