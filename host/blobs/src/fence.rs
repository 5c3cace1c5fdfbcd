//! Fences: a worker that lost its lease while it was asleep must not publish over what its successor published.
//!
//! In folders, each target has a small file that names the last attempt that published there. It is locked while a publication
//! compares and renames, so that of two attempts the later one always wins, in whatever order they arrive: of one task by
//! their epochs, of two tasks (a new run of a job takes the place of one that was given up) by when they were claimed.
//! In Azure the blob itself says who published it (`azure/commit.rs`).

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use sha2::{Digest, Sha256};

use crate::error::BlobError;
use crate::name::BlobRef;
use crate::owned::try_lock;

/// Longest wait for another publication of the same blob: it only renames.
const WAIT: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(5);
/// Fences older than this are removed: no attempt sleeps that long.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);

/// Which attempt publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The task.
    pub owner: String,
    /// Epoch of its lease: a later attempt has a larger one.
    pub epoch: i64,
    /// When the attempt was claimed, in milliseconds of the database's clock.
    pub claimed_at: i64,
}

impl Fence {
    /// Whether a later attempt was here, by who was here last.
    pub(crate) fn is_behind(&self, last: &Self) -> bool {
        if last.owner == self.owner { last.epoch > self.epoch } else { last.claimed_at > self.claimed_at }
    }

    /// What a fence file says: owner, epoch, time. From the end: nothing is known of owners.
    fn parse(text: &str) -> Self {
        let mut parts = text.rsplitn(3, ' ');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(i64::MIN);
        let (claimed_at, epoch) = (number(), number());
        Self { owner: parts.next().unwrap_or_default().to_owned(), epoch, claimed_at }
    }
}

/// Held while a publication is made visible.
#[derive(Debug)]
pub(crate) struct Entered {
    _file: File,
}

/// Takes the fence of a target; `folder` holds the zone's fences.
///
/// # Errors
/// [`BlobError::Fenced`] where a later attempt was here, [`BlobError::Busy`] where somebody holds the fence for too long.
pub(crate) fn enter(folder: &Path, target: &BlobRef, fence: &Fence) -> Result<Entered, BlobError> {
    std::fs::create_dir_all(folder)?;
    let mut file = wait_for(&folder.join(file_name(target)))?;
    let mut last = String::new();
    file.read_to_string(&mut last)?;
    if fence.is_behind(&Fence::parse(&last)) {
        return Err(BlobError::Fenced);
    }
    file.rewind()?;
    file.set_len(0)?;
    write!(file, "{} {} {}", fence.owner, fence.epoch, fence.claimed_at)?;
    Ok(Entered { _file: file })
}

/// Who published a target last, where that is known.
pub(crate) fn last(folder: &Path, target: &BlobRef) -> Option<Fence> {
    std::fs::read_to_string(folder.join(file_name(target))).ok().map(|text| Fence::parse(&text))
}

fn file_name(target: &BlobRef) -> String {
    Sha256::digest(target.path()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[expect(clippy::disallowed_methods, reason = "publishing blocks anyway: it runs on a thread for that")]
fn wait_for(path: &Path) -> Result<File, BlobError> {
    let end = Instant::now() + WAIT;
    loop {
        if let Some(file) = try_lock(path)? {
            return Ok(file);
        }
        if Instant::now() >= end {
            return Err(BlobError::Busy);
        }
        std::thread::sleep(LOOK);
    }
}

/// Removes fences that nobody needs any more.
pub(crate) fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        if age.is_some_and(|age| age > KEEP)
            && let Ok(Some(_held)) = try_lock(&entry.path())
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
