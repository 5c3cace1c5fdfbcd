//! Where an operation writes: a file, or an object that goes to its supervisor in blocks.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use geoworker_cog::sink::{FileSink, Sink};

use crate::environment::scratch;
use crate::error::RasterError;
use crate::object::{OUTPUT_OBJECT, remote, seal};

/// Bytes of a block. Azure takes 50 000 of them: 400 GB.
const BLOCK: usize = 8 << 20;
/// Name of a file in scratch that becomes an object.
const FILE: &str = "output";

/// Where the output of an operation goes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Output<'a> {
    File(&'a Path),
    Object,
}

impl<'a> Output<'a> {
    pub(crate) fn at(path: &'a Path) -> Self {
        if path == Path::new(OUTPUT_OBJECT) { Self::Object } else { Self::File(path) }
    }

    /// A sink for the single-pass encoder.
    pub(crate) fn sink(self) -> io::Result<Box<dyn Sink>> {
        Ok(match self {
            Self::File(path) => Box::new(FileSink::create(path)?),
            Self::Object => Box::new(ObjectSink::default()),
        })
    }

    /// Has a whole file written: at its place, or in scratch, from where it is uploaded.
    pub(crate) fn write(
        self,
        write: impl FnOnce(&Path) -> Result<(), RasterError>,
    ) -> Result<(), RasterError> {
        match self {
            Self::File(path) => write(path),
            Self::Object => {
                let file = scratch().join(FILE);
                write(&file)?;
                upload(&file)?;
                Ok(std::fs::remove_file(file)?)
            }
        }
    }

    /// Where it stands while it is written.
    pub(crate) fn place(self) -> PathBuf {
        match self {
            Self::File(path) => path.to_owned(),
            Self::Object => scratch().join(FILE),
        }
    }
}

/// Uploads a file as it is.
fn upload(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut blocks = Blocks::default();
    let mut buffer = vec![0; BLOCK];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            blocks.flush()?;
            return seal(&blocks.numbers);
        }
        blocks.push(&buffer[..count])?;
    }
}

/// Bytes that are gathered into blocks.
#[derive(Debug, Default)]
struct Blocks {
    gathered: Vec<u8>,
    numbers: Vec<u32>,
    /// Number of the first block.
    first: u32,
}

/// Blocks of the head are numbered from here: which of them there are is not known before.
const HEAD: u32 = 1 << 31;

impl Blocks {
    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (part, rest) = bytes.split_at(bytes.len().min(BLOCK - self.gathered.len()));
            self.gathered.extend_from_slice(part);
            bytes = rest;
            if self.gathered.len() == BLOCK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let number = self.first + u32::try_from(self.numbers.len()).map_err(io::Error::other)?;
        remote(|remote| remote.put(number, &self.gathered))?;
        self.numbers.push(number);
        self.gathered.clear();
        Ok(())
    }
}

/// A COG that is uploaded while it is made: the full resolution goes first and is put behind the head in the end, by the
/// order of the blocks.
#[derive(Debug, Default)]
struct ObjectSink {
    body: Blocks,
    head: Blocks,
}

impl Sink for ObjectSink {
    fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.body.push(bytes)
    }

    fn make_room(&mut self, _: u64) -> io::Result<()> {
        self.body.flush()?;
        self.body.gathered = Vec::new();
        self.head.first = HEAD;
        Ok(())
    }

    fn head(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.head.push(bytes)
    }

    fn finish(&mut self) -> io::Result<u64> {
        self.head.flush()?;
        seal(&[&self.head.numbers[..], &self.body.numbers].concat())
    }
}
