//! Mean of the source pixels.
//!
//! Three ways, as GDAL has: two by two pixels all of which count, two by two pixels with a mask, and
//! windows of any size with weights at the border. The first two are written so that they vectorise.

use super::axis::{Axis, Window};
use super::nodata::Missing;
use super::number::Number;

/// Pixels that are tested for missing samples at once.
const BLOCK: usize = 32;

/// Samples that are averaged.
pub(super) trait Mean: Number {
    /// Means of two by two pixels where all count. Lengths: `2 * out.len()` for the rows.
    fn quads(top: &[Self], bottom: &[Self], out: &mut [Self]) {
        for ((pixel, t), b) in out.iter_mut().zip(top.chunks_exact(2)).zip(bottom.chunks_exact(2)) {
            let sum = ((t[0].number() + t[1].number()) + b[0].number()) + b[1].number();
            *pixel = Self::store(Self::mean(0.25 * sum));
        }
    }

    /// The same for a block of pixels that has a mask or a nodata value, though all of it counts.
    fn masked_quads(top: &[Self], bottom: &[Self], missing: Option<&Missing<Self>>, out: &mut [Self]) {
        for ((pixel, t), b) in out.iter_mut().zip(top.chunks_exact(2)).zip(bottom.chunks_exact(2)) {
            let sum = (0.0 + (t[0].number() + t[1].number())) + (b[0].number() + b[1].number());
            *pixel = finish(sum, 4.0, missing);
        }
    }
}

/// Replaces results that equal the nodata value.
fn avoid<T: Number>(missing: Option<&Missing<T>>, out: &mut [T]) {
    let Some(missing) = missing else { return };
    let (value, replacement) = (missing.value, T::store(missing.replacement));
    for pixel in out {
        *pixel = if *pixel == value { replacement } else { *pixel };
    }
}

impl Mean for u8 {
    fn quads(top: &[Self], bottom: &[Self], out: &mut [Self]) {
        // Two pixels as one word: lanes need not be shuffled.
        let sides = (bytemuck::try_cast_slice::<u8, u16>(top), bytemuck::try_cast_slice::<u8, u16>(bottom));
        if let (Ok(top), Ok(bottom)) = sides {
            for ((pixel, &t), &b) in out.iter_mut().zip(top).zip(bottom) {
                *pixel = (((t & 0xff) + (t >> 8) + (b & 0xff) + (b >> 8) + 2) >> 2) as u8;
            }
            return;
        }
        for ((pixel, t), b) in out.iter_mut().zip(top.chunks_exact(2)).zip(bottom.chunks_exact(2)) {
            let sum = u16::from(t[0]) + u16::from(t[1]) + u16::from(b[0]) + u16::from(b[1]);
            *pixel = ((sum + 2) >> 2) as u8;
        }
    }

    fn masked_quads(top: &[Self], bottom: &[Self], missing: Option<&Missing<Self>>, out: &mut [Self]) {
        Self::quads(top, bottom, out);
        avoid(missing, out);
    }
}

impl Mean for u16 {
    fn quads(top: &[Self], bottom: &[Self], out: &mut [Self]) {
        let sides = (bytemuck::try_cast_slice::<u16, u32>(top), bytemuck::try_cast_slice::<u16, u32>(bottom));
        if let (Ok(top), Ok(bottom)) = sides {
            for ((pixel, &t), &b) in out.iter_mut().zip(top).zip(bottom) {
                *pixel = (((t & 0xffff) + (t >> 16) + (b & 0xffff) + (b >> 16) + 2) >> 2) as u16;
            }
            return;
        }
        for ((pixel, t), b) in out.iter_mut().zip(top.chunks_exact(2)).zip(bottom.chunks_exact(2)) {
            let sum = u32::from(t[0]) + u32::from(t[1]) + u32::from(b[0]) + u32::from(b[1]);
            *pixel = ((sum + 2) >> 2) as u16;
        }
    }

    fn masked_quads(top: &[Self], bottom: &[Self], missing: Option<&Missing<Self>>, out: &mut [Self]) {
        Self::quads(top, bottom, out);
        avoid(missing, out);
    }
}

/// A quarter of a sum, rounded half away from zero.
#[inline(always)]
fn quarter(sum: i32) -> i16 {
    ((sum + 2 + (sum >> 31)) >> 2) as i16
}

/// Calls `each` with the sums of two by two samples.
#[inline(always)]
fn sums_of_i16(top: &[i16], bottom: &[i16], out: &mut [i16], each: impl Fn(i32) -> i16) {
    let sides = (bytemuck::try_cast_slice::<i16, i32>(top), bytemuck::try_cast_slice::<i16, i32>(bottom));
    if let (Ok(top), Ok(bottom)) = sides {
        for ((pixel, &t), &b) in out.iter_mut().zip(top).zip(bottom) {
            *pixel = each(((t << 16) >> 16) + (t >> 16) + ((b << 16) >> 16) + (b >> 16));
        }
        return;
    }
    for ((pixel, t), b) in out.iter_mut().zip(top.chunks_exact(2)).zip(bottom.chunks_exact(2)) {
        *pixel = each(i32::from(t[0]) + i32::from(t[1]) + i32::from(b[0]) + i32::from(b[1]));
    }
}

impl Mean for i16 {
    fn quads(top: &[Self], bottom: &[Self], out: &mut [Self]) {
        sums_of_i16(top, bottom, out, quarter);
    }

    fn masked_quads(top: &[Self], bottom: &[Self], missing: Option<&Missing<Self>>, out: &mut [Self]) {
        let Some(missing) = missing else { return Self::quads(top, bottom, out) };
        // GDAL compares before it rounds, so that a mean may still round to the nodata value.
        let (exact, replacement) = (4 * i32::from(missing.value), Self::store(missing.replacement));
        sums_of_i16(top, bottom, out, |sum| if sum == exact { replacement } else { quarter(sum) });
    }
}

impl Mean for f32 {
    fn quads(top: &[Self], bottom: &[Self], out: &mut [Self]) {
        // GDAL adds columns first, four pixels at a time, but goes in reading order through the last
        // `width % 4` ones. Its chunks begin at multiples of four pixels.
        let vector = out.len() / 4 * 4;
        let (out, out_tail) = out.split_at_mut(vector);
        let ((top, top_tail), (bottom, bottom_tail)) =
            (top.split_at(2 * vector), bottom.split_at(2 * vector));
        for ((pixel, t), b) in out.iter_mut().zip(top.chunks_exact(2)).zip(bottom.chunks_exact(2)) {
            *pixel = ((t[0] + b[0]) + (t[1] + b[1])) * 0.25;
        }
        let tails = top_tail.chunks_exact(2).zip(bottom_tail.chunks_exact(2));
        for (pixel, (t, b)) in out_tail.iter_mut().zip(tails) {
            *pixel = 0.25 * (((t[0] + t[1]) + b[0]) + b[1]);
        }
    }

    fn masked_quads(top: &[Self], bottom: &[Self], missing: Option<&Missing<Self>>, out: &mut [Self]) {
        for ((pixel, t), b) in out.iter_mut().zip(top.chunks_exact(2)).zip(bottom.chunks_exact(2)) {
            let upper = 0.0 + (f64::from(t[0]) + f64::from(t[1]));
            *pixel = ((upper + (f64::from(b[0]) + f64::from(b[1]))) * 0.25) as f32;
        }
        avoid(missing, out);
    }
}

impl Mean for i8 {}
impl Mean for u32 {}
impl Mean for i32 {}
impl Mean for u64 {}
impl Mean for i64 {}
impl Mean for f64 {}

/// Divides, rounds to the working type, moves away from the nodata value, and stores.
#[inline(always)]
fn finish<T: Number>(total: f64, weight: f64, missing: Option<&Missing<T>>) -> T {
    let mean = T::mean(total / weight);
    T::store(missing.map_or(mean, |missing| missing.avoid(mean)))
}

/// Pixels that are made at once where they have weights, so that the sums stay near.
const TILE: usize = 256;

/// Accumulators of a tile, and source samples as numbers: 0 where they do not count.
#[derive(Debug)]
pub(super) struct Scratch {
    totals: [f64; TILE],
    weights: [f64; TILE],
    samples: [f64; 2 * TILE + 1],
    valid: [f64; 2 * TILE + 1],
}

impl Default for Scratch {
    fn default() -> Self {
        let (tile, source) = ([0.0; TILE], [0.0; 2 * TILE + 1]);
        Self { totals: tile, weights: tile, samples: source, valid: source }
    }
}

/// The columns of a level.
#[derive(Debug)]
pub(super) struct Columns {
    /// The axis.
    pub(super) axis: Axis,
    /// The window of each pixel.
    pub(super) windows: Vec<Window>,
    /// Whether all windows are of three pixels and overlap by one, as those of an odd size.
    triples: bool,
    /// By pixel: weight of the first source pixel, of the last, and of all.
    first: Vec<f64>,
    last: Vec<f64>,
    total: Vec<f64>,
}

impl Columns {
    /// All columns of an axis.
    pub(super) fn new(axis: Axis) -> Self {
        let windows: Vec<Window> = (0..axis.size).map(|index| axis.window(index)).collect();
        let triples = windows.iter().enumerate().all(|(i, w)| w.start == 2 * i && w.len() == 3);
        let by = |part: fn(&Window) -> f64| windows.iter().map(part).collect();
        let (first, last, total) = (by(|w| w.first), by(|w| w.last), by(|w| w.total));
        Self { axis, windows, triples, first, last, total }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.windows.len() * (size_of::<Window>() + 24)
    }
}

/// One row of means, of source rows `rows` which `across` describes.
///
/// `masks` hold 0 where a source pixel does not count. Without them, those without data don't count
/// where `tested`. `missing` also is the result of a window without data (else 0).
pub(super) fn row<T: Mean>(
    rows: &[&[T]],
    masks: Option<&[&[u8]]>,
    (columns, across): (&Columns, &Window),
    missing: Option<&Missing<T>>,
    scratch: &mut Scratch,
    out: &mut [T],
) {
    if let ([top, bottom], true) = (rows, columns.axis.halves()) {
        match masks {
            Some([above, below]) => quads_with_masks((top, bottom), (above, below), missing, out),
            _ => T::quads(top, bottom, out),
        }
        return;
    }
    match masks {
        None => weighted::<T, false>(rows, (columns, across), missing, scratch, out),
        Some(masks) => weighted_with_masks::<T, false>(rows, masks, (columns, across), missing, scratch, out),
    }
}

/// Two by two pixels which a nodata value can make missing.
pub(super) fn quads_with_missing<T: Mean>(top: &[T], bottom: &[T], missing: &Missing<T>, out: &mut [T]) {
    let blocks = top.chunks(2 * BLOCK).zip(bottom.chunks(2 * BLOCK));
    for (out, (top, bottom)) in out.chunks_mut(BLOCK).zip(blocks) {
        if !any(top, bottom, |&sample| missing.is(sample)) {
            T::masked_quads(top, bottom, Some(missing), out);
        } else if !any(top, bottom, |&sample| !missing.is(sample)) {
            out.fill(missing.value);
        } else {
            let (mut above, mut below) = ([false; 2 * BLOCK], [false; 2 * BLOCK]);
            flag(top, &mut above, |&sample| !missing.is(sample));
            flag(bottom, &mut below, |&sample| !missing.is(sample));
            mixed_block((top, bottom), (&above, &below), Some(missing), out);
        }
    }
}

fn quads_with_masks<T: Mean>(
    (top, bottom): (&[T], &[T]),
    (above, below): (&[u8], &[u8]),
    missing: Option<&Missing<T>>,
    out: &mut [T],
) {
    let samples = top.chunks(2 * BLOCK).zip(bottom.chunks(2 * BLOCK));
    let masks = above.chunks(2 * BLOCK).zip(below.chunks(2 * BLOCK));
    for (out, ((top, bottom), (above, below))) in out.chunks_mut(BLOCK).zip(samples.zip(masks)) {
        if !any(above, below, |&mask| mask == 0) {
            T::masked_quads(top, bottom, missing, out);
        } else if !any(above, below, |&mask| mask != 0) {
            out.fill(missing.map_or_else(T::default, |missing| missing.value));
        } else {
            let mut valid = [[false; 2 * BLOCK]; 2];
            flag(above, &mut valid[0], |&mask| mask != 0);
            flag(below, &mut valid[1], |&mask| mask != 0);
            mixed_block((top, bottom), (&valid[0], &valid[1]), missing, out);
        }
    }
}

/// Whether any item of either half is so, without branches.
#[inline(always)]
fn any<T>(top: &[T], bottom: &[T], test: impl Fn(&T) -> bool) -> bool {
    top.iter().zip(bottom).fold(false, |found, (t, b)| found | test(t) | test(b))
}

#[inline(always)]
fn flag<T>(items: &[T], flags: &mut [bool], test: impl Fn(&T) -> bool) {
    for (flag, item) in flags.iter_mut().zip(items) {
        *flag = test(item);
    }
}

/// A block of two by two pixels some of which count. Sums first, so that they vectorise.
#[inline(always)]
fn mixed_block<T: Number>(
    (top, bottom): (&[T], &[T]),
    (above, below): (&[bool], &[bool]),
    missing: Option<&Missing<T>>,
    out: &mut [T],
) {
    let (mut sums, mut counts) = ([0.0; BLOCK], [0.0; BLOCK]);
    for (row, valid) in [(top, above), (bottom, below)] {
        let pairs = row.chunks_exact(2).zip(valid.chunks_exact(2));
        for ((sum, count), (pair, valid)) in sums.iter_mut().zip(&mut counts).zip(pairs) {
            let value = |i: usize| if valid[i] { pair[i].number() } else { 0.0 };
            let one = |i: usize| f64::from(u8::from(valid[i]));
            *sum += value(0) + value(1);
            *count += one(0) + one(1);
        }
    }
    let empty = missing.map_or_else(T::default, |missing| missing.value);
    for (pixel, (&sum, &count)) in out.iter_mut().zip(sums.iter().zip(&counts)) {
        *pixel = if count == 0.0 { empty } else { finish(sum, count, missing) };
    }
}

/// A sample, or its square.
#[inline(always)]
pub(super) fn term<T: Number, const SQUARE: bool>(sample: T) -> f64 {
    let number = sample.number();
    if SQUARE { number * number } else { number }
}

/// The result of a weighted sum: the mean, or the root mean square.
pub(super) trait Weighted: Number {
    /// A sum of weighted terms by the sum of the weights.
    fn weighted<const SQUARE: bool>(total: f64, weight: f64, missing: Option<&Missing<Self>>) -> Self;
}

impl<T: Number> Weighted for T {
    #[inline(always)]
    fn weighted<const SQUARE: bool>(total: f64, weight: f64, missing: Option<&Missing<Self>>) -> Self {
        if SQUARE { super::rms::finish(total, weight, missing) } else { finish(total, weight, missing) }
    }
}

/// Windows of any size, all of which count.
pub(super) fn weighted<T: Number, const SQUARE: bool>(
    rows: &[&[T]],
    (columns, across): (&Columns, &Window),
    missing: Option<&Missing<T>>,
    scratch: &mut Scratch,
    out: &mut [T],
) {
    if columns.triples {
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let tile = Tile { columns, across, start: tile * TILE };
            tile.all::<T, SQUARE>(rows, missing, scratch, out);
        }
        return;
    }
    for (pixel, window) in out.iter_mut().zip(&columns.windows) {
        let mut total = 0.0;
        for (index, source) in rows.iter().enumerate() {
            let samples = source[window.start..window.end].iter().enumerate();
            let line = samples.fold(0.0, |line, (i, &s)| line + term::<T, SQUARE>(s) * window.weight(i));
            total += line * across.weight(index);
        }
        *pixel = T::weighted::<SQUARE>(total, window.total * across.total, missing);
    }
}

/// Windows of any size, with masks that hold 0 where a source pixel does not count.
pub(super) fn weighted_with_masks<T: Number, const SQUARE: bool>(
    rows: &[&[T]],
    masks: &[&[u8]],
    (columns, across): (&Columns, &Window),
    missing: Option<&Missing<T>>,
    scratch: &mut Scratch,
    out: &mut [T],
) {
    if columns.triples {
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            let tile = Tile { columns, across, start: tile * TILE };
            tile.some::<T, SQUARE>((rows, masks), missing, scratch, out);
        }
        return;
    }
    let empty = missing.map_or_else(T::default, |missing| missing.value);
    for (pixel, window) in out.iter_mut().zip(&columns.windows) {
        let (mut total, mut sum, mut count) = (0.0, 0.0, 0);
        for (index, (source, mask)) in rows.iter().zip(masks).enumerate() {
            let (mut line, mut line_sum) = (0.0, 0.0);
            let samples = source[window.start..window.end].iter().zip(&mask[window.start..window.end]);
            for (i, (&sample, _)) in samples.enumerate().filter(|(_, (_, valid))| **valid != 0) {
                line += term::<T, SQUARE>(sample) * window.weight(i);
                line_sum += window.weight(i);
                count += 1;
            }
            total += line * across.weight(index);
            sum += line_sum * across.weight(index);
        }
        *pixel = if count == 0 { empty } else { T::weighted::<SQUARE>(total, sum, missing) };
    }
}

/// Some columns, from `start` on, of windows of three pixels.
struct Tile<'a> {
    columns: &'a Columns,
    across: &'a Window,
    start: usize,
}

impl Tile<'_> {
    fn source<'s, T>(&self, row: &'s [T], size: usize) -> &'s [T] {
        &row[2 * self.start..2 * (self.start + size) + 1]
    }

    fn all<T: Number, const SQUARE: bool>(
        &self,
        rows: &[&[T]],
        missing: Option<&Missing<T>>,
        scratch: &mut Scratch,
        out: &mut [T],
    ) {
        let size = out.len();
        let totals = &mut scratch.totals[..size];
        totals.fill(0.0);
        for (index, row) in rows.iter().enumerate() {
            for (number, &sample) in scratch.samples.iter_mut().zip(self.source(row, size)) {
                *number = term::<T, SQUARE>(sample);
            }
            self.add(&scratch.samples, self.across.weight(index), totals);
        }
        let weights = &self.columns.total[self.start..];
        for ((pixel, total), weight) in out.iter_mut().zip(totals.iter()).zip(weights) {
            *pixel = T::weighted::<SQUARE>(*total, weight * self.across.total, missing);
        }
    }

    fn some<T: Number, const SQUARE: bool>(
        &self,
        (rows, masks): (&[&[T]], &[&[u8]]),
        missing: Option<&Missing<T>>,
        scratch: &mut Scratch,
        out: &mut [T],
    ) {
        let size = out.len();
        let Scratch { totals, weights, samples, valid } = scratch;
        let (totals, weights) = (&mut totals[..size], &mut weights[..size]);
        totals.fill(0.0);
        weights.fill(0.0);
        for (index, (row, mask)) in rows.iter().zip(masks).enumerate() {
            let sources = self.source(row, size).iter().zip(self.source(mask, size));
            for ((number, flag), (&sample, &mask)) in samples.iter_mut().zip(valid.iter_mut()).zip(sources) {
                // Terms of 0 change no sum.
                *number = if mask == 0 { 0.0 } else { term::<T, SQUARE>(sample) };
                *flag = if mask == 0 { 0.0 } else { 1.0 };
            }
            let weight = self.across.weight(index);
            self.add(samples, weight, totals);
            self.add(valid, weight, weights);
        }
        let empty = missing.map_or_else(T::default, |missing| missing.value);
        for ((pixel, &total), &weight) in out.iter_mut().zip(totals.iter()).zip(weights.iter()) {
            *pixel = if weight == 0.0 { empty } else { T::weighted::<SQUARE>(total, weight, missing) };
        }
    }

    /// Adds the sums along one source row.
    fn add(&self, samples: &[f64], weight: f64, totals: &mut [f64]) {
        let shares = self.columns.first[self.start..].iter().zip(&self.columns.last[self.start..]);
        let samples = samples.chunks_exact(2).zip(samples[2..].chunks(2));
        for ((total, (first, last)), (left, right)) in totals.iter_mut().zip(shares).zip(samples) {
            *total += ((left[0] * first + left[1]) + right[0] * last) * weight;
        }
    }
}
