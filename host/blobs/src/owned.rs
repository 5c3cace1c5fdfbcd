//! Folders whose owner may die: the kernel drops the owner's lock with the process, so that whoever finds the folder
//! unlocked may remove it. Process numbers would not do: containers that share a disk do not share them.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Ending of the lock file beside each folder.
const LOCK: &str = "lock";

/// A folder that is removed with its owner: by [`Drop`], or by the next [`OwnedFolder::sweep`] where the owner was killed.
#[derive(Debug)]
pub struct OwnedFolder {
    path: PathBuf,
    _lock: File,
}

impl OwnedFolder {
    /// Creates a folder of its own below `root`.
    ///
    /// # Errors
    /// When it cannot be created or locked.
    pub fn create(root: &Path) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{:x}-{count}", std::process::id(), since.as_nanos());
        std::fs::create_dir_all(root)?;
        let lock = try_lock(&lock_path(root, &name))?.ok_or(io::ErrorKind::AlreadyExists)?;
        let path = root.join(name);
        std::fs::create_dir(&path)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what dead owners left below `root`; answers how many folders.
    ///
    /// # Errors
    /// When `root` cannot be created or listed. What cannot be removed is found again next time.
    pub fn sweep(root: &Path) -> io::Result<u64> {
        std::fs::create_dir_all(root)?;
        let mut removed = 0;
        for entry in std::fs::read_dir(root)?.flatten() {
            let path = entry.path();
            let is_lock = path.extension().is_some_and(|extension| extension == LOCK);
            if is_lock && let Ok(Some(_lock)) = try_lock(&path) {
                removed += u64::from(std::fs::remove_dir_all(path.with_extension("")).is_ok());
                let _ = std::fs::remove_file(&path);
            } else if !is_lock && !path.with_extension(LOCK).exists() {
                // Of an earlier version, or its lock was removed by hand.
                removed += u64::from(std::fs::remove_dir_all(&path).is_ok());
            }
        }
        Ok(removed)
    }
}

impl Drop for OwnedFolder {
    fn drop(&mut self) {
        // What cannot be removed now is swept later.
        let _ = std::fs::remove_dir_all(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension(LOCK));
    }
}

fn lock_path(root: &Path, name: &str) -> PathBuf {
    root.join(name).with_extension(LOCK)
}

/// Opens a file and locks it; none where somebody else holds it. A file that was removed between opening and locking is
/// opened again: its lock would exclude nobody.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let same = std::fs::metadata(path).is_ok_and(|there| {
            file.metadata().is_ok_and(|here| (there.ino(), there.dev()) == (here.ino(), here.dev()))
        });
        if same {
            return Ok(Some(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_owners_are_swept() {
        let root = tempfile::tempdir().expect("a folder");
        let alive = OwnedFolder::create(root.path()).expect("creates");
        std::fs::write(alive.path().join("file"), "x").expect("writes");
        let dead = OwnedFolder::create(root.path()).expect("creates");
        let left = dead.path().to_owned();
        std::fs::write(left.join("file"), "x").expect("writes");
        // As if the process had been killed: the lock goes and the folder stays.
        let lock = dead._lock.try_clone().expect("clones");
        std::mem::forget(dead);
        lock.unlock().expect("unlocks");
        std::fs::create_dir(root.path().join("stray")).expect("creates");
        assert_eq!(OwnedFolder::sweep(root.path()).expect("sweeps"), 2);
        assert!(!left.exists() && alive.path().join("file").exists());
        drop(alive);
        assert_eq!(std::fs::read_dir(root.path()).expect("lists").count(), 0, "nothing is left behind");
    }
}
