//! A source that is no file: an object of a remote store. This process has neither credentials nor a network; whoever
//! supervises it reads for it, in ranges. GDAL sees the object under [`OBJECT_PATH`].

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::RasterError;
use crate::virtual_file;

/// The path of the one object of a process. No file can have it: the file system knows no such folder.
pub const OBJECT_PATH: &str = "/vsigeoworker/source";

/// What is known of an object before it is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectFacts {
    /// Bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub last_modified: DateTime<Utc>,
}

/// Reads ranges of an object.
pub trait ReadAt: Send + Sync {
    /// Fills `buffer` from `offset` on; answers how many bytes there were, fewer at the end only.
    ///
    /// # Errors
    /// Why they cannot be had: with the code and the class of the storage's failure.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, RasterError>;
}

/// Bytes that GDAL keeps of an object at most: an operation opens it up to three times.
pub(crate) const CACHED_BYTES: u64 = 3 * virtual_file::CACHE_BYTES as u64;

struct Object {
    facts: ObjectFacts,
    reader: Box<dyn ReadAt>,
}

static OBJECT: OnceLock<Object> = OnceLock::new();
static FAILURE: Mutex<Option<RasterError>> = Mutex::new(None);

/// Makes an object readable at [`OBJECT_PATH`], for GDAL and for this crate. Once in a process.
///
/// # Errors
/// Where GDAL does not take the virtual file system.
pub fn serve_object(facts: ObjectFacts, reader: Box<dyn ReadAt>) -> io::Result<()> {
    let _ = OBJECT.set(Object { facts, reader });
    virtual_file::install()
}

/// Why the object could not be read, where that is why GDAL failed. Taken once.
pub(crate) fn failure() -> Option<RasterError> {
    FAILURE.lock().ok().and_then(|mut failure| failure.take())
}

/// Reads the object. A failure is remembered, since GDAL has no words for it.
pub(crate) fn read_at(offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let object = OBJECT.get().ok_or(io::ErrorKind::NotFound)?;
    object.reader.read_at(offset, buffer).map_err(|error| {
        let said = io::Error::other(error.to_string());
        if let Ok(mut failure) = FAILURE.lock() {
            failure.get_or_insert(error);
        }
        said
    })
}

/// Bytes of the object, where there is one.
pub(crate) fn size() -> Option<u64> {
    OBJECT.get().map(|object| object.facts.size_bytes)
}

/// Whether a path is the object's.
pub(crate) fn is_object(path: &Path) -> bool {
    OBJECT.get().is_some() && path == Path::new(OBJECT_PATH)
}

/// Size and time of a source, file or object.
pub(crate) fn facts(path: &Path) -> io::Result<ObjectFacts> {
    if is_object(path) {
        return OBJECT.get().map(|object| object.facts.clone()).ok_or(io::ErrorKind::NotFound.into());
    }
    let metadata = std::fs::metadata(path)?;
    Ok(ObjectFacts { size_bytes: metadata.len(), last_modified: metadata.modified()?.into() })
}

/// The bytes of a source, file or object.
pub(crate) enum Bytes {
    File(File),
    /// Where the next bytes are read.
    Object(u64),
}

impl Bytes {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if is_object(path) { Ok(Self::Object(0)) } else { File::open(path).map(Self::File) }
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Object(position) => {
                let count = read_at(*position, buffer)?;
                *position += count as u64;
                Ok(count)
            }
        }
    }
}

impl Seek for Bytes {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match self {
            Self::File(file) => return file.seek(to),
            Self::Object(position) => position,
        };
        let moved = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => position.checked_add_signed(by),
            SeekFrom::End(by) => size().unwrap_or(0).checked_add_signed(by),
        };
        *position = moved.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(*position)
    }
}
