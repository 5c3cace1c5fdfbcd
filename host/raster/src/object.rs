//! Sources and outputs that are no files: objects of a remote store. This process has neither credentials nor a network;
//! whoever supervises it reads and writes for it. GDAL sees the objects in a virtual file system.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Mutex, OnceLock};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::RasterError;
use crate::virtual_file;

/// Path of a source that is an object. No file can have it: the file system knows no such folder.
pub const SOURCE_OBJECT: &str = "/vsigeoworker/source";
/// Path of an output that is an object.
pub const OUTPUT_OBJECT: &str = "/vsigeoworker/output";

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectFacts {
    /// Bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub last_modified: DateTime<Utc>,
}

/// Whoever reads and writes the objects of this process. A failure has the code and the class of the storage's.
pub trait Remote: Send + Sync {
    /// Fills `buffer` from `offset` of the source, or of the sealed output, on; answers how many bytes there were, fewer at
    /// the end only.
    ///
    /// # Errors
    /// Why they cannot be had.
    fn read(&self, output: bool, offset: u64, buffer: &mut [u8]) -> Result<usize, RasterError>;

    /// Takes a block of the output. The answer may come before it is stored.
    ///
    /// # Errors
    /// Why this one, or an earlier one, cannot be stored.
    fn put(&self, number: u32, bytes: &[u8]) -> Result<(), RasterError>;

    /// Makes the output of its blocks in this order. It can be read then, and nobody else sees it.
    ///
    /// # Errors
    /// Why it cannot be made.
    fn seal(&self, order: &[u32]) -> Result<ObjectFacts, RasterError>;
}

static REMOTE: OnceLock<Box<dyn Remote>> = OnceLock::new();
static SOURCE: OnceLock<ObjectFacts> = OnceLock::new();
static OUTPUT: OnceLock<ObjectFacts> = OnceLock::new();
static FAILURE: Mutex<Option<RasterError>> = Mutex::new(None);

/// Bytes that GDAL keeps of objects at most: an operation has up to three of them open.
pub(crate) const CACHED_BYTES: u64 = 3 * virtual_file::CACHE_BYTES as u64;

/// Lets this process read and write objects; `source` is known where the source is one. Once in a process.
///
/// # Errors
/// Where GDAL does not take the virtual file system.
pub fn connect(remote: Box<dyn Remote>, source: Option<ObjectFacts>) -> io::Result<()> {
    let _ = REMOTE.set(remote);
    if let Some(facts) = source {
        let _ = SOURCE.set(facts);
    }
    virtual_file::install()
}

/// Why an object could not be read or written, where that is why something else failed. Taken once.
pub(crate) fn failure() -> Option<RasterError> {
    FAILURE.lock().ok().and_then(|mut failure| failure.take())
}

/// Asks for something. A failure is remembered, since neither GDAL nor [`io::Error`] has words for it.
pub(crate) fn remote<T>(ask: impl FnOnce(&dyn Remote) -> Result<T, RasterError>) -> io::Result<T> {
    let remote = REMOTE.get().ok_or(io::ErrorKind::NotConnected)?;
    ask(&**remote).map_err(|error| {
        let said = io::Error::other(error.to_string());
        if let Ok(mut failure) = FAILURE.lock() {
            failure.get_or_insert(error);
        }
        said
    })
}

/// Makes the output of its blocks; it can be read at [`OUTPUT_OBJECT`] then.
pub(crate) fn seal(order: &[u32]) -> io::Result<u64> {
    let facts = remote(|remote| remote.seal(order))?;
    Ok(OUTPUT.get_or_init(|| facts).size_bytes)
}

/// An object that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Object {
    Source,
    Output,
}

impl Object {
    /// The object at a path.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        let object = match path.to_str()? {
            SOURCE_OBJECT => Self::Source,
            OUTPUT_OBJECT => Self::Output,
            _ => return None,
        };
        object.facts().map(|_| object)
    }

    pub(crate) fn facts(self) -> Option<&'static ObjectFacts> {
        match self {
            Self::Source => SOURCE.get(),
            Self::Output => OUTPUT.get(),
        }
    }

    pub(crate) fn size(self) -> u64 {
        self.facts().map_or(0, |facts| facts.size_bytes)
    }

    pub(crate) fn read_at(self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        remote(|remote| remote.read(self == Self::Output, offset, buffer))
    }
}

/// Size and time of a file or object.
pub(crate) fn facts(path: &Path) -> io::Result<ObjectFacts> {
    if let Some(facts) = Object::at(path).and_then(Object::facts) {
        return Ok(facts.clone());
    }
    let metadata = std::fs::metadata(path)?;
    Ok(ObjectFacts { size_bytes: metadata.len(), last_modified: metadata.modified()?.into() })
}

/// The bytes of a file or object.
pub(crate) enum Bytes {
    File(File),
    /// With the place where the next bytes are read.
    Object(Object, u64),
}

impl Bytes {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match Object::at(path) {
            Some(object) => Ok(Self::Object(object, 0)),
            None => File::open(path).map(Self::File),
        }
    }
}

impl Read for Bytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Object(object, position) => {
                let count = object.read_at(*position, buffer)?;
                *position += count as u64;
                Ok(count)
            }
        }
    }
}

impl Seek for Bytes {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (object, position) = match self {
            Self::File(file) => return file.seek(to),
            Self::Object(object, position) => (object, position),
        };
        let moved = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(by) => position.checked_add_signed(by),
            SeekFrom::End(by) => object.size().checked_add_signed(by),
        };
        *position = moved.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(*position)
    }
}
