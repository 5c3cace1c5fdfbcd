//! One level: takes rows of the level below, gives out strips.

use bytemuck::{AnyBitPattern, NoUninit};

use super::average::{self, Columns, Mean, Scratch};
use super::axis::Axis;
use super::convolve::Filtered;
use super::filter::{Kernel, Taps};
use super::gauss::{self, Bell};
use super::nodata::Missing;
use super::palette::Palette;
use super::source::{Kept, Rows, row_mut};
use super::{Error, Nodata, Resampling, Strip, mode, nearest, rms};
use crate::sample::{SampleType, Samples};

/// Which source pixels of a plane count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mask {
    /// All.
    None,
    /// All, but computed as if there were a mask.
    Full,
    /// Those without the nodata value.
    Nodata,
    /// Those that are not 0 in the plane itself (opacity, or the mask of a data set).
    Own,
    /// Those that are not 0 in another plane, whose samples are of this type.
    Plane(usize, SampleType),
}

/// What a plane is.
#[derive(Debug, Clone)]
pub(super) struct Plane {
    /// Type of its samples.
    pub(super) sample: SampleType,
    /// Value without data.
    pub(super) nodata: Option<Nodata>,
    /// Which source pixels count.
    pub(super) mask: Mask,
    /// Colour table, where means are means of colours.
    pub(super) palette: Option<Palette>,
}

/// Geometry by method, for each column.
#[derive(Debug)]
enum Plan {
    Nearest(Vec<usize>),
    Windows(Resampling, Columns),
    Kernel(Kernel, Vec<Taps>),
    Gauss(Vec<Bell>),
}

/// One level.
#[derive(Debug)]
pub(super) struct Level {
    across: Axis,
    down: Axis,
    plan: Plan,
    planes: Vec<Plane>,
    /// Bytes of a sample, by plane.
    sizes: Vec<usize>,
    rows_out: usize,
    kept: Kept,
    /// Next row to be made.
    next: usize,
    /// The strip in the making.
    out: Option<Strip>,
    spare: Vec<Strip>,
    filtered: Vec<Filtered>,
    scratch: Box<Scratch>,
    masks: Vec<Vec<u8>>,
}

/// A plane at the row that is to be made.
struct Task<'a> {
    level: &'a Level,
    plane: usize,
    rows: &'a Rows<'a>,
    masks: &'a mut Vec<Vec<u8>>,
}

impl Level {
    /// `below` and `size` are width and height of the level below and of this one, not zero.
    pub(super) fn new(
        below: (usize, usize),
        size: (usize, usize),
        resampling: Resampling,
        planes: Vec<Plane>,
        rows_out: usize,
    ) -> Self {
        let (across, down) = (Axis::new(below.0, size.0), Axis::new(below.1, size.1));
        let columns = 0..across.size;
        let kernel =
            |kernel| Plan::Kernel(kernel, columns.clone().map(|i| Taps::new(kernel, &across, i)).collect());
        let plan = match resampling {
            Resampling::Nearest => Plan::Nearest(columns.map(|i| across.nearest(i)).collect()),
            Resampling::Average | Resampling::Rms | Resampling::Mode => {
                Plan::Windows(resampling, Columns::new(across))
            }
            Resampling::Bilinear => kernel(Kernel::Bilinear),
            Resampling::Cubic => kernel(Kernel::Cubic),
            Resampling::Gauss => Plan::Gauss(columns.map(|i| Bell::new(&across, i, down.ratio)).collect()),
        };
        let sizes = planes.iter().map(|plane| plane.sample.bytes()).collect();
        let filtered = planes.iter().map(|_| Filtered::default()).collect();
        Self {
            across,
            down,
            plan,
            planes,
            sizes,
            rows_out,
            kept: Kept::default(),
            next: 0,
            out: None,
            spare: Vec::new(),
            filtered,
            scratch: Box::default(),
            masks: Vec::new(),
        }
    }

    /// Whether all rows were made.
    pub(super) fn done(&self) -> bool {
        self.next == self.down.size
    }

    /// Takes back a strip that was given out, to be used again.
    pub(super) fn recycle(&mut self, strip: Strip) {
        let fits = strip.width == self.across.size
            && strip.planes.len() == self.sizes.len()
            && strip
                .planes
                .iter()
                .zip(&self.sizes)
                .all(|(plane, size)| plane.bytes().len() == strip.width * self.strip_rows() * size);
        if fits && self.spare.is_empty() {
            self.spare.push(strip);
        }
    }

    /// Most bytes held: the strip in the making, one to be used again, kept rows, filtered rows.
    pub(super) fn bytes(&self) -> usize {
        let pixel: usize = self.sizes.iter().sum();
        let margin = (self.down.ratio.ceil() as usize + 1) * 4;
        let filtered = match self.plan {
            Plan::Kernel(..) => self.planes.len() * self.across.size * Filtered::bytes(margin + 2),
            _ => size_of::<Scratch>(),
        };
        let columns = match &self.plan {
            Plan::Nearest(columns) => columns.len() * size_of::<usize>(),
            Plan::Windows(_, columns) => columns.bytes(),
            Plan::Kernel(_, taps) => taps.len() * (size_of::<Taps>() + margin * 16),
            Plan::Gauss(bells) => bells.len() * (size_of::<Bell>() + 64),
        };
        let source = self.across.source * margin * (pixel + 1);
        2 * self.across.size * self.strip_rows() * pixel + source + filtered + columns
    }

    fn strip_rows(&self) -> usize {
        self.rows_out.min(self.down.size)
    }

    /// Source rows of one row.
    fn source_rows(&self, row: usize) -> (usize, usize) {
        match &self.plan {
            Plan::Nearest(_) => {
                let source = self.down.nearest(row);
                (source, source + 1)
            }
            Plan::Windows(..) => {
                let window = self.down.window(row);
                (window.start, window.end)
            }
            Plan::Kernel(kernel, _) => {
                let taps = Taps::new(*kernel, &self.down, row);
                (taps.start, taps.end())
            }
            Plan::Gauss(_) => {
                let bell = Bell::new(&self.down, row, self.down.ratio);
                (bell.start, bell.end())
            }
        }
    }

    /// Takes the next rows of the level below, and calls `done` with each strip that is complete.
    pub(super) fn push(
        &mut self,
        strip: &Strip,
        done: &mut dyn FnMut(&mut Self, Strip),
    ) -> Result<(), Error> {
        let end = strip.first_row + strip.rows;
        while self.next < self.down.size && self.source_rows(self.next).1 <= end {
            let mut out = self.out.take().unwrap_or_else(|| self.new_strip());
            self.make_row(strip, &mut out)?;
            out.rows += 1;
            self.next += 1;
            if out.rows == self.strip_rows() || self.done() {
                done(self, out);
            } else {
                self.out = Some(out);
            }
        }
        let mut first = if self.done() { end } else { self.source_rows(self.next).0 };
        if let (Plan::Kernel(..), Some(filtered)) = (&self.plan, self.filtered.first()) {
            first = first.max(filtered.end());
        }
        self.kept.keep(first, strip, &self.sizes);
        Ok(())
    }

    fn new_strip(&mut self) -> Strip {
        let mut strip = self.spare.pop().unwrap_or_else(|| {
            let samples = self.strip_rows() * self.across.size;
            let planes = self.sizes.iter().map(|size| Samples::zeroed(samples * size)).collect();
            Strip { first_row: 0, rows: 0, width: self.across.size, planes }
        });
        (strip.first_row, strip.rows) = (self.next, 0);
        strip
    }

    /// Makes the next row of all planes.
    fn make_row(&mut self, strip: &Strip, out: &mut Strip) -> Result<(), Error> {
        let mut filtered = std::mem::take(&mut self.filtered);
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut masks = std::mem::take(&mut self.masks);
        let rows = Rows { kept: &self.kept, strip };
        let planes = 0..self.planes.len();
        let result = planes.zip(&mut filtered).try_for_each(|(plane, filtered)| {
            let task = Task { level: self, plane, rows: &rows, masks: &mut masks };
            task.run(filtered, &mut scratch, out)
        });
        (self.filtered, self.scratch, self.masks) = (filtered, scratch, masks);
        result
    }
}

impl Task<'_> {
    fn run(mut self, filtered: &mut Filtered, scratch: &mut Scratch, out: &mut Strip) -> Result<(), Error> {
        let row = out.rows;
        let plane = self.plane;
        if let Plan::Nearest(columns) = &self.level.plan {
            match self.level.sizes[plane] {
                1 => self.nearest::<u8>(columns, row_mut(out, plane, row)),
                2 => self.nearest::<u16>(columns, row_mut(out, plane, row)),
                4 => self.nearest::<u32>(columns, row_mut(out, plane, row)),
                8 => self.nearest::<u64>(columns, row_mut(out, plane, row)),
                _ => self.nearest::<[u64; 2]>(columns, row_mut(out, plane, row)),
            }
            return Ok(());
        }
        let state = (filtered, scratch);
        match self.level.planes[plane].sample {
            SampleType::U8 => self.bytes(state, row_mut(out, plane, row)),
            SampleType::I8 => self.numbers::<i8>(state, row_mut(out, plane, row)),
            SampleType::U16 => self.numbers::<u16>(state, row_mut(out, plane, row)),
            SampleType::I16 => self.numbers::<i16>(state, row_mut(out, plane, row)),
            SampleType::U32 => self.numbers::<u32>(state, row_mut(out, plane, row)),
            SampleType::I32 => self.numbers::<i32>(state, row_mut(out, plane, row)),
            SampleType::U64 => self.numbers::<u64>(state, row_mut(out, plane, row)),
            SampleType::I64 => self.numbers::<i64>(state, row_mut(out, plane, row)),
            SampleType::F32 => self.numbers::<f32>(state, row_mut(out, plane, row)),
            SampleType::F64 => self.numbers::<f64>(state, row_mut(out, plane, row)),
            SampleType::ComplexI16
            | SampleType::ComplexI32
            | SampleType::ComplexF32
            | SampleType::ComplexF64 => Err(Error::Unsupported("complex samples")),
        }
    }

    fn nearest<T: AnyBitPattern + NoUninit>(&self, columns: &[usize], out: &mut [T]) {
        let source = self.rows.get::<T>(self.plane, self.level.down.nearest(self.level.next));
        nearest::row(source, &self.level.across, columns, out);
    }

    fn bytes(&mut self, state: (&mut Filtered, &mut Scratch), out: &mut [u8]) -> Result<(), Error> {
        let level = self.level;
        let palette = &level.planes[self.plane].palette;
        let (Some(palette), Plan::Windows(Resampling::Average, columns)) = (palette, &level.plan) else {
            return self.numbers::<u8>(state, out);
        };
        let down = level.down.window(level.next);
        palette.row(&self.source::<u8>(down.start, down.end), &columns.windows, out);
        Ok(())
    }

    fn source<T: AnyBitPattern>(&self, start: usize, end: usize) -> Vec<&[T]> {
        (start..end).map(|row| self.rows.get(self.plane, row)).collect()
    }

    fn numbers<T: Mean>(
        &mut self,
        (filtered, scratch): (&mut Filtered, &mut Scratch),
        out: &mut [T],
    ) -> Result<(), Error> {
        let level = self.level;
        let Plane { nodata, mask, .. } = &level.planes[self.plane];
        let missing = Missing::<T>::new(*nodata)?;
        let missing = missing.as_ref();
        let (start, end) = level.source_rows(level.next);
        if let Plan::Kernel(kernel, taps) = &level.plan {
            for row in filtered.advance(start, end) {
                let source = self.rows.get::<T>(self.plane, row);
                let mask = self.mask_rows(row, row + 1, missing);
                let mask = mask.and_then(|mask| mask.first().copied());
                filtered.add(source, mask, taps, *kernel);
            }
            filtered.row(&Taps::new(*kernel, &level.down, level.next), *kernel, missing, out);
            return Ok(());
        }
        let (rows, plane) = (self.rows, self.plane);
        let source: Vec<&[T]> = (start..end).map(|row| rows.get(plane, row)).collect();
        let average = matches!(level.plan, Plan::Windows(Resampling::Average, _));
        if let (true, Mask::Nodata, Some(missing), [top, bottom], true) =
            (average, mask, missing, source.as_slice(), level.across.halves())
        {
            average::quads_with_missing(top, bottom, missing, out);
            return Ok(());
        }
        let masks = self.mask_rows(start, end, missing);
        let masks = masks.as_deref();
        match &level.plan {
            Plan::Windows(resampling, columns) => {
                let place = (columns, &level.down.window(level.next));
                match resampling {
                    Resampling::Mode => {
                        mode::row(
                            &source,
                            masks,
                            &columns.windows,
                            missing.map_or_else(T::default, |m| m.value),
                            out,
                        );
                    }
                    Resampling::Rms => rms::row(&source, masks, place, missing, scratch, out),
                    _ => average::row(&source, masks, place, missing, scratch, out),
                }
            }
            Plan::Gauss(bells) => {
                let bell = Bell::new(&level.down, level.next, level.down.ratio);
                gauss::row(&source, masks, (bells, &bell), missing, out);
            }
            Plan::Nearest(_) | Plan::Kernel(..) => {}
        }
        Ok(())
    }

    /// Masks of the source rows `start..end`: 0 where a pixel does not count.
    fn mask_rows<T: Mean>(
        &mut self,
        start: usize,
        end: usize,
        missing: Option<&Missing<T>>,
    ) -> Option<Vec<&[u8]>> {
        let mask = self.level.planes[self.plane].mask;
        if let Mask::Plane(plane, SampleType::U8) = mask {
            return Some((start..end).map(|row| self.rows.get(plane, row)).collect());
        }
        if (mask, self.level.planes[self.plane].sample) == (Mask::Own, SampleType::U8) {
            return Some((start..end).map(|row| self.rows.get(self.plane, row)).collect());
        }
        if mask == Mask::None {
            return None;
        }
        self.masks.resize_with(self.masks.len().max(end - start), Vec::new);
        for (buffer, row) in self.masks.iter_mut().zip(start..end) {
            buffer.clear();
            match mask {
                Mask::None | Mask::Full => buffer.resize(self.level.across.source, u8::MAX),
                Mask::Nodata => {
                    let source = self.rows.get::<T>(self.plane, row).iter();
                    let valid = |&sample: &T| !missing.is_some_and(|missing| missing.is(sample));
                    buffer.extend(source.map(|sample| if valid(sample) { u8::MAX } else { 0 }));
                }
                Mask::Own => {
                    let source = self.rows.get::<T>(self.plane, row).iter();
                    buffer.extend(source.map(|sample| u8::from_number(sample.number())));
                }
                Mask::Plane(plane, _) => {
                    buffer.extend(self.rows.get::<u16>(plane, row).iter().map(|&alpha| opacity(alpha)));
                }
            }
        }
        Some(self.masks.iter().take(end - start).map(Vec::as_slice).collect())
    }
}

/// Conversion of a band that is its own mask.
trait FromNumber {
    fn from_number(value: f64) -> Self;
}

impl FromNumber for u8 {
    fn from_number(value: f64) -> Self {
        super::number::Number::store(value)
    }
}

/// 16-bit opacity in 8 bits; what is not 0 stays so.
fn opacity(alpha: u16) -> u8 {
    if (1..257).contains(&alpha) { 1 } else { (u32::from(alpha) * 255 / 65535) as u8 }
}
