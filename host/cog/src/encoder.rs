//! The pipeline: one thread reads strips, several compress tiles, and the caller's thread makes the overviews and puts
//! everything in order.
//!
//! Memory does not depend on the height: two strips of the full resolution are under way (one is read while the tiles of
//! the other are compressed), the overviews hold about one more, and tiles wait in bounded numbers.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::assembly::Assembly;
use crate::codec::{Compression, DeflateLevel, GDAL_DEFLATE_LEVEL, TileEncoder, TileFormat};
use crate::directories::directories;
use crate::error::EncodeError;
use crate::lent::Lent;
use crate::levels::overview_sizes;
use crate::overview::{Cascade, Image, Strip};
use crate::raster::{Encoding, Raster, Source, Summary};
use crate::sink::Sink;
use crate::spool::Spool;
use crate::tiff::Head;
use crate::worker::{Job, Tile, TileError, TileWork};

/// Strips of the full resolution that exist.
const STRIPS: usize = 2;
/// Bytes of tiles that are under way, about.
const TILES_UNDER_WAY: usize = 16 << 20;
/// Masks are as long as nothing beside their image: GDAL's level will do.
const MASK_COMPRESSION: Compression = Compression::Deflate(DeflateLevel::Libdeflate(GDAL_DEFLATE_LEVEL));

/// Checks that the codec can hold the raster and its overviews can be made, without reading anything; answers the bytes that
/// it takes at most, about: strips, overviews, tiles under way and the spool, without what the source and the sink take.
///
/// # Errors
/// Where the raster cannot be encoded in this way.
pub fn memory(raster: &Raster, encoding: &Encoding) -> Result<u64, EncodeError<std::io::Error>> {
    let image = &raster.image;
    let format = tile_format(raster, encoding);
    TileEncoder::new(&format, &encoding.compression)?;
    let sizes = overview_sizes(image.width, image.height, encoding.block);
    let cascade = Cascade::new(image, encoding.resampling, &sizes, encoding.block)?;
    let strips = STRIPS * strip_bytes(image, encoding.block);
    let tiles = tiles_under_way(format.bytes(), encoding.threads) + 2 * encoding.threads;
    // Strips of overviews that are compressed while the next ones are made.
    let emitted = strip_bytes(image, encoding.block) / 2;
    let bytes = strips + cascade.bytes() + emitted + tiles * format.bytes() + encoding.spool_bytes;
    Ok(bytes as u64)
}

/// Encodes a raster in one pass. `progress` gets the rows that are done, and stops the encoder where it says so.
///
/// # Errors
/// Where the source fails, the raster cannot be encoded or the sink not be written; what the sink got is of no use then.
pub fn encode<S: Source>(
    raster: &Raster,
    encoding: &Encoding,
    source: &mut S,
    sink: &mut dyn Sink,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Summary, EncodeError<S::Error>> {
    let format = tile_format(raster, encoding);
    // The threads would say so one by one.
    TileEncoder::new(&format, &encoding.compression)?;
    let image = &raster.image;
    let overviews = overview_sizes(image.width, image.height, encoding.block);
    let work = TileWork {
        format,
        compression: encoding.compression,
        mask: image.mask.then_some(MASK_COMPRESSION),
        fill: raster.fill,
    };
    let spool = Spool::new(overviews.len(), encoding.spool_bytes, encoding.scratch.clone());
    let mut assembly = Assembly::new(overviews.len() + 1, image.mask, sink, spool);
    let sizes: Vec<_> =
        std::iter::once((image.width, image.height)).chain(overviews.iter().copied()).collect();
    stream(image, encoding, &sizes, &work, source, &mut assembly, progress)?;
    let (data, empty_tiles) = (assembly.bytes(), assembly.empty());
    let tiles = assembly.take_places();
    let list = directories(raster, encoding, &format, &MASK_COMPRESSION, &sizes, tiles);
    let head = Head::new(list, image.mask, data);
    let bytes = assembly.finish(head.length(), |starts| head.bytes(starts))?;
    Ok(Summary { bytes, overviews, empty_tiles, big: head.is_big() })
}

/// Lets all strips through: reader, overviews, tiles, assembly.
fn stream<S: Source>(
    image: &Image,
    encoding: &Encoding,
    sizes: &[(usize, usize)],
    work: &TileWork,
    source: &mut S,
    assembly: &mut Assembly<'_>,
    progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<(), EncodeError<S::Error>> {
    let cascade = Cascade::new(image, encoding.resampling, &sizes[1..], encoding.block)?;
    let (jobs, waiting) = channel();
    let waiting = Mutex::new(waiting);
    let (finished, tiles) = channel();
    let (free, empty) = channel();
    let (full, strips) = channel();
    let count = image.height.div_ceil(encoding.block);
    for _ in 0..STRIPS.min(count) {
        // Its receiver is two lines above.
        let _ = free.send(Strip::zeroed(image, image.width, encoding.block.min(image.height)));
    }
    std::thread::scope(|scope| {
        scope.spawn(move || read_strips(image, encoding.block, source, &empty, &full));
        for _ in 0..encoding.threads.max(1) {
            let (waiting, finished) = (&waiting, finished.clone());
            scope.spawn(move || work.run(waiting, &finished));
        }
        drop(finished);
        // Owns the channels: when it ends, for whatever reason, the threads do.
        let limit = tiles_under_way(work.format.bytes(), encoding.threads);
        let pool = Pool { jobs, tiles, under_way: 0, limit, block: encoding.block };
        let flow = Flow { cascade, pool, free, sizes };
        flow.run(&strips, count, assembly, progress)
    })
}

/// Reads all strips, one after the other, whenever there is an empty one.
fn read_strips<S: Source>(
    image: &Image,
    block: usize,
    source: &mut S,
    empty: &Receiver<Strip>,
    full: &Sender<Result<Strip, S::Error>>,
) {
    for first_row in (0..image.height).step_by(block) {
        let Ok(mut strip) = empty.recv() else { return };
        strip.first_row = first_row;
        strip.rows = block.min(image.height - first_row);
        strip.width = image.width;
        let read = source.read(&mut strip);
        let failed = read.is_err();
        if full.send(read.map(|()| strip)).is_err() || failed {
            return;
        }
    }
}

/// The caller's thread.
struct Flow<'a> {
    cascade: Cascade,
    pool: Pool,
    free: Sender<Strip>,
    /// Of all levels, the full resolution first.
    sizes: &'a [(usize, usize)],
}

impl Flow<'_> {
    fn run<E: std::error::Error + 'static>(
        mut self,
        strips: &Receiver<Result<Strip, E>>,
        count: usize,
        assembly: &mut Assembly<'_>,
        progress: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(), EncodeError<E>> {
        for _ in 0..count {
            let strip = strips.recv().map_err(|_| EncodeError::Thread)?.map_err(EncodeError::Source)?;
            let rows = strip.first_row + strip.rows;
            let strip = Arc::new(Lent::new(strip, Some(self.free.clone())));
            self.pool.dispatch(0, self.sizes[0].0, &strip, assembly)?;
            let mut made = Vec::new();
            self.cascade.push(strip.strip(), &mut |level, strip| made.push((level + 1, strip)))?;
            drop(strip);
            for (level, strip) in made {
                let strip = Arc::new(Lent::new(strip, None));
                self.pool.dispatch(level, self.sizes[level].0, &strip, assembly)?;
            }
            if progress(rows).is_break() {
                return Err(EncodeError::Cancelled);
            }
        }
        self.cascade.finish()?;
        self.pool.finish(assembly)
    }
}

/// The threads that make tiles, seen from the thread that gives them work.
struct Pool {
    jobs: Sender<Job>,
    tiles: Receiver<Result<Tile, TileError>>,
    under_way: usize,
    limit: usize,
    block: usize,
}

impl Pool {
    /// Has the tiles of a strip made, whose rows are those of one row of tiles.
    fn dispatch<E: std::error::Error + 'static>(
        &mut self,
        level: usize,
        width: usize,
        strip: &Arc<Lent>,
        assembly: &mut Assembly<'_>,
    ) -> Result<(), EncodeError<E>> {
        let across = width.div_ceil(self.block);
        let first = strip.strip().first_row / self.block * across;
        for column in 0..across {
            while self.under_way >= self.limit {
                self.take(assembly)?;
            }
            let job = Job { level, number: first + column, column, strip: Arc::clone(strip) };
            self.jobs.send(job).map_err(|_| EncodeError::Thread)?;
            self.under_way += 1;
        }
        Ok(())
    }

    /// Waits for a tile and puts it where it belongs.
    fn take<E: std::error::Error + 'static>(
        &mut self,
        assembly: &mut Assembly<'_>,
    ) -> Result<(), EncodeError<E>> {
        let made = self.tiles.recv().map_err(|_| EncodeError::Thread)?;
        self.under_way -= 1;
        match made {
            Ok(tile) => Ok(assembly.add(tile)?),
            Err(TileError::Codec(error)) => Err(error.into()),
            Err(TileError::Thread) => Err(EncodeError::Thread),
        }
    }

    fn finish<E: std::error::Error + 'static>(
        mut self,
        assembly: &mut Assembly<'_>,
    ) -> Result<(), EncodeError<E>> {
        while self.under_way > 0 {
            self.take(assembly)?;
        }
        Ok(())
    }
}

fn tile_format(raster: &Raster, encoding: &Encoding) -> TileFormat {
    TileFormat {
        sample: raster.image.sample,
        samples: raster.image.bands.len(),
        width: encoding.block,
        height: encoding.block,
        predictor: encoding.predictor,
    }
}

/// Tiles of `tile_bytes` that may be under way: enough to keep the threads busy, few enough to bound memory.
#[must_use]
pub fn tiles_under_way(tile_bytes: usize, threads: usize) -> usize {
    (TILES_UNDER_WAY / tile_bytes.max(1)).clamp(2 * threads.max(1), 16 * threads.max(1))
}

fn strip_bytes(image: &Image, rows: usize) -> usize {
    let pixel = image.bands.len() * image.sample.bytes() + usize::from(image.mask);
    rows * image.width * pixel
}
