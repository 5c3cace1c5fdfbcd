//! All levels, one after the other.

use super::level::{Level, Mask, Plane};
use super::nodata::Missing;
use super::palette::Palette;
use super::{Band, Error, Image, Nodata, Resampling, Strip};
use crate::sample::SampleType;

/// Makes all overviews while the rows of the image are pushed.
///
/// The memory it takes is bounded by the widths, not by the height: see [`Cascade::bytes`].
#[derive(Debug)]
pub struct Cascade {
    levels: Vec<Level>,
    width: usize,
    height: usize,
    /// Bytes of a sample, by plane.
    sizes: Vec<usize>,
    mask: bool,
    /// Rows that were pushed.
    rows: usize,
}

impl Cascade {
    /// `levels` are the sizes (width, height) of the overviews, from the largest on. `rows_out` is the
    /// height of the strips that are given out; the last one of a level may be shorter.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for complex samples unless [`Resampling::Nearest`], and for palettes unless
    /// nearest, average or mode; also where a level is as wide as the one before (images that become one
    /// pixel wide). [`Error::Nodata`] where the value is none of the type.
    pub fn new(
        image: &Image,
        resampling: Resampling,
        levels: &[(usize, usize)],
        rows_out: usize,
    ) -> Result<Self, Error> {
        check(image, resampling)?;
        if rows_out == 0 {
            return Err(Error::Invalid("strips of no rows"));
        }
        let mut below = (image.width, image.height);
        let mut made = Vec::with_capacity(levels.len());
        for (index, &size) in levels.iter().enumerate() {
            if size.0 == 0 || size.1 == 0 || size.0 > below.0 || size.1 > below.1 {
                return Err(Error::Invalid("a level is empty, or larger than the one before"));
            }
            // GDAL then goes back to the full resolution, all rows of which would have to be kept.
            if index > 0 && size.0 == below.0 {
                return Err(Error::Unsupported("levels of one width"));
            }
            let planes = planes(image, resampling, index)?;
            made.push(Level::new(below, size, resampling, planes, rows_out));
            below = size;
        }
        let mut sizes = vec![image.sample.bytes(); image.bands.len()];
        sizes.extend(image.mask.then_some(1));
        let (width, height) = (image.width, image.height);
        Ok(Self { levels: made, width, height, sizes, mask: image.mask, rows: 0 })
    }

    /// Takes the next rows of the image (in order, any number of them), and calls `emit` with every
    /// strip that is complete, and its level: 0 is the first overview.
    ///
    /// # Errors
    ///
    /// [`Error::Strip`] if the strip does not follow the one before, or its planes are too short.
    pub fn push(&mut self, strip: &Strip, emit: &mut dyn FnMut(usize, Strip)) -> Result<(), Error> {
        if strip.first_row != self.rows || strip.rows > self.height - self.rows {
            return Err(Error::Strip("rows are not the next ones"));
        }
        if strip.width != self.width || strip.planes.len() != self.sizes.len() {
            return Err(Error::Strip("width or number of planes"));
        }
        let samples = strip.rows * strip.width;
        if strip.planes.iter().zip(&self.sizes).any(|(plane, size)| plane.bytes().len() < samples * size) {
            return Err(Error::Strip("a plane is too short"));
        }
        self.rows += strip.rows;
        let mask = self.mask.then(|| self.sizes.len() - 1);
        feed(&mut self.levels, 0, mask, strip, emit)
    }

    /// Takes back a strip that was given out, so that its memory is used again. Optional.
    pub fn recycle(&mut self, level: usize, strip: Strip) {
        if let Some(level) = self.levels.get_mut(level) {
            level.recycle(strip);
        }
    }

    /// Checks that all rows came: then all strips were given out.
    ///
    /// # Errors
    ///
    /// [`Error::Strip`] if rows are missing.
    pub fn finish(self) -> Result<(), Error> {
        let done = self.rows == self.height && self.levels.iter().all(Level::done);
        done.then_some(()).ok_or(Error::Strip("rows are missing"))
    }

    /// Bytes that are held at most, without the strips that the caller holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.levels.iter().map(Level::bytes).sum()
    }
}

fn feed(
    levels: &mut [Level],
    index: usize,
    mask: Option<usize>,
    strip: &Strip,
    emit: &mut dyn FnMut(usize, Strip),
) -> Result<(), Error> {
    let Some((level, above)) = levels.split_first_mut() else { return Ok(()) };
    let mut result = Ok(());
    level.push(strip, &mut |_, mut made| {
        // GDAL makes the overviews of a mask in a file of one bit, so that means are of 0 and 1.
        set_mask(&mut made, mask, 1);
        if result.is_ok() {
            result = feed(above, index + 1, mask, &made, emit);
        }
        set_mask(&mut made, mask, u8::MAX);
        emit(index, made);
    })?;
    result
}

/// Gives all samples of the mask that are not 0 one value.
fn set_mask(strip: &mut Strip, mask: Option<usize>, value: u8) {
    if let Some(plane) = mask.and_then(|mask| strip.planes.get_mut(mask)) {
        for sample in plane.bytes_mut() {
            *sample = if *sample == 0 { 0 } else { value };
        }
    }
}

fn check(image: &Image, resampling: Resampling) -> Result<(), Error> {
    if image.width == 0 || image.height == 0 || image.bands.is_empty() {
        return Err(Error::Invalid("the image is empty"));
    }
    if image.sample.is_complex() && resampling != Resampling::Nearest {
        return Err(Error::Unsupported("complex samples, unless nearest"));
    }
    if image.palette.is_none() {
        return Ok(());
    }
    let method = matches!(resampling, Resampling::Nearest | Resampling::Average | Resampling::Mode);
    let kind = image.sample == SampleType::U8 && image.bands.len() == 1;
    match (method, kind) {
        (false, _) => Err(Error::Unsupported("palettes, unless nearest, average or mode")),
        (_, false) => Err(Error::Unsupported("palettes, unless of one band of u8")),
        _ => Ok(()),
    }
}

fn planes(image: &Image, resampling: Resampling, level: usize) -> Result<Vec<Plane>, Error> {
    let sample = image.sample;
    let count = image.bands.len();
    // GDAL looks at the first band alone.
    let masked = image.bands.first().is_some_and(|band| band.alpha || mask_of(image, band) != Mask::None);
    let mut planes = Vec::with_capacity(count + 1);
    for (index, band) in image.bands.iter().enumerate() {
        known(band.nodata, sample)?;
        let mask = match mask_of(image, band) {
            _ if !masked => Mask::None,
            _ if band.alpha => Mask::Own,
            Mask::None => Mask::Full,
            mask => mask,
        };
        let byte_mode = resampling == Resampling::Mode && sample == SampleType::U8;
        // Bytes take no mask there but their nodata value.
        let mask = match (byte_mode, band.nodata) {
            (true, Some(_)) => Mask::Nodata,
            (true, None) => Mask::None,
            _ => mask,
        };
        let palette = match &image.palette {
            Some(colours) if index == 0 => Palette::new(colours, byte(band.nodata))?,
            _ => None,
        };
        planes.push(Plane { sample, nodata: band.nodata, mask, palette });
    }
    if image.mask {
        // The overviews of a mask are no mask bands any more.
        let mask = match (resampling, level) {
            (Resampling::Mode, _) => Mask::None,
            (_, 0) => Mask::Own,
            _ => Mask::Full,
        };
        planes.push(Plane { sample: SampleType::U8, nodata: None, mask, palette: None });
    }
    Ok(planes)
}

/// The mask of a band that is not opacity: of the data set, else by value, else by opacity (which
/// GDAL takes of the second of two or the fourth of four bands).
fn mask_of(image: &Image, band: &Band) -> Mask {
    let count = image.bands.len();
    let alpha = matches!(count, 2 | 4) && image.bands.last().is_some_and(|last| last.alpha);
    if image.mask {
        Mask::Plane(count, SampleType::U8)
    } else if band.nodata.is_some() {
        Mask::Nodata
    } else if alpha && matches!(image.sample, SampleType::U8 | SampleType::U16) {
        Mask::Plane(count - 1, image.sample)
    } else {
        Mask::None
    }
}

fn byte(nodata: Option<Nodata>) -> Option<u8> {
    match nodata {
        Some(Nodata::Float(value)) => Some(value as u8),
        _ => None,
    }
}

/// Whether the nodata value is one of the type.
fn known(nodata: Option<Nodata>, sample: SampleType) -> Result<(), Error> {
    match sample {
        SampleType::U8 => Missing::<u8>::new(nodata).map(drop),
        SampleType::I8 => Missing::<i8>::new(nodata).map(drop),
        SampleType::U16 => Missing::<u16>::new(nodata).map(drop),
        SampleType::I16 => Missing::<i16>::new(nodata).map(drop),
        SampleType::U32 => Missing::<u32>::new(nodata).map(drop),
        SampleType::I32 => Missing::<i32>::new(nodata).map(drop),
        SampleType::U64 => Missing::<u64>::new(nodata).map(drop),
        SampleType::I64 => Missing::<i64>::new(nodata).map(drop),
        SampleType::F32 => Missing::<f32>::new(nodata).map(drop),
        SampleType::F64 => Missing::<f64>::new(nodata).map(drop),
        SampleType::ComplexI16 | SampleType::ComplexI32 | SampleType::ComplexF32 | SampleType::ComplexF64 => {
            Ok(())
        }
    }
}
