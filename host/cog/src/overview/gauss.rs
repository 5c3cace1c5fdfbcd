//! Binomial kernels.

use super::axis::Axis;
use super::nodata::Missing;
use super::number::Number;

/// Source pixels of one pixel along one axis, with their weights.
#[derive(Debug, Clone)]
pub(super) struct Bell {
    /// First source pixel.
    pub(super) start: usize,
    /// Weights, cut off at the border of the image.
    pub(super) weights: Vec<f64>,
}

/// Weights of a kernel by the ratio of the heights (which GDAL uses for both axes).
fn binomial(ratio: f64) -> &'static [f64] {
    match (0.5 + ratio) as usize {
        0..=2 => &[1.0, 2.0, 1.0],
        3..=4 => &[1.0, 4.0, 6.0, 4.0, 1.0],
        _ => &[1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0],
    }
}

impl Bell {
    /// Weights for the pixel `index`.
    pub(super) fn new(axis: &Axis, index: usize, height_ratio: f64) -> Self {
        let weights = binomial(height_ratio);
        let low = (0.5 + index as f64 * axis.ratio) as usize;
        let high = (0.5 + (index + 1) as f64 * axis.ratio) as usize + 1;
        let middle = low + (high - low) / 2;
        let half = weights.len() / 2;
        let (start, cut) = (middle.saturating_sub(half), half.saturating_sub(middle));
        let start = start.min(axis.source - 1);
        let end = (middle + weights.len() - half).clamp(start + 1, axis.source);
        let weights = weights.iter().skip(cut).take(end - start).copied().collect();
        Self { start, weights }
    }

    /// One after the last source pixel.
    pub(super) fn end(&self) -> usize {
        self.start + self.weights.len()
    }
}

/// One row; `rows` are the source rows of `across`. Arguments otherwise as for the mean.
pub(super) fn row<T: Number>(
    rows: &[&[T]],
    masks: Option<&[&[u8]]>,
    (columns, across): (&[Bell], &Bell),
    missing: Option<&Missing<T>>,
    out: &mut [T],
) {
    for (pixel, bell) in out.iter_mut().zip(columns) {
        let (mut total, mut sum) = (0.0, 0.0);
        for (index, (source, vertical)) in rows.iter().zip(&across.weights).enumerate() {
            for (column, horizontal) in (bell.start..bell.end()).zip(&bell.weights) {
                if masks.is_some_and(|masks| masks[index][column] == 0) {
                    continue;
                }
                let weight = vertical * horizontal;
                total += source[column].number() * weight;
                sum += weight;
            }
        }
        let empty = || missing.map_or(0.0, |missing| missing.number);
        *pixel = T::store(if sum == 0.0 { empty() } else { total / sum });
    }
}
