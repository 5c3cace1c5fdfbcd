//! Watches what a native process uses: memory about ten times a second, and the disk that its files fill.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::cgroup::kib;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// Free space that operations leave to everybody else, in bytes; a sixteenth of a file system below 1 GiB.
pub(crate) const RESERVE: u64 = 64 << 20;
const RESERVE_SHARE: u64 = 16;
/// Folders below scratch that are looked into.
const DEPTH: u32 = 8;
/// Bytes of one block of `st_blocks`.
const BLOCK: u64 = 512;

/// A limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    /// Resident memory is above its limit.
    Memory,
    /// Output and scratch are above their budget.
    Disk,
    /// The file system is nearly full, whoever filled it. Free bytes.
    NearlyFull(u64),
}

/// What a process used so far, for its error message and for admission. Clones share the figures.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    memory_peak: Arc<AtomicU64>,
    disk: Arc<AtomicU64>,
}

impl Usage {
    /// Highest memory that was seen, in bytes; 0 where the process ended before the first look.
    pub(crate) fn memory_peak(&self) -> u64 {
        self.memory_peak.load(Ordering::Relaxed)
    }

    /// Disk that its files fill now, in bytes.
    pub(crate) fn disk(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }

    /// Notes what its files fill, in bytes.
    pub(crate) fn note_disk(&self, bytes: u64) {
        self.disk.store(bytes, Ordering::Relaxed);
    }
}

/// What is watched, and the limits; 0 is none.
#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub(crate) pid: u32,
    pub(crate) memory_limit: u64,
    pub(crate) scratch: PathBuf,
    /// Folder of the output: every file in it counts.
    pub(crate) target: Option<PathBuf>,
    /// Shared with whoever learns it later.
    pub(crate) disk_limit: Arc<AtomicU64>,
    pub(crate) usage: Usage,
}

impl Watch {
    /// Looks until a limit is exceeded. Never ends where none is.
    pub(crate) async fn breach(self) -> Breach {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let watch = self.clone();
            // Folders may be on a slow disk.
            let looked = tokio::task::spawn_blocking(move || watch.look()).await;
            if let Ok(Some(breach)) = looked {
                return breach;
            }
        }
    }

    fn look(&self) -> Option<Breach> {
        let memory = self.memory();
        let disk = self.disk();
        self.usage.note_disk(disk);
        if self.memory_limit > 0 && memory > self.memory_limit {
            return Some(Breach::Memory);
        }
        let disk_limit = self.disk_limit.load(Ordering::Relaxed);
        if disk_limit > 0 && disk > disk_limit {
            return Some(Breach::Disk);
        }
        // One that writes nothing cannot fill the disk, and is not to blame for it.
        let folder = self.target.as_ref()?;
        let space = Space::of(folder).ok()?;
        (space.free < space.reserve).then_some(Breach::NearlyFull(space.free))
    }

    /// Resident memory without the pages of files, which the kernel takes back when it needs them.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let files = kib(&status, "RssFile:").unwrap_or(0);
        let own = |field| kib(&status, field).unwrap_or(0).saturating_sub(files);
        let now = own("VmRSS:");
        self.usage.memory_peak.fetch_max(now.max(own("VmHWM:")), Ordering::Relaxed);
        now
    }

    fn disk(&self) -> u64 {
        let target = self.target.as_deref().map_or(0, |folder| allocated(folder, 0));
        target.saturating_add(allocated(&self.scratch, DEPTH))
    }
}

/// Bytes that the files in a folder occupy, and those in folders below it down to `depth`. Sparse files count with
/// what they have. What disappears meanwhile counts nothing.
fn allocated(folder: &Path, depth: u32) -> u64 {
    let mut sum = 0_u64;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_file() {
            sum = sum.saturating_add(metadata.blocks().saturating_mul(BLOCK));
        } else if metadata.is_dir() && depth > 0 {
            sum = sum.saturating_add(allocated(&entry.path(), depth - 1));
        }
    }
    sum
}

/// Space of the file system that holds a folder, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Which file system.
    pub(crate) device: u64,
    /// What an ordinary user may still write.
    pub(crate) free: u64,
    /// What operations leave free.
    pub(crate) reserve: u64,
}

impl Space {
    /// What operations may write, in bytes.
    pub(crate) fn usable(&self) -> u64 {
        self.free.saturating_sub(self.reserve)
    }

    /// Asks the file system.
    ///
    /// # Errors
    /// Where the folder is not there or cannot be asked.
    pub(crate) fn of(folder: &Path) -> std::io::Result<Self> {
        let device = std::fs::metadata(folder)?.dev();
        let found = rustix::fs::statvfs(folder)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        let reserve = RESERVE.min(bytes(found.f_blocks) / RESERVE_SHARE);
        Ok(Self { device, free: bytes(found.f_bavail), reserve })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_summed_and_sparse_ones_count_what_they_have() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("below")).expect("creates");
        std::fs::write(folder.path().join("one"), vec![1; 1 << 20]).expect("writes");
        std::fs::write(folder.path().join("below/two"), vec![1; 1 << 20]).expect("writes");
        let sparse = std::fs::File::create(folder.path().join("sparse")).expect("creates");
        sparse.set_len(1 << 30).expect("grows");
        let flat = allocated(folder.path(), 0);
        assert!((1 << 20..2 << 20).contains(&flat), "{flat}");
        assert!((2 << 20..3 << 20).contains(&allocated(folder.path(), 1)));
        assert_eq!(allocated(Path::new("/nowhere"), 1), 0);
    }

    #[test]
    fn space_is_that_of_the_folders_file_system() {
        let folder = tempfile::tempdir().expect("a folder");
        let space = Space::of(folder.path()).expect("asks");
        assert!(space.reserve <= RESERVE && space.reserve > 0);
        assert!(Space::of(Path::new("/nowhere")).is_err());
    }
}
