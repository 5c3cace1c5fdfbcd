//! The structure of a TIFF or BigTIFF: directories and where their tiles are. Reads headers only, and only what
//! is within the file: a crafted one costs bounded time and memory.

use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use crate::object::{self, Bytes};

/// Directories that are looked at; a COG has one per overview and mask.
const MAX_DIRECTORIES: usize = 128;
/// Tiles of one directory that are looked at: a 40-million-tile file is 3 million pixels wide.
const MAX_TILES: u64 = 40_000_000;

/// A file's structure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiff {
    /// 64-bit offsets.
    pub big: bool,
    /// Bytes of the whole file.
    pub length: u64,
    /// The text between header and first directory where GDAL declares the layout.
    pub ghost: Option<String>,
    /// Where the header and the ghost area end.
    pub header_end: u64,
    /// Directories in the order of the chain.
    pub directories: Vec<Directory>,
}

/// One image: full resolution, overview or mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// Where it stands.
    pub offset: u64,
    /// Columns.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// Tile edges; none for a striped image.
    pub tile: Option<(u64, u64)>,
    /// Bit 0: reduced resolution, bit 2: mask.
    pub subfile_type: u64,
    /// Offsets of tiles or strips; 0 is an empty one.
    pub data_offsets: Vec<u64>,
    /// Their lengths in bytes.
    pub data_lengths: Vec<u64>,
}

impl Directory {
    /// It is an overview.
    #[must_use]
    pub fn is_reduced(&self) -> bool {
        self.subfile_type & 1 != 0
    }

    /// It is a mask.
    #[must_use]
    pub fn is_mask(&self) -> bool {
        self.subfile_type & 4 != 0
    }
}

const NEW_SUBFILE_TYPE: u16 = 254;
const WIDTH: u16 = 256;
const HEIGHT: u16 = 257;
const STRIP_OFFSETS: u16 = 273;
const STRIP_LENGTHS: u16 = 279;
const TILE_WIDTH: u16 = 322;
const TILE_HEIGHT: u16 = 323;
const TILE_OFFSETS: u16 = 324;
const TILE_LENGTHS: u16 = 325;

impl Tiff {
    /// Reads the structure.
    ///
    /// # Errors
    /// `InvalidData` where it is no TIFF or points outside of itself.
    pub fn read(path: &Path) -> io::Result<Self> {
        let length = object::facts(path)?.size_bytes;
        Self::parse(BufReader::new(Bytes::open(path)?), length)
    }

    /// Reads the structure of a TIFF of `length` bytes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse<R: Read + Seek>(reader: R, length: u64) -> io::Result<Self> {
        let mut parser = Parser { reader, length, little: true, big: false };
        let first = parser.header()?;
        let header_end = if parser.big { 16 } else { 8 };
        let (ghost, header_end) = parser.ghost(header_end)?;
        let mut directories: Vec<Directory> = Vec::new();
        let mut next = first;
        while next != 0 {
            if directories.len() == MAX_DIRECTORIES || directories.iter().any(|seen| seen.offset == next) {
                return Err(bad("the chain of directories does not end"));
            }
            let (directory, following) = parser.directory(next)?;
            directories.push(directory);
            next = following;
        }
        Ok(Self { big: parser.big, length, ghost, header_end, directories })
    }
}

fn bad(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

struct Parser<R> {
    reader: R,
    length: u64,
    little: bool,
    big: bool,
}

impl<R: Read + Seek> Parser<R> {
    fn bytes(&mut self, offset: u64, count: u64) -> io::Result<Vec<u8>> {
        let within = offset.checked_add(count).is_some_and(|end| end <= self.length);
        if !within {
            return Err(bad("an offset points outside of the file"));
        }
        self.reader.seek(SeekFrom::Start(offset))?;
        let mut buffer = vec![0; usize::try_from(count).map_err(|_| bad("too large"))?];
        self.reader.read_exact(&mut buffer)?;
        Ok(buffer)
    }

    fn number(&self, bytes: &[u8]) -> u64 {
        let append = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        if self.little { bytes.iter().rev().fold(0, append) } else { bytes.iter().fold(0, append) }
    }

    fn header(&mut self) -> io::Result<u64> {
        let head = self.bytes(0, 8)?;
        self.little = match &head[..2] {
            b"II" => true,
            b"MM" => false,
            _ => return Err(bad("not a TIFF")),
        };
        match self.number(&head[2..4]) {
            42 => Ok(self.number(&head[4..8])),
            43 => {
                self.big = true;
                let rest = self.bytes(8, 8)?;
                Ok(self.number(&rest))
            }
            _ => Err(bad("not a TIFF")),
        }
    }

    fn ghost(&mut self, at: u64) -> io::Result<(Option<String>, u64)> {
        const START: &str = "GDAL_STRUCTURAL_METADATA_SIZE=";
        const START_LENGTH: u64 = 43;
        let Ok(start) = self.bytes(at, START_LENGTH) else { return Ok((None, at)) };
        let Ok(text) = std::str::from_utf8(&start) else { return Ok((None, at)) };
        let Some(size) =
            text.strip_prefix(START).and_then(|rest| rest.get(..6)).and_then(|n| n.parse::<u64>().ok())
        else {
            return Ok((None, at));
        };
        let body = self.bytes(at + START_LENGTH, size)?;
        Ok((Some(String::from_utf8_lossy(&body).into_owned()), at + START_LENGTH + size))
    }

    fn directory(&mut self, offset: u64) -> io::Result<(Directory, u64)> {
        let (count_size, entry_size, next_size) = if self.big { (8, 20, 8) } else { (2, 12, 4) };
        let head = self.bytes(offset, count_size)?;
        let count = self.number(&head);
        if count > 4096 {
            return Err(bad("a directory has too many entries"));
        }
        let entries = self.bytes(offset + count_size, count * entry_size)?;
        let next = self.bytes(offset + count_size + count * entry_size, next_size)?;
        let mut directory = Directory {
            offset,
            width: 0,
            height: 0,
            tile: None,
            subfile_type: 0,
            data_offsets: Vec::new(),
            data_lengths: Vec::new(),
        };
        let (mut tile_width, mut tile_height) = (0, 0);
        for entry in entries.chunks_exact(usize::try_from(entry_size).unwrap_or(12)) {
            let tag = self.number(&entry[..2]) as u16;
            let first = |values: Vec<u64>| values.first().copied().unwrap_or(0);
            match tag {
                NEW_SUBFILE_TYPE => directory.subfile_type = first(self.values(entry)?),
                WIDTH => directory.width = first(self.values(entry)?),
                HEIGHT => directory.height = first(self.values(entry)?),
                TILE_WIDTH => tile_width = first(self.values(entry)?),
                TILE_HEIGHT => tile_height = first(self.values(entry)?),
                TILE_OFFSETS | STRIP_OFFSETS => directory.data_offsets = self.values(entry)?,
                TILE_LENGTHS | STRIP_LENGTHS => directory.data_lengths = self.values(entry)?,
                _ => {}
            }
        }
        directory.tile = (tile_width > 0 && tile_height > 0).then_some((tile_width, tile_height));
        Ok((directory, self.number(&next)))
    }

    fn values(&mut self, entry: &[u8]) -> io::Result<Vec<u64>> {
        let size: u64 = match self.number(&entry[2..4]) {
            1 | 2 | 6 | 7 => 1,
            3 | 8 => 2,
            4 | 9 | 13 => 4,
            16..=18 => 8,
            _ => return Err(bad("a directory entry has an unexpected type")),
        };
        let inline = if self.big { 8 } else { 4 };
        let count = self.number(&entry[4..4 + inline]);
        let place = &entry[4 + inline..];
        if count > MAX_TILES {
            return Err(bad("a directory entry has too many values"));
        }
        let bytes = if count * size <= inline as u64 {
            place[..usize::try_from(count * size).unwrap_or(0)].to_vec()
        } else {
            let offset = self.number(place);
            self.bytes(offset, count * size)?
        };
        Ok(bytes.chunks_exact(size as usize).map(|value| self.number(value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn crafted_files_end_in_an_error() {
        let endless = b"II*\0\x08\0\0\0\0\0\x08\0\0\0".to_vec();
        let outside = b"II*\0\xff\xff\xff\x7f".to_vec();
        let mut many = b"II*\0\x08\0\0\0\x01\0\x44\x01\x04\0\xff\xff\xff\xff\x08\0\0\0".to_vec();
        many.extend([0; 4]);
        for file in [endless, outside, many, b"II".to_vec(), b"PK\x03\x04\0\0\0\0".to_vec()] {
            let length = file.len() as u64;
            assert!(Tiff::parse(Cursor::new(file), length).is_err());
        }
    }
}
