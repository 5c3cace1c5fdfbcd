//! The rows a level is made of: some that were kept, then those of a new strip.

use bytemuck::{AnyBitPattern, NoUninit};

use super::Strip;
use crate::sample::Samples;

/// Rows kept from earlier strips.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Index of the first one.
    pub(super) first_row: usize,
    /// How many.
    pub(super) rows: usize,
    /// For each plane, room for more rows.
    planes: Vec<Samples>,
}

/// All rows that are there.
pub(super) struct Rows<'a> {
    /// Earlier ones.
    pub(super) kept: &'a Kept,
    /// The new ones; they follow the others.
    pub(super) strip: &'a Strip,
}

impl<'a> Rows<'a> {
    /// One row of a plane. It is there: `kept.first_row <= row < end()`.
    pub(super) fn get<T: AnyBitPattern>(&self, plane: usize, row: usize) -> &'a [T] {
        let width = self.strip.width;
        let (samples, index) = if row < self.strip.first_row {
            (&self.kept.planes[plane], row - self.kept.first_row)
        } else {
            (&self.strip.planes[plane], row - self.strip.first_row)
        };
        // Cast the row alone: a caller's buffer may be longer than a whole number of samples.
        let bytes = width * size_of::<T>();
        bytemuck::cast_slice(&samples.bytes()[index * bytes..(index + 1) * bytes])
    }
}

impl Kept {
    /// Keeps rows from `first_row` on, of those that were kept and those of `strip`. `sizes` are bytes
    /// of a sample by plane.
    pub(super) fn keep(&mut self, first_row: usize, strip: &Strip, sizes: &[usize]) {
        let end = strip.first_row + strip.rows;
        let first_row = first_row.min(end);
        let old = self.rows.saturating_sub(first_row.saturating_sub(self.first_row));
        let new = end - first_row.max(strip.first_row);
        self.planes.resize_with(sizes.len(), Samples::default);
        for (plane, (samples, size)) in self.planes.iter_mut().zip(sizes).enumerate() {
            let row = strip.width * size;
            if samples.bytes().len() < (old + new) * row {
                grow(samples, (old + new) * row);
            }
            let bytes = samples.bytes_mut();
            let dropped = (self.rows - old) * row;
            bytes.copy_within(dropped..dropped + old * row, 0);
            let from = (strip.rows - new) * row;
            let source = &strip.planes[plane].bytes()[from..from + new * row];
            bytes[old * row..(old + new) * row].copy_from_slice(source);
        }
        self.first_row = first_row;
        self.rows = old + new;
    }
}

fn grow(samples: &mut Samples, bytes: usize) {
    let mut larger = Samples::zeroed(bytes);
    let old = samples.bytes();
    larger.bytes_mut()[..old.len()].copy_from_slice(old);
    *samples = larger;
}

/// One row of a strip, to be written.
pub(super) fn row_mut<T: AnyBitPattern + NoUninit>(strip: &mut Strip, plane: usize, row: usize) -> &mut [T] {
    let bytes = strip.width * size_of::<T>();
    bytemuck::cast_slice_mut(&mut strip.planes[plane].bytes_mut()[row * bytes..(row + 1) * bytes])
}
