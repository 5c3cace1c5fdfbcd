//! Threads that turn pieces of strips into compressed tiles.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};

use crate::codec::{CodecError, Compression, Predictor, TileEncoder, TileFormat};
use crate::lent::Lent;
use crate::sample::{SampleType, Samples};
use crate::tile::Cut;

/// One tile to make.
pub(crate) struct Job {
    pub(crate) level: usize,
    /// Number in its level, row by row.
    pub(crate) number: usize,
    pub(crate) column: usize,
    pub(crate) strip: Arc<Lent>,
}

/// A tile as it stands in the file.
#[derive(Debug, Default)]
pub(crate) struct Tile {
    pub(crate) level: usize,
    pub(crate) number: usize,
    /// Leader, image, trailer, and the same for the mask.
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the image alone; 0 where the tile is empty.
    pub(crate) image: u32,
    /// Bytes of the mask alone.
    pub(crate) mask: u32,
}

/// Why a tile was not made.
#[derive(Debug)]
pub(crate) enum TileError {
    Codec(CodecError),
    /// The thread panicked.
    Thread,
}

/// What all tiles have in common.
#[derive(Debug, Clone)]
pub(crate) struct TileWork {
    pub(crate) format: TileFormat,
    pub(crate) compression: Compression,
    /// Codec of the mask, where there is one.
    pub(crate) mask: Option<Compression>,
    pub(crate) fill: Option<[u8; 16]>,
}

impl TileWork {
    /// Makes tiles until there are no more jobs. Where nobody wants tiles any more, the jobs that are left are taken all the
    /// same: each holds a strip that its reader waits for.
    pub(crate) fn run(&self, jobs: &Mutex<Receiver<Job>>, done: &Sender<Result<Tile, TileError>>) {
        let mut maker = match Maker::new(self) {
            Ok(maker) => maker,
            Err(error) => {
                // Whoever waits for tiles hears of it.
                let _ = done.send(Err(TileError::Codec(error)));
                while next(jobs).is_some() {}
                return;
            }
        };
        let mut wanted = true;
        while let Some(job) = next(jobs) {
            if !wanted {
                continue;
            }
            let made = catch_unwind(AssertUnwindSafe(|| maker.make(&job)));
            drop(job);
            let made = made.map_or(Err(TileError::Thread), |made| made.map_err(TileError::Codec));
            wanted = done.send(made).is_ok();
        }
    }

    /// Format of the mask's tiles: bytes of eight pixels.
    fn mask_format(&self) -> TileFormat {
        let TileFormat { width, height, .. } = self.format;
        TileFormat {
            sample: SampleType::U8,
            samples: 1,
            width: width / 8,
            height,
            predictor: Predictor::None,
        }
    }
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// What one thread keeps between tiles.
struct Maker<'a> {
    work: &'a TileWork,
    encoder: TileEncoder,
    pixels: Samples,
    mask: Option<(TileEncoder, Samples)>,
}

impl<'a> Maker<'a> {
    fn new(work: &'a TileWork) -> Result<Self, CodecError> {
        let encoder = TileEncoder::new(&work.format, &work.compression)?;
        let mask_format = work.mask_format();
        let mask = work.mask.as_ref().map(|compression| TileEncoder::new(&mask_format, compression));
        let mask = mask.transpose()?.map(|encoder| (encoder, Samples::zeroed(mask_format.bytes())));
        Ok(Self { work, encoder, pixels: Samples::zeroed(work.format.bytes()), mask })
    }

    fn make(&mut self, job: &Job) -> Result<Tile, CodecError> {
        let (format, strip) = (&self.work.format, job.strip.strip());
        let lossy = matches!(self.work.compression, Compression::Jpeg { .. } | Compression::Webp { .. });
        let cut = Cut { column: job.column, block: format.width, replicate: lossy };
        let mut tile = Tile { level: job.level, number: job.number, ..Tile::default() };
        let bands = format.samples;
        let nothing = self.work.fill.is_some_and(|fill| cut.is_empty(strip, bands, format.sample, &fill));
        if nothing && (self.mask.is_none() || cut.is_masked(strip, bands)) {
            return Ok(tile);
        }
        cut.copy(strip, bands, format.sample, &mut self.pixels);
        tile.image = framed(&mut self.encoder, &mut self.pixels, &mut tile.bytes)?;
        if let Some((encoder, pixels)) = &mut self.mask {
            cut.copy_mask(strip, bands, pixels);
            tile.mask = framed(encoder, pixels, &mut tile.bytes)?;
        }
        Ok(tile)
    }
}

/// Appends a tile between its leader (its length) and its trailer (its last four bytes once more); answers its length.
fn framed(encoder: &mut TileEncoder, pixels: &mut Samples, out: &mut Vec<u8>) -> Result<u32, CodecError> {
    let leader = out.len();
    out.extend_from_slice(&[0; 4]);
    encoder.encode(pixels.bytes_mut(), out)?;
    let start = leader + 4;
    // Encoders refuse formats whose tiles could be longer.
    let length = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[leader..start].copy_from_slice(&length.to_le_bytes());
    let mut trailer = [0; 4];
    let last = out[start..].len().min(4);
    trailer[4 - last..].copy_from_slice(&out[out.len() - last..]);
    out.extend_from_slice(&trailer);
    Ok(length)
}
