//! Cutting tiles out of strips: samples of a pixel next to each other, padded to whole tiles.

use bytemuck::Pod;

use crate::codec::TileFormat;
use crate::overview::Strip;
use crate::sample::{SampleType, Samples};

/// Where a tile is in a strip whose rows are those of one row of tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// Number of the tile in its row.
    pub(crate) column: usize,
    /// Edge of a tile.
    pub(crate) block: usize,
    /// Fill beyond the image's edges with the last pixel instead of zeros: lossy codecs would smear the zeros into it.
    pub(crate) replicate: bool,
}

impl Cut {
    fn columns(&self, strip: &Strip) -> std::ops::Range<usize> {
        let start = self.column * self.block;
        start..(start + self.block).min(strip.width)
    }

    /// Copies the first `bands` planes into `tile`, one whole tile.
    pub(crate) fn copy(&self, strip: &Strip, bands: usize, sample: SampleType, tile: &mut Samples) {
        match sample.bytes() {
            1 => self.copy_as::<u8>(strip, bands, tile),
            2 => self.copy_as::<u16>(strip, bands, tile),
            4 => self.copy_as::<u32>(strip, bands, tile),
            8 => self.copy_as::<u64>(strip, bands, tile),
            _ => self.copy_as::<[u64; 2]>(strip, bands, tile),
        }
    }

    fn copy_as<T: Pod>(&self, strip: &Strip, bands: usize, tile: &mut Samples) {
        let planes: Vec<&[T]> = strip.planes.iter().take(bands).map(Samples::of).collect();
        let columns = self.columns(strip);
        let line = self.block * bands;
        let filled = columns.len() * bands;
        let out = tile.of_mut::<T>();
        for (row, out) in out.chunks_exact_mut(line).enumerate() {
            if row >= strip.rows {
                break;
            }
            let start = row * strip.width + columns.start;
            let rows: Vec<&[T]> = planes.iter().map(|plane| &plane[start..start + columns.len()]).collect();
            interleave(&rows, &mut out[..filled]);
            self.pad_right(&mut out[filled - bands..], bands);
        }
        self.pad_below(out, line, strip.rows);
    }

    /// `rest` begins with the last pixel of the image's row.
    fn pad_right<T: Pod>(&self, rest: &mut [T], bands: usize) {
        let (last, padding) = rest.split_at_mut(bands);
        if !self.replicate {
            padding.fill(T::zeroed());
            return;
        }
        for pixel in padding.chunks_exact_mut(bands) {
            pixel.copy_from_slice(last);
        }
    }

    fn pad_below<T: Pod>(&self, tile: &mut [T], line: usize, rows: usize) {
        if rows >= self.block || rows == 0 {
            return;
        }
        let (image, padding) = tile.split_at_mut(rows * line);
        if !self.replicate {
            padding.fill(T::zeroed());
            return;
        }
        let last = &image[(rows - 1) * line..];
        for row in padding.chunks_exact_mut(line) {
            row.copy_from_slice(last);
        }
    }

    /// Whether all samples of the first `bands` planes are `fill`, one sample.
    pub(crate) fn is_empty(&self, strip: &Strip, bands: usize, sample: SampleType, fill: &[u8; 16]) -> bool {
        let bytes = sample.bytes();
        match bytes {
            1 => self.all(strip, bands, fill[0]),
            2 => self.all(strip, bands, u16::from_ne_bytes([fill[0], fill[1]])),
            4 => self.all(strip, bands, bytemuck::pod_read_unaligned::<u32>(&fill[..4])),
            8 => self.all(strip, bands, bytemuck::pod_read_unaligned::<u64>(&fill[..8])),
            _ => self.all(strip, bands, bytemuck::pod_read_unaligned::<[u64; 2]>(fill)),
        }
    }

    fn all<T: Pod + PartialEq>(&self, strip: &Strip, bands: usize, fill: T) -> bool {
        strip.planes.iter().take(bands).all(|plane| self.plane_is(strip, plane.of::<T>(), fill))
    }

    fn plane_is<T: Pod + PartialEq>(&self, strip: &Strip, plane: &[T], fill: T) -> bool {
        let columns = self.columns(strip);
        (0..strip.rows).all(|row| {
            let start = row * strip.width + columns.start;
            plane[start..start + columns.len()].iter().all(|value| *value == fill)
        })
    }

    /// Whether nothing is valid by the mask, which is plane `plane`.
    pub(crate) fn is_masked(&self, strip: &Strip, plane: usize) -> bool {
        strip.planes.get(plane).is_some_and(|plane| self.plane_is(strip, plane.of::<u8>(), 0))
    }

    /// The mask, which is plane `plane`, one bit a pixel into `tile`, one whole tile.
    pub(crate) fn copy_mask(&self, strip: &Strip, plane: usize, tile: &mut Samples) {
        let Some(plane) = strip.planes.get(plane) else { return };
        let (mask, columns) = (plane.of::<u8>(), self.columns(strip));
        let tile = tile.bytes_mut();
        tile.fill(0);
        for (row, out) in tile.chunks_exact_mut(self.block / 8).take(strip.rows).enumerate() {
            let start = row * strip.width + columns.start;
            for (bits, out) in mask[start..start + columns.len()].chunks(8).zip(out) {
                let bit = |(place, value): (usize, &u8)| u8::from(*value != 0) << (7 - place);
                *out = bits.iter().enumerate().map(bit).sum();
            }
        }
    }
}

/// The tiles of a strip, to be tried with codecs: as wide as `format` has them, and as high as the strip.
#[must_use]
pub fn sample_tiles(strip: &Strip, format: &TileFormat) -> Vec<Vec<u8>> {
    let across = strip.width.div_ceil(format.width.max(1));
    let mut pixels = Samples::zeroed(format.bytes());
    let sample = |column| {
        Cut { column, block: format.width, replicate: false }.copy(
            strip,
            format.samples,
            format.sample,
            &mut pixels,
        );
        pixels.bytes().to_vec()
    };
    (0..across).map(sample).collect()
}

/// One row of each band into pixels. Widths that are common are written out, so that they are fast.
fn interleave<T: Pod>(rows: &[&[T]], out: &mut [T]) {
    match *rows {
        [row] => out.copy_from_slice(row),
        [a, b] => {
            for ((out, a), b) in out.chunks_exact_mut(2).zip(a).zip(b) {
                out.copy_from_slice(&[*a, *b]);
            }
        }
        [a, b, c] => {
            for (((out, a), b), c) in out.chunks_exact_mut(3).zip(a).zip(b).zip(c) {
                out.copy_from_slice(&[*a, *b, *c]);
            }
        }
        [a, b, c, d] => {
            for ((((out, a), b), c), d) in out.chunks_exact_mut(4).zip(a).zip(b).zip(c).zip(d) {
                out.copy_from_slice(&[*a, *b, *c, *d]);
            }
        }
        _ => {
            for (band, row) in rows.iter().enumerate() {
                for (out, value) in out.iter_mut().skip(band).step_by(rows.len()).zip(*row) {
                    *out = *value;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(width: usize, rows: usize, planes: usize) -> Strip {
        let plane = |band: usize| {
            let mut samples = Samples::zeroed(width * rows * 2);
            for (n, value) in samples.of_mut::<u16>().iter_mut().enumerate() {
                *value = u16::try_from(band * 1000 + n).expect("small");
            }
            samples
        };
        Strip { first_row: 0, rows, width, planes: (0..planes).map(plane).collect() }
    }

    #[test]
    fn pixels_are_interleaved_and_edges_padded() {
        for bands in 1..6 {
            for replicate in [false, true] {
                let strip = strip(6, 3, bands);
                let cut = Cut { column: 1, block: 4, replicate };
                let mut tile = Samples::zeroed(4 * 4 * bands * 2);
                tile.bytes_mut().fill(7);
                cut.copy(&strip, bands, SampleType::U16, &mut tile);
                let found = tile.of::<u16>();
                for (place, value) in found.iter().enumerate() {
                    let (pixel, band) = (place / bands, place % bands);
                    let (row, column) = (pixel / 4, 4 + pixel % 4);
                    let inside = row < 3 && column < 6;
                    let source = row.min(2) * 6 + column.min(5) + band * 1000;
                    let expected = if inside || replicate { source } else { 0 };
                    assert_eq!(usize::from(*value), expected, "{bands} bands, row {row}, column {column}");
                }
            }
        }
    }

    #[test]
    fn a_tile_is_empty_where_every_sample_is_the_fill() {
        let mut strip = strip(8, 2, 2);
        for plane in &mut strip.planes {
            plane.of_mut::<u16>().fill(0x0102);
        }
        let mut fill = [0; 16];
        fill[..2].copy_from_slice(&0x0102_u16.to_ne_bytes());
        let cut = |column| Cut { column, block: 4, replicate: false };
        assert!(cut(0).is_empty(&strip, 2, SampleType::U16, &fill));
        strip.planes[1].of_mut::<u16>()[13] = 0;
        assert!(cut(0).is_empty(&strip, 2, SampleType::U16, &fill));
        assert!(!cut(1).is_empty(&strip, 2, SampleType::U16, &fill));
    }

    #[test]
    fn masks_are_packed_from_the_highest_bit() {
        let mut mask = Samples::zeroed(12);
        mask.bytes_mut().copy_from_slice(&[255, 0, 255, 0, 0, 0, 0, 0, 255, 255, 0, 255]);
        let strip = Strip { first_row: 0, rows: 1, width: 12, planes: vec![mask] };
        let mut tile = Samples::zeroed(2 * 16);
        Cut { column: 0, block: 16, replicate: false }.copy_mask(&strip, 0, &mut tile);
        assert_eq!(tile.bytes()[..4], [0b1010_0000, 0b1101_0000, 0, 0]);
    }
}
