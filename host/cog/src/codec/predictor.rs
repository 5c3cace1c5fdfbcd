//! TIFF predictors: what is done to the rows of a tile before a lossless codec sees them.
//!
//! The loops are plain safe Rust over arrays of bytes, which needs no alignment. The compiler turns them into
//! SSE2 (the baseline of x86-64): some GB/s, so that AVX2 would gain nothing next to a compressor's 0.05-0.5 GB/s.

use super::CodecError;
use crate::sample::SampleType;

/// Predictor of a lossless codec; the values are those of the TIFF tag 317.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Predictor {
    /// Samples as they are.
    #[default]
    None = 1,
    /// Difference to the same band's sample to the left, as integers of the sample's size (also for floats).
    Horizontal = 2,
    /// Floating-point rows split into planes of bytes, the most significant first, then differences of bytes.
    FloatingPoint = 3,
}

impl Predictor {
    /// The value of the TIFF tag Predictor (317).
    #[must_use]
    pub const fn tag(self) -> u16 {
        self as u16
    }

    /// Whether readers (libtiff) take this predictor with this type: horizontal wants words of 8, 16, 32 or 64 bit,
    /// floating-point wants floats that are not complex.
    #[must_use]
    pub const fn takes(self, sample: SampleType) -> bool {
        match self {
            Self::None => true,
            Self::Horizontal => sample.bytes() <= 8,
            Self::FloatingPoint => matches!(sample, SampleType::F32 | SampleType::F64),
        }
    }
}

/// Applies a predictor to rows in place; keeps its buffer of one row.
#[derive(Debug)]
pub(super) struct Rows {
    predictor: Predictor,
    word: usize,
    samples: usize,
    row_bytes: usize,
    row: Vec<u8>,
}

impl Rows {
    pub(super) fn new(
        predictor: Predictor,
        sample: SampleType,
        samples: usize,
        width: usize,
    ) -> Result<Self, CodecError> {
        if !predictor.takes(sample) {
            return Err(CodecError::PredictorType { predictor, sample });
        }
        let row_bytes = width * samples * sample.bytes();
        Ok(Self { predictor, word: sample.bytes(), samples, row_bytes, row: vec![0; row_bytes] })
    }

    /// Replaces each row of `pixels` (whole rows, pixel-interleaved, native byte order) by what the codec gets.
    pub(super) fn apply(&mut self, pixels: &mut [u8]) {
        match self.predictor {
            Predictor::None => {}
            Predictor::Horizontal => self.horizontal(pixels),
            Predictor::FloatingPoint => self.floating_point(pixels),
        }
    }

    fn horizontal(&mut self, pixels: &mut [u8]) {
        for row in pixels.chunks_exact_mut(self.row_bytes) {
            self.row.copy_from_slice(row);
            match self.word {
                1 => differ_bytes(row, &self.row, self.samples),
                2 => differ_words(row, &self.row, self.samples, |a, b| {
                    u16::from_ne_bytes(a).wrapping_sub(u16::from_ne_bytes(b)).to_ne_bytes()
                }),
                4 => differ_words(row, &self.row, self.samples, |a, b| {
                    u32::from_ne_bytes(a).wrapping_sub(u32::from_ne_bytes(b)).to_ne_bytes()
                }),
                _ => differ_words(row, &self.row, self.samples, |a, b| {
                    u64::from_ne_bytes(a).wrapping_sub(u64::from_ne_bytes(b)).to_ne_bytes()
                }),
            }
        }
    }

    fn floating_point(&mut self, pixels: &mut [u8]) {
        let words = self.row_bytes / self.word;
        for row in pixels.chunks_exact_mut(self.row_bytes) {
            for (plane, byte) in self.row.chunks_exact_mut(words).zip((0..self.word).rev()) {
                match self.word {
                    4 => take_bytes(plane, row, |w: [u8; 4]| (u32::from_ne_bytes(w) >> (8 * byte)) as u8),
                    _ => take_bytes(plane, row, |w: [u8; 8]| (u64::from_ne_bytes(w) >> (8 * byte)) as u8),
                }
            }
            row.copy_from_slice(&self.row);
            differ_bytes(row, &self.row, self.samples);
        }
    }
}

/// `row[i] = old[i] - old[i - stride]` from `stride` on.
fn differ_bytes(row: &mut [u8], old: &[u8], stride: usize) {
    let stride = stride.min(row.len());
    for ((new, here), left) in row[stride..].iter_mut().zip(&old[stride..]).zip(old) {
        *new = here.wrapping_sub(*left);
    }
}

/// The same for words of `N` bytes, `stride` in words.
fn differ_words<const N: usize>(
    row: &mut [u8],
    old: &[u8],
    stride: usize,
    minus: impl Fn([u8; N], [u8; N]) -> [u8; N],
) {
    let (row, old) = (row.as_chunks_mut().0, old.as_chunks().0);
    let stride = stride.min(row.len());
    for ((new, here), left) in row[stride..].iter_mut().zip(&old[stride..]).zip(old) {
        *new = minus(*here, *left);
    }
}

/// One byte of every word of `row`.
fn take_bytes<const N: usize>(plane: &mut [u8], row: &[u8], byte: impl Fn([u8; N]) -> u8) {
    for (out, word) in plane.iter_mut().zip(row.as_chunks().0) {
        *out = byte(*word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPES: [SampleType; 14] = {
        use SampleType::*;
        [U8, I8, U16, I16, U32, I32, U64, I64, F32, F64, ComplexI16, ComplexI32, ComplexF32, ComplexF64]
    };

    /// The inverse of a row, byte by byte, as readers do it.
    fn undo(predictor: Predictor, word: usize, samples: usize, row: &mut [u8]) {
        match predictor {
            Predictor::None => {}
            Predictor::Horizontal => {
                for at in (samples * word..row.len()).step_by(word) {
                    let mut carry = 0;
                    for byte in at..at + word {
                        let sum = u16::from(row[byte]) + u16::from(row[byte - samples * word]) + carry;
                        row[byte] = sum as u8;
                        carry = sum >> 8;
                    }
                }
            }
            Predictor::FloatingPoint => {
                for at in samples..row.len() {
                    row[at] = row[at].wrapping_add(row[at - samples]);
                }
                let planes = row.to_vec();
                let words = row.len() / word;
                for (at, byte) in planes.iter().enumerate() {
                    row[at % words * word + word - 1 - at / words] = *byte;
                }
            }
        }
    }

    proptest! {
        #[test]
        fn there_and_back(
            sample in proptest::sample::select(&TYPES[..]),
            predictor in proptest::sample::select(&[Predictor::Horizontal, Predictor::FloatingPoint][..]),
            samples in 1usize..6,
            width in 1usize..40,
            height in 1usize..4,
            seed in any::<[u8; 32]>(),
        ) {
            let rows = Rows::new(predictor, sample, samples, width);
            prop_assert_eq!(rows.is_ok(), predictor.takes(sample));
            let Ok(mut rows) = rows else { return Ok(()) };
            let bytes = width * samples * sample.bytes();
            let original: Vec<u8> = seed.iter().cycle().take(bytes * height).copied().collect();
            let mut pixels = original.clone();
            rows.apply(&mut pixels);
            for row in pixels.chunks_exact_mut(bytes) {
                undo(predictor, sample.bytes(), samples, row);
            }
            prop_assert_eq!(pixels, original);
        }
    }

    #[test]
    fn known_rows() {
        let mut row = [1u16, 5, 3].map(u16::to_le_bytes).concat();
        Rows::new(Predictor::Horizontal, SampleType::I16, 1, 3).unwrap().apply(&mut row);
        assert_eq!(row, [1u16, 4, 2u16.wrapping_neg()].map(u16::to_le_bytes).concat());

        let mut row = [0x0102_0304u32, 0x0506_0708].map(u32::to_le_bytes).concat();
        Rows::new(Predictor::FloatingPoint, SampleType::F32, 1, 2).unwrap().apply(&mut row);
        assert_eq!(row, [1, 4, 253, 4, 253, 4, 253, 4], "the differences of 1, 5, 2, 6, 3, 7, 4, 8");
    }
}
