//! Nearest neighbour.

use bytemuck::AnyBitPattern;

use super::axis::Axis;

/// Picks one source pixel for each.
pub(super) fn row<T: AnyBitPattern>(source: &[T], axis: &Axis, columns: &[usize], out: &mut [T]) {
    if axis.halves() {
        for (pixel, pair) in out.iter_mut().zip(source.chunks_exact(2)) {
            *pixel = pair[0];
        }
        return;
    }
    for (pixel, &column) in out.iter_mut().zip(columns) {
        *pixel = source[column];
    }
}
