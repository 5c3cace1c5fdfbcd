//! Root of the mean square.

use super::average::{Columns, Scratch, weighted, weighted_with_masks};
use super::axis::Window;
use super::nodata::Missing;
use super::number::Number;

/// The root of a mean square as the working type, away from the nodata value, stored.
pub(super) fn finish<T: Number>(total: f64, weight: f64, missing: Option<&Missing<T>>) -> T {
    let square = total / weight;
    let root = if T::SMALL { nearest_root(square) } else { T::mean(square.sqrt()) };
    T::store(missing.map_or(root, |missing| missing.avoid(root)))
}

/// The integer whose square is nearest.
fn nearest_root(square: f64) -> f64 {
    let root = square.sqrt().trunc();
    if 2.0 * root * (root + 1.0) + 1.0 < 2.0 * square { root + 1.0 } else { root }
}

/// One row. Arguments as for the mean.
pub(super) fn row<T: Number>(
    rows: &[&[T]],
    masks: Option<&[&[u8]]>,
    (columns, across): (&Columns, &Window),
    missing: Option<&Missing<T>>,
    scratch: &mut Scratch,
    out: &mut [T],
) {
    match (masks, rows) {
        (None, [top, bottom]) if columns.axis.halves() => quads(top, bottom, out),
        (None, _) => weighted::<T, true>(rows, (columns, across), missing, scratch, out),
        (Some(masks), _) => {
            weighted_with_masks::<T, true>(rows, masks, (columns, across), missing, scratch, out);
        }
    }
}

/// Two by two pixels where all count.
fn quads<T: Number>(top: &[T], bottom: &[T], out: &mut [T]) {
    let vector = out.len() / 4 * 4;
    for (index, pixel) in out.iter_mut().enumerate() {
        let (a, b) = (2 * index, 2 * index + 1);
        let quad = [top[a], top[b], bottom[a], bottom[b]].map(Number::number);
        *pixel = if T::SINGLE && !T::SMALL && index < vector {
            T::store(f64::from(scaled(quad.map(|v| v as f32))))
        } else {
            let sum = quad.iter().fold(0.0, |sum, v| sum + v * v);
            finish(sum, 4.0, None)
        };
    }
}

/// In `f32`, which needs values near one: GDAL divides by the largest (of three, by an oversight).
fn scaled(quad: [f32; 4]) -> f32 {
    let [a, b, c, d] = quad.map(f32::abs);
    let largest = a.max(b).max(c);
    if largest == f32::INFINITY {
        return largest;
    }
    let inverse = if largest == 0.0 { 0.0 } else { 1.0 / largest };
    let [a, b, c, d] = [a, b, c, d].map(|v| (v * inverse) * (v * inverse));
    largest * (((a + b) + (c + d)) * 0.25).sqrt()
}
