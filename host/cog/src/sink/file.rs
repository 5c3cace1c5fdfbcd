//! A file. Its body is written first and moved back once it is known how long the head is: by the file system where it
//! can insert room without copying (ext4, xfs), by copying within the file elsewhere. There is no second copy on the disk.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

use super::Sink;

/// Bytes that are gathered before they are written, and that are copied at a time.
const CHUNK: usize = 4 << 20;

/// A new file.
#[derive(Debug)]
pub struct FileSink {
    file: File,
    gathered: Vec<u8>,
    body: u64,
    /// Where the next bytes of the head go.
    head: u64,
}

impl FileSink {
    /// Creates the file. What is at `path` is lost.
    ///
    /// # Errors
    /// Where it cannot be created.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        Ok(Self { file, gathered: Vec::with_capacity(CHUNK), body: 0, head: 0 })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.write_all(&self.gathered)?;
        self.gathered.clear();
        Ok(())
    }

    /// Inserts whole blocks of the file system; false where it cannot, or its blocks are longer.
    fn insert(&self, head: u64) -> bool {
        fallocate(&self.file, FallocateFlags::INSERT_RANGE, 0, head).is_ok()
    }

    /// Copies the body to `head` bytes further, from its end on, so that nothing is overwritten before it is read.
    fn copy_back(&self, head: u64) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut end = self.body;
        while end > 0 {
            let start = end.saturating_sub(CHUNK as u64);
            let part = &mut buffer[..usize::try_from(end - start).unwrap_or(CHUNK)];
            self.file.read_exact_at(part, start)?;
            self.file.write_all_at(part, start + head)?;
            end = start;
        }
        Ok(())
    }
}

impl Sink for FileSink {
    fn body(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.gathered.len() + bytes.len() > CHUNK {
            self.flush()?;
        }
        self.body += bytes.len() as u64;
        if bytes.len() >= CHUNK {
            return self.file.write_all(bytes);
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    fn make_room(&mut self, head: u64) -> io::Result<()> {
        self.flush()?;
        // Nothing can be inserted into an empty file.
        if self.body > 0 && !self.insert(head) {
            self.copy_back(head)?;
        }
        self.file.seek(SeekFrom::Start(0))?;
        Ok(())
    }

    fn head(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.head += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn finish(&mut self) -> io::Result<u64> {
        // A file without a body ends where its head does.
        let length = self.file.metadata()?.len().max(self.head);
        self.file.set_len(length)?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::ALIGNMENT;

    fn written(path: &Path, bodies: &[Vec<u8>], head: &[u8]) -> Vec<u8> {
        let mut sink = FileSink::create(path).expect("creates");
        for body in bodies {
            sink.body(body).expect("writes");
        }
        sink.make_room(head.len() as u64).expect("makes room");
        sink.head(head).expect("writes");
        let length = sink.finish().expect("finishes");
        let bytes = std::fs::read(path).expect("reads");
        assert_eq!(bytes.len() as u64, length);
        bytes
    }

    /// One file system that can insert and one that cannot, where this machine has them; and a head that none can insert.
    #[test]
    fn the_body_ends_up_behind_the_head() {
        let bodies: Vec<Vec<u8>> = [10, CHUNK + 3, 5000, 1]
            .into_iter()
            .map(|length| (0..length).map(|n| (n % 251) as u8).collect())
            .collect();
        for length in [3 * usize::try_from(ALIGNMENT).expect("fits"), 9000] {
            let head: Vec<u8> = (0..length).map(|n| (n % 13) as u8).collect();
            for folder in [std::env::temp_dir(), "/dev/shm".into()] {
                let Ok(folder) = tempfile::tempdir_in(&folder) else { continue };
                let bytes = written(&folder.path().join("x"), &bodies, &head);
                assert_eq!(bytes[..length], head);
                assert_eq!(bytes[length..], bodies.concat());
            }
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut sink = FileSink::create(Path::new("/dev/full")).expect("opens");
        let error = sink.body(&vec![0; CHUNK + 1]).expect_err("there is no room");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_file_without_a_body_is_its_head() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(written(&folder.path().join("x"), &[], b"head"), b"head".to_vec());
    }
}
