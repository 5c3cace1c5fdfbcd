//! Compressed overviews, which are made while the full resolution is written and stand before it: in memory, and in a
//! file of the scratch folder beyond a budget.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;

/// A part of a level's data that went to the file.
#[derive(Debug, Clone, Copy)]
struct Spilled {
    offset: u64,
    length: u64,
}

/// Data of one level: what was spilled, then what is in memory.
#[derive(Debug, Default)]
struct Level {
    spilled: Vec<Spilled>,
    memory: Vec<u8>,
    length: u64,
}

/// Data of all overviews.
#[derive(Debug)]
pub(crate) struct Spool {
    levels: Vec<Level>,
    budget: usize,
    in_memory: usize,
    scratch: PathBuf,
    file: Option<File>,
}

impl Spool {
    /// Keeps at most `budget` bytes in memory. `scratch` is a folder.
    pub(crate) fn new(levels: usize, budget: usize, scratch: PathBuf) -> Self {
        let levels = std::iter::repeat_with(Level::default).take(levels).collect();
        Self { levels, budget, in_memory: 0, scratch, file: None }
    }

    /// Bytes of a level.
    pub(crate) fn length(&self, level: usize) -> u64 {
        self.levels.get(level).map_or(0, |level| level.length)
    }

    /// Appends to a level.
    pub(crate) fn append(&mut self, level: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(level) = self.levels.get_mut(level) else { return Ok(()) };
        level.memory.extend_from_slice(bytes);
        level.length += bytes.len() as u64;
        self.in_memory += bytes.len();
        if self.in_memory > self.budget { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.scratch)?),
        };
        for level in self.levels.iter_mut().filter(|level| !level.memory.is_empty()) {
            let offset = file.seek(SeekFrom::End(0))?;
            file.write_all(&level.memory)?;
            level.spilled.push(Spilled { offset, length: level.memory.len() as u64 });
            level.memory = Vec::new();
        }
        self.in_memory = 0;
        Ok(())
    }

    /// Gives out a level's data in order.
    pub(crate) fn drain(&self, level: usize, out: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let Some(level) = self.levels.get(level) else { return Ok(()) };
        if let Some(file) = &self.file {
            let mut buffer = vec![0; CHUNK];
            for part in &level.spilled {
                copy(file, *part, &mut buffer, out)?;
            }
        }
        out(&level.memory)
    }
}

fn copy(
    file: &File,
    part: Spilled,
    buffer: &mut [u8],
    out: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut done = 0;
    while done < part.length {
        let count = usize::try_from(part.length - done).unwrap_or(CHUNK).min(buffer.len());
        file.read_exact_at(&mut buffer[..count], part.offset + done)?;
        out(&buffer[..count])?;
        done += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_back_in_order_spilled_or_not() {
        for budget in [0, 100, usize::MAX] {
            let mut spool = Spool::new(3, budget, std::env::temp_dir());
            let mut expected = vec![Vec::new(); 3];
            for n in 0..200_usize {
                let bytes = vec![(n % 256) as u8; n % 7];
                spool.append(n % 3, &bytes).expect("appends");
                expected[n % 3].extend(bytes);
            }
            for (level, expected) in expected.iter().enumerate() {
                let mut found = Vec::new();
                spool
                    .drain(level, &mut |bytes| {
                        found.extend_from_slice(bytes);
                        Ok(())
                    })
                    .expect("drains");
                assert_eq!(&found, expected);
                assert_eq!(spool.length(level), expected.len() as u64);
            }
        }
    }
}
