//! Tiles come back in any order and stand in the file row by row.

use std::collections::BTreeMap;
use std::io;

use crate::directories::LevelTiles;
use crate::sink::{ALIGNMENT, Sink};
use crate::spool::Spool;
use crate::tiff::TilePlace;
use crate::worker::Tile;

/// Bytes of a leader, and of a trailer.
const FRAME: u64 = 4;

/// One level: what came, and what has to wait for tiles before it.
#[derive(Debug, Default)]
struct Level {
    places: LevelTiles,
    early: BTreeMap<usize, Tile>,
    bytes: u64,
}

/// Puts the tiles of all levels in order: those of the full resolution into the sink, others into the spool.
pub(crate) struct Assembly<'a> {
    levels: Vec<Level>,
    masked: bool,
    sink: &'a mut dyn Sink,
    spool: Spool,
    empty: u64,
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(levels: usize, masked: bool, sink: &'a mut dyn Sink, spool: Spool) -> Self {
        let levels = std::iter::repeat_with(Level::default).take(levels).collect();
        Self { levels, masked, sink, spool, empty: 0 }
    }

    /// Takes a tile.
    pub(crate) fn add(&mut self, tile: Tile) -> io::Result<()> {
        let number = tile.level;
        let Some(level) = self.levels.get_mut(number) else { return Ok(()) };
        level.early.insert(tile.number, tile);
        while let Some(tile) = level.early.remove(&level.places.image.len()) {
            let (image, mask) = places(&tile, level.bytes);
            level.places.image.push(image);
            if self.masked {
                level.places.mask.push(mask);
            }
            level.bytes += tile.bytes.len() as u64;
            self.empty += u64::from(tile.image == 0);
            match number {
                0 => self.sink.body(&tile.bytes)?,
                overview => self.spool.append(overview - 1, &tile.bytes)?,
            }
        }
        Ok(())
    }

    /// Bytes of all levels.
    pub(crate) fn bytes(&self) -> u64 {
        self.levels.iter().map(|level| level.bytes).sum()
    }

    /// Tiles that were not stored.
    pub(crate) fn empty(&self) -> u64 {
        self.empty
    }

    /// Where all tiles are; to be asked for once.
    pub(crate) fn take_places(&mut self) -> Vec<LevelTiles> {
        self.levels.iter_mut().map(|level| std::mem::take(&mut level.places)).collect()
    }

    /// Writes the head and then the overviews, the smallest first. `head` makes the bytes of the head, which has
    /// `head_length` of them, from where the levels begin.
    pub(crate) fn finish(self, head_length: u64, head: impl FnOnce(&[u64]) -> Vec<u8>) -> io::Result<u64> {
        let overviews = self.levels.len().saturating_sub(1);
        let mut starts = vec![0; self.levels.len()];
        let mut position = head_length;
        for overview in (0..overviews).rev() {
            starts[overview + 1] = position;
            position += self.spool.length(overview);
        }
        // Padding is written, so that every sink gets the same bytes.
        let body = if self.levels.first().is_some_and(|level| level.bytes > 0) {
            position.next_multiple_of(ALIGNMENT)
        } else {
            position
        };
        starts[0] = body;
        self.sink.make_room(body)?;
        self.sink.head(&head(&starts))?;
        for overview in (0..overviews).rev() {
            self.spool.drain(overview, &mut |bytes| self.sink.head(bytes))?;
        }
        self.sink.head(&vec![0; usize::try_from(body - position).unwrap_or_default()])?;
        self.sink.finish()
    }
}

/// Places of image and mask in a tile whose first byte is at `start`.
fn places(tile: &Tile, start: u64) -> (TilePlace, TilePlace) {
    if tile.image == 0 {
        return (TilePlace::default(), TilePlace::default());
    }
    let image = TilePlace { offset: start + FRAME, length: tile.image };
    let mask = TilePlace { offset: image.offset + u64::from(tile.image) + 2 * FRAME, length: tile.mask };
    (image, mask)
}
