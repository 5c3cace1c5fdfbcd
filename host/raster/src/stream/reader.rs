//! Pixels of a dataset, strip by strip, in windows that follow its blocks: each block is decoded once, whatever the size
//! of GDAL's cache.

use geoworker_cog::Source;
use geoworker_cog::overview::{Image, Strip};
use sha2::{Digest, Sha256};

use crate::error::RasterError;
use crate::ffi::{BYTE, PixelType, Plane, Window, pixel_type, read_into};
use crate::source::OpenSource;

/// Samples of one window, in bytes: several fit into the smallest block cache.
const WINDOW_BYTES: usize = 8 << 20;

/// Reads an open dataset.
pub(crate) struct Reader {
    source: OpenSource,
    planes: Vec<(Plane, PixelType)>,
    /// Planes that are not the mask.
    bands: usize,
    /// Of the source, in pixels.
    block: (usize, usize),
    pixel_bytes: usize,
    /// Of what was read, where it is wanted.
    hasher: Option<Sha256>,
}

impl Reader {
    /// Reads the bands and, where `image` has one, the mask of the dataset; or the band `opacity` instead of it.
    pub(crate) fn new(source: OpenSource, image: &Image, opacity: Option<usize>) -> Self {
        let dataset = source.dataset();
        let kind = pixel_type(dataset, 1);
        let mut planes: Vec<_> = (1..=image.bands.len()).map(|band| (Plane::Band(band), kind)).collect();
        let bands = planes.len();
        if image.mask {
            planes.push((opacity.map_or(Plane::Mask, Plane::Band), BYTE));
        }
        let block = dataset.rasterband(1).map_or((1, 1), |band| band.block_size());
        let block = (block.0.max(1), block.1.max(1));
        let pixel_bytes = planes.iter().map(|(_, kind)| kind.bytes()).sum();
        Self { source, planes, bands, block, pixel_bytes, hasher: None }
    }

    /// From now on, what is read is hashed.
    pub(crate) fn hash(&mut self) {
        self.hasher = Some(Sha256::new());
    }

    /// The hash of the bands' samples, row by row.
    pub(crate) fn digest(self) -> Option<Vec<u8>> {
        self.hasher.map(|hasher| hasher.finalize().to_vec())
    }

    /// Edges of the source's blocks in pixels.
    pub(crate) fn block(&self) -> (usize, usize) {
        self.block
    }

    /// Fills a strip from column `x` on.
    pub(crate) fn window(&mut self, x: usize, strip: &mut Strip) -> Result<(), RasterError> {
        let (columns, rows) = self.step(strip.width, strip.rows);
        for top in (0..strip.rows).step_by(rows) {
            for left in (0..strip.width).step_by(columns) {
                let window = Window {
                    x: x + left,
                    y: strip.first_row + top,
                    width: columns.min(strip.width - left),
                    height: rows.min(strip.rows - top),
                };
                self.read_window(window, top * strip.width + left, strip)?;
            }
        }
        Ok(())
    }

    /// Columns and rows of a window: whole blocks, as many as fit.
    fn step(&self, width: usize, rows: usize) -> (usize, usize) {
        let (block_width, block_height) = self.block;
        let pixels = WINDOW_BYTES / self.pixel_bytes.max(1);
        if block_width >= width {
            let fitting = pixels / width.max(1) / block_height * block_height;
            return (width, fitting.clamp(block_height, rows.max(block_height)));
        }
        let fitting = pixels / rows.max(1) / block_width * block_width;
        (fitting.max(block_width), rows)
    }

    /// Reads a window into all planes, where its first pixel is number `first`.
    fn read_window(&self, window: Window, first: usize, strip: &mut Strip) -> Result<(), RasterError> {
        let width = strip.width;
        for ((plane, kind), samples) in self.planes.iter().zip(&mut strip.planes) {
            let buffer = &mut samples.bytes_mut()[first * kind.bytes()..];
            read_into(self.source.dataset(), *plane, window, *kind, buffer, width)?;
        }
        Ok(())
    }
}

impl Source for Reader {
    type Error = RasterError;

    fn read(&mut self, strip: &mut Strip) -> Result<(), RasterError> {
        self.window(0, strip)?;
        let Some(hasher) = &mut self.hasher else { return Ok(()) };
        for row in 0..strip.rows {
            for ((_, kind), samples) in self.planes.iter().take(self.bands).zip(&strip.planes) {
                let length = strip.width * kind.bytes();
                hasher.update(&samples.bytes()[row * length..(row + 1) * length]);
            }
        }
        Ok(())
    }
}
