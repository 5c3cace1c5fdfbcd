//! Types of samples, and buffers of them.

use bytemuck::{AnyBitPattern, NoUninit};

/// Type of one sample of one band. Complex types hold the real part, then the imaginary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the types")]
pub enum SampleType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    ComplexI16,
    ComplexI32,
    ComplexF32,
    ComplexF64,
}

impl SampleType {
    /// Bytes of one sample; of both parts where it is complex.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 | Self::ComplexI16 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::ComplexI32 | Self::ComplexF32 => 8,
            Self::ComplexF64 => 16,
        }
    }

    /// Whether a sample has two parts.
    #[must_use]
    pub const fn is_complex(self) -> bool {
        matches!(self, Self::ComplexI16 | Self::ComplexI32 | Self::ComplexF32 | Self::ComplexF64)
    }

    /// Whether samples (or their parts) are floating-point numbers.
    #[must_use]
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::ComplexF32 | Self::ComplexF64)
    }
}

/// Samples in native byte order, aligned for every [`SampleType`].
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// Whole words, so that every type's alignment is met.
    words: Vec<u64>,
    bytes: usize,
}

impl Samples {
    /// `bytes` bytes of zeros.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        Self { words: vec![0; bytes.div_ceil(8)], bytes }
    }

    /// As bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.bytes]
    }

    /// As bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.bytes]
    }

    /// As samples of one type.
    #[must_use]
    pub fn of<T: AnyBitPattern>(&self) -> &[T] {
        bytemuck::cast_slice(self.bytes())
    }

    /// As samples of one type.
    pub fn of_mut<T: AnyBitPattern + NoUninit>(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(self.bytes_mut())
    }
}
