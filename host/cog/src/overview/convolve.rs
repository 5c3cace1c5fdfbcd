//! Convolution with a kernel: along each source row first, then down the columns.
//!
//! Sums are made in the order of GDAL's SSE2 code, so that ties mostly round alike.

use std::collections::VecDeque;
use std::ops::Range;

use super::filter::{Kernel, Taps};
use super::nodata::Missing;
use super::number::Number;

/// Source rows that were filtered along the row, of one plane.
#[derive(Debug, Default)]
pub(super) struct Filtered {
    first: usize,
    lines: VecDeque<Line>,
    spare: Vec<Line>,
    sums: [Vec<f64>; 2],
    /// The source row as numbers.
    numbers: Vec<f64>,
}

/// One filtered row, and where it has data (empty if everywhere).
#[derive(Debug, Default)]
struct Line {
    values: Vec<f64>,
    valid: Vec<bool>,
}

impl Filtered {
    /// Drops rows before `start`, and tells which rows of `start..end` are still to be added.
    pub(super) fn advance(&mut self, start: usize, end: usize) -> Range<usize> {
        while self.first < start {
            self.spare.extend(self.lines.pop_front());
            self.first += 1;
        }
        self.end()..end
    }

    /// One after the last row that was added.
    pub(super) fn end(&self) -> usize {
        self.first + self.lines.len()
    }

    /// Bytes for each pixel of the level, where `rows` are kept.
    pub(super) fn bytes(rows: usize) -> usize {
        rows * 9 + 16
    }

    /// Filters one more source row.
    pub(super) fn add<T: Number>(
        &mut self,
        source: &[T],
        mask: Option<&[u8]>,
        taps: &[Taps],
        kernel: Kernel,
    ) {
        let mut line = self.spare.pop().unwrap_or_default();
        line.values.clear();
        line.valid.clear();
        match mask {
            None => {
                self.numbers.clear();
                self.numbers.extend(source.iter().map(|sample| sample.number()));
                line.values.extend(taps.iter().map(|taps| {
                    let numbers = &self.numbers[taps.start..taps.end()];
                    if T::SMALL {
                        dot_lanes(numbers, &taps.normal, kernel)
                    } else {
                        dot(numbers, &taps.normal)
                    }
                }));
            }
            Some(mask) => {
                for taps in taps {
                    let range = taps.start..taps.end();
                    let (total, weight) = dot_masked(&source[range.clone()], &mask[range], &taps.raw, kernel);
                    let valid = weight > 0.0;
                    line.values.push(if valid { total / weight } else { 0.0 });
                    line.valid.push(valid);
                }
            }
        }
        self.lines.push_back(line);
    }

    /// One row of the level. All source rows of `across` were added.
    pub(super) fn row<T: Number>(
        &mut self,
        across: &Taps,
        kernel: Kernel,
        missing: Option<&Missing<T>>,
        out: &mut [T],
    ) {
        let from = across.start.saturating_sub(self.first);
        let masked = self.lines.front().is_some_and(|line| !line.valid.is_empty());
        if masked {
            let lines = self.lines.iter().skip(from).take(across.raw.len());
            let lines: Vec<&Line> = lines.collect();
            for (x, pixel) in out.iter_mut().enumerate() {
                *pixel = column(&lines, x, &across.raw, kernel, missing);
            }
            return;
        }
        let [first, second] = &mut self.sums;
        for sum in [&mut *first, &mut *second] {
            sum.clear();
            sum.resize(out.len(), 0.0);
        }
        // Eight columns at a time are summed in order; else there are two sums.
        let vector = if T::SINGLE { out.len() / 8 * 8 } else { 0 };
        let paired = across.raw.len() / 4 * 4;
        let lines = self.lines.iter().skip(from).zip(&across.normal).enumerate();
        for (index, (line, weight)) in lines {
            add(&mut first[..vector], &line.values[..vector], *weight);
            let other = index < paired && index % 4 >= 2;
            let sum = if other { &mut *second } else { &mut *first };
            add(&mut sum[vector..], &line.values[vector..], *weight);
        }
        for (pixel, (a, b)) in out.iter_mut().zip(first.iter().zip(second.iter())) {
            *pixel = finish(a + b, missing);
        }
    }
}

fn add(sums: &mut [f64], values: &[f64], weight: f64) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value * weight;
    }
}

/// Sum of the lanes of a vector.
#[inline(always)]
fn across_lanes(lanes: [f64; 4]) -> f64 {
    (lanes[0] + lanes[2]) + (lanes[1] + lanes[3])
}

/// Eight weighted numbers, which is what a cubic kernel mostly has.
#[inline(always)]
fn eight(numbers: &[f64], weights: &[f64]) -> Option<[f64; 8]> {
    let (numbers, weights): (&[f64; 8], &[f64; 8]) = (numbers.try_into().ok()?, weights.try_into().ok()?);
    let mut terms = [0.0; 8];
    for ((term, number), weight) in terms.iter_mut().zip(numbers).zip(weights) {
        *term = number * weight;
    }
    Some(terms)
}

/// Four lanes, for `u8` and `u16`.
#[inline(always)]
fn dot_lanes(numbers: &[f64], weights: &[f64], kernel: Kernel) -> f64 {
    if let (Some([a, b, c, d, e, f, g, h]), Kernel::Cubic) = (eight(numbers, weights), kernel) {
        return across_lanes([a + e, b + f, c + g, d + h]);
    }
    let count = numbers.len();
    // The kernel of four (source) pixels goes four at a time, the others eight.
    let step = if count == 4 || kernel == Kernel::Bilinear { 4 } else { 8 };
    let vector = count / step * step;
    let mut lanes = [0.0; 4];
    for (n, w) in numbers[..vector].chunks_exact(4).zip(weights.chunks_exact(4)) {
        for lane in 0..4 {
            lanes[lane] += n[lane] * w[lane];
        }
    }
    let rest = numbers[vector..].iter().zip(&weights[vector..]);
    rest.fold(across_lanes(lanes), |sum, (n, w)| sum + n * w)
}

/// Two sums, for the other types.
#[inline(always)]
fn dot(numbers: &[f64], weights: &[f64]) -> f64 {
    if let Some([a, b, c, d, e, f, g, h]) = eight(numbers, weights) {
        return (((a + b) + e) + f) + (((c + d) + g) + h);
    }
    let (mut first, mut second) = (0.0, 0.0);
    let paired = numbers.len() / 4 * 4;
    for (n, w) in numbers.chunks_exact(4).zip(weights.chunks_exact(4)) {
        first = (first + n[0] * w[0]) + n[1] * w[1];
        second = (second + n[2] * w[2]) + n[3] * w[3];
    }
    let rest = numbers[paired..].iter().zip(&weights[paired..]);
    rest.fold(first, |sum, (n, w)| sum + n * w) + second
}

/// Sum of the samples that count (weighted by their mask, as GDAL does), and of their weights.
fn dot_masked<T: Number>(samples: &[T], mask: &[u8], weights: &[f64], kernel: Kernel) -> (f64, f64) {
    if !enough(mask.iter().map(|&mask| mask != 0), kernel) {
        return (0.0, 0.0);
    }
    let (mut total, mut sum) = (0.0, 0.0);
    for ((sample, &mask), weight) in samples.iter().zip(mask).zip(weights) {
        // Not skipped if 0: what is not a number spreads, as in GDAL.
        let weight = weight * f64::from(mask);
        total += sample.number() * weight;
        sum += weight;
    }
    (total, sum)
}

/// With negative weights, at least half of the pixels must count, in a row.
fn enough(valid: impl ExactSizeIterator<Item = bool>, kernel: Kernel) -> bool {
    if kernel == Kernel::Bilinear {
        return true;
    }
    let half = valid.len() / 2;
    let (mut run, mut longest) = (0, 0);
    for valid in valid {
        run = if valid { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest >= half
}

fn column<T: Number>(
    lines: &[&Line],
    x: usize,
    weights: &[f64],
    kernel: Kernel,
    missing: Option<&Missing<T>>,
) -> T {
    let (mut total, mut sum) = (0.0, 0.0);
    for (line, weight) in lines.iter().zip(weights) {
        if line.valid[x] {
            total += line.values[x] * weight;
            sum += weight;
        }
    }
    if sum > 0.0 && enough(lines.iter().map(|line| line.valid[x]), kernel) {
        finish(total / sum, missing)
    } else {
        missing.map_or_else(T::default, |missing| missing.value)
    }
}

/// Clamps, moves away from the nodata value, rounds.
fn finish<T: Number>(value: f64, missing: Option<&Missing<T>>) -> T {
    let value = if T::SINGLE { f64::from(value as f32) } else { value };
    let Some(missing) = missing else { return T::store(value) };
    let clamped = if T::INTEGER { value.clamp(T::RANGE.0, T::RANGE.1) } else { value };
    let compared = if T::INTEGER { clamped.round() } else { clamped };
    T::store(if compared == missing.number { missing.replacement } else { clamped })
}
