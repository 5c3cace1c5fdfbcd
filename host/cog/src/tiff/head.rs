//! Putting the head together, once it is known where every tile is.

use super::{Field, Kind};

const TILE_OFFSETS: u16 = 324;
const TILE_BYTE_COUNTS: u16 = 325;
/// What GDAL declares about a COG. The space is for the S of a YES.
const GHOST: &str = "LAYOUT=IFDS_BEFORE_DATA\nBLOCK_ORDER=ROW_MAJOR\nBLOCK_LEADER=SIZE_AS_UINT4\n\
     BLOCK_TRAILER=LAST_4_BYTES_REPEATED\nKNOWN_INCOMPATIBLE_EDITION=NO\n ";
const GHOST_MASK: &str = "MASK_INTERLEAVED_WITH_IMAGERY=YES\n";
/// Offsets beyond this do not fit into a classic TIFF.
const CLASSIC_LIMIT: u64 = u32::MAX as u64;

/// Where a tile is, from the first byte of its level's data; nowhere, where it is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TilePlace {
    /// Of the first byte of the tile itself.
    pub(crate) offset: u64,
    /// Bytes; 0 for an empty tile.
    pub(crate) length: u32,
}

/// An image: full resolution, overview or mask.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    /// Fields other than where the tiles are.
    pub(crate) fields: Vec<Field>,
    /// Row by row.
    pub(crate) tiles: Vec<TilePlace>,
    /// Level whose data the tiles are in: 0 is full resolution.
    pub(crate) level: usize,
}

/// Everything before the data of the overviews.
#[derive(Debug)]
pub(crate) struct Head {
    directories: Vec<Directory>,
    big: bool,
    ghost: String,
}

impl Head {
    /// A head for `data` bytes of tiles in all levels together.
    pub(crate) fn new(directories: Vec<Directory>, masked: bool, data: u64) -> Self {
        let mut text = GHOST.to_owned();
        if masked {
            text.push_str(GHOST_MASK);
        }
        let ghost = format!("GDAL_STRUCTURAL_METADATA_SIZE={:06} bytes\n{text}", text.len());
        let mut head = Self { directories, big: false, ghost };
        // What the sink may put between the overviews and the full resolution is less than a MiB.
        head.big = head.length() + data + (1 << 20) > CLASSIC_LIMIT;
        head
    }

    /// Whether offsets have 64 bits.
    pub(crate) fn is_big(&self) -> bool {
        self.big
    }

    /// Bytes.
    pub(crate) fn length(&self) -> u64 {
        let sized =
            |directory: &Directory| (self.directory_length(directory) + self.arrays_length(directory)) as u64;
        self.first_directory() as u64 + self.directories.iter().map(sized).sum::<u64>()
    }

    /// The bytes, where the data of each level begins at its entry of `starts`.
    pub(crate) fn bytes(&self, starts: &[u64]) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(b"II");
        let first = self.first_directory() as u64;
        if self.big {
            out.extend_from_slice(&[43, 0, 8, 0, 0, 0]);
            out.extend_from_slice(&first.to_le_bytes());
        } else {
            out.extend_from_slice(&[42, 0]);
            out.extend_from_slice(&low(first).to_le_bytes());
        }
        out.extend_from_slice(self.ghost.as_bytes());
        out.resize(self.first_directory(), 0);
        let directories: usize =
            self.directories.iter().map(|directory| self.directory_length(directory)).sum();
        let mut arrays = out.len() + directories;
        for (number, directory) in self.directories.iter().enumerate() {
            let last = number + 1 == self.directories.len();
            let start = starts.get(directory.level).copied().unwrap_or(0);
            self.write_directory(&mut out, directory, arrays, start, last);
            arrays += self.arrays_length(directory);
        }
        for directory in &self.directories {
            let start = starts.get(directory.level).copied().unwrap_or(0);
            self.write_arrays(&mut out, directory, start);
        }
        out
    }

    fn first_directory(&self) -> usize {
        let header = if self.big { 16 } else { 8 };
        (header + self.ghost.len()).next_multiple_of(2)
    }

    fn entry_bytes(&self) -> usize {
        if self.big { 20 } else { 12 }
    }

    /// Bytes of a value that stands in the entry itself.
    fn inline_bytes(&self) -> usize {
        if self.big { 8 } else { 4 }
    }

    fn offset_bytes(&self) -> usize {
        if self.big { 8 } else { 4 }
    }

    /// Entries and the values beside them, without the arrays of tiles.
    fn directory_length(&self, directory: &Directory) -> usize {
        let entries = (directory.fields.len() + 2) * self.entry_bytes();
        let frame = if self.big { 8 + 8 } else { 2 + 4 };
        let beside = |field: &Field| {
            if field.value.len() <= self.inline_bytes() { 0 } else { field.value.len().next_multiple_of(8) }
        };
        (frame + entries).next_multiple_of(8) + directory.fields.iter().map(beside).sum::<usize>()
    }

    fn arrays_length(&self, directory: &Directory) -> usize {
        let count = directory.tiles.len();
        let array = |bytes: usize| if bytes <= self.inline_bytes() { 0 } else { bytes.next_multiple_of(8) };
        array(count * self.offset_bytes()) + array(count * 4)
    }

    fn write_directory(
        &self,
        out: &mut Vec<u8>,
        directory: &Directory,
        arrays: usize,
        start: u64,
        last: bool,
    ) {
        let begin = out.len();
        let end = begin + self.directory_length(directory);
        let count = directory.fields.len() + 2;
        let frame = if self.big { 8 + 8 } else { 2 + 4 };
        let mut beside = begin + (frame + count * self.entry_bytes()).next_multiple_of(8);
        let mut values = Vec::new();
        if self.big {
            out.extend_from_slice(&(count as u64).to_le_bytes());
        } else {
            out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
        }
        let (offsets, lengths) = self.tile_fields(directory, start);
        let mut fields: Vec<&Field> = directory.fields.iter().chain([&offsets, &lengths]).collect();
        fields.sort_by_key(|field| field.tag);
        let offsets_beside = if offsets.value.len() <= self.inline_bytes() { 0 } else { offsets.value.len() };
        for field in fields {
            let place = match field.tag {
                TILE_OFFSETS => arrays,
                TILE_BYTE_COUNTS => arrays + offsets_beside.next_multiple_of(8),
                _ => beside,
            };
            let inline = self.write_entry(out, field, place);
            if !inline && field.tag != TILE_OFFSETS && field.tag != TILE_BYTE_COUNTS {
                values.extend_from_slice(&field.value);
                values.resize(values.len().next_multiple_of(8), 0);
                beside += field.value.len().next_multiple_of(8);
            }
        }
        let next = if last { 0 } else { end as u64 };
        if self.big {
            out.extend_from_slice(&next.to_le_bytes());
        } else {
            out.extend_from_slice(&low(next).to_le_bytes());
        }
        // Directories begin at multiples of 8 but for the first, whose beginning is the ghost's end.
        out.resize(begin + (out.len() - begin).next_multiple_of(8), 0);
        out.extend_from_slice(&values);
    }

    /// Writes an entry; answers whether its value is in it.
    fn write_entry(&self, out: &mut Vec<u8>, field: &Field, place: usize) -> bool {
        let room = self.inline_bytes();
        out.extend_from_slice(&field.tag.to_le_bytes());
        out.extend_from_slice(&(field.kind as u16).to_le_bytes());
        if self.big {
            out.extend_from_slice(&(field.count() as u64).to_le_bytes());
        } else {
            out.extend_from_slice(&low(field.count() as u64).to_le_bytes());
        }
        if field.value.len() <= room {
            let mut value = field.value.clone();
            value.resize(room, 0);
            out.extend_from_slice(&value);
            return true;
        }
        out.extend_from_slice(&(place as u64).to_le_bytes()[..room]);
        false
    }

    fn tile_fields(&self, directory: &Directory, start: u64) -> (Field, Field) {
        let place = |tile: &TilePlace| if tile.length == 0 { 0 } else { start + tile.offset };
        let offsets = directory.tiles.iter().map(place);
        let kind = if self.big { Kind::Long8 } else { Kind::Long };
        let width = self.offset_bytes();
        let value = offsets.flat_map(|offset| offset.to_le_bytes().into_iter().take(width)).collect();
        let lengths: Vec<u32> = directory.tiles.iter().map(|tile| tile.length).collect();
        (Field { tag: TILE_OFFSETS, kind, value }, Field::longs(TILE_BYTE_COUNTS, &lengths))
    }

    fn write_arrays(&self, out: &mut Vec<u8>, directory: &Directory, start: u64) {
        let (offsets, lengths) = self.tile_fields(directory, start);
        for field in [offsets, lengths] {
            if field.value.len() > self.inline_bytes() {
                out.extend_from_slice(&field.value);
                out.resize(out.len() + field.value.len().next_multiple_of(8) - field.value.len(), 0);
            }
        }
    }
}

/// Of a number that was checked to fit (see [`Head::new`]).
fn low(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
