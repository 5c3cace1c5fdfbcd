//! Zones as folders.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::BlobError;
use crate::fence::{self, Fence};
use crate::name::{BlobRef, check_container};
use crate::owned::OwnedFolder;
use crate::staged::Staged;
use crate::zones::{BlobFacts, Output, Source, Zones};

/// Folder within a zone for what is not visible yet. No blob name can begin with a dot.
const STAGING: &str = ".staging";
/// Folder within a zone for its fences.
const FENCES: &str = ".fences";

/// Bytes that are copied at a time.
const CHUNK: usize = 1 << 20;

/// All zones of a process. Every access goes through an opened folder and cannot leave it, by `..` or symlink. Clones
/// share the folders.
#[derive(Debug, Clone)]
pub struct FolderZones {
    zones: Arc<BTreeMap<String, Zone>>,
}

#[derive(Debug)]
struct Zone {
    root: PathBuf,
    dir: Dir,
    /// Staging folder of this process, once it stages something.
    staging: OnceLock<OwnedFolder>,
}

impl Zone {
    /// Name of this process's staging folder, below [`STAGING`].
    fn staging(&self) -> Result<String, BlobError> {
        if self.staging.get().is_none() {
            // Of two that come first, one keeps its folder and the other removes it again.
            let _ = self.staging.set(OwnedFolder::create(&self.root.join(STAGING))?);
        }
        let name = self.staging.get().and_then(|folder| folder.path().file_name());
        Ok(name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
    }
}

impl FolderZones {
    /// Opens the zones, creating folders that are missing.
    ///
    /// # Errors
    /// When a folder cannot be created or opened.
    pub fn open(roots: &BTreeMap<String, PathBuf>) -> Result<Self, BlobError> {
        let mut zones = BTreeMap::new();
        for (name, root) in roots {
            std::fs::create_dir_all(root)?;
            let dir = Dir::open_ambient_dir(root, ambient_authority())?;
            dir.create_dir_all(STAGING)?;
            let zone = Zone { root: root.canonicalize()?, dir, staging: OnceLock::new() };
            zones.insert(name.clone(), zone);
        }
        Ok(Self { zones: Arc::new(zones) })
    }

    /// Facts of a blob.
    ///
    /// # Errors
    /// When the name is not valid or there is no such blob.
    pub fn stat(&self, blob: &BlobRef) -> Result<BlobFacts, BlobError> {
        let dir = self.checked(blob)?;
        let metadata = dir.metadata(blob.path()).map_err(|error| missing(error, blob))?;
        if !metadata.is_file() {
            return Err(BlobError::NotFound(blob.to_string()));
        }
        facts(blob.clone(), &metadata)
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// When the name is not valid or there is no such blob.
    pub fn read(&self, blob: &BlobRef) -> Result<File, BlobError> {
        self.stat(blob)?;
        let file = self.checked(blob)?.open(blob.path()).map_err(|error| missing(error, blob))?;
        Ok(file.into_std())
    }

    /// Path of a blob for a native process. It is resolved, so that a symlink out of the zone is refused.
    ///
    /// # Errors
    /// When the name is not valid, or there is no such blob in the zone.
    pub fn native_path(&self, blob: &BlobRef) -> Result<PathBuf, BlobError> {
        let relative = self.checked(blob)?.canonicalize(blob.path()).map_err(|error| missing(error, blob))?;
        Ok(self.zone(&blob.zone)?.root.join(relative))
    }

    /// Blobs whose names begin with `prefix`, by name.
    ///
    /// # Errors
    /// When the zone or container name is not valid.
    pub fn list(
        &self,
        zone: &str,
        container: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<BlobFacts>, BlobError> {
        check_container(container)?;
        let dir = &self.zone(zone)?.dir;
        let mut names = Vec::new();
        match dir.open_dir(container) {
            Ok(folder) => walk(&folder, "", &mut names)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        names.retain(|name| name.starts_with(prefix));
        names.sort_unstable();
        names.truncate(limit);
        names.into_iter().map(|name| self.stat(&BlobRef::new(zone, container, name))).collect()
    }

    /// Containers of a zone, by name.
    ///
    /// # Errors
    /// When there is no such zone.
    pub fn containers(&self, zone: &str) -> Result<Vec<String>, BlobError> {
        let dir = &self.zone(zone)?.dir;
        let mut names = Vec::new();
        for entry in dir.entries()? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type()?.is_dir() && check_container(&name).is_ok() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Prepares a file that will become `target`, on its disk.
    ///
    /// # Errors
    /// When the name is not valid, or the staging folder cannot be created.
    pub fn stage(&self, target: &BlobRef) -> Result<Staged, BlobError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let dir = self.checked(target)?;
        let zone = self.zone(&target.zone)?;
        let name = format!("{STAGING}/{}/{}", zone.staging()?, COUNTER.fetch_add(1, Ordering::Relaxed));
        dir.create_dir(&name)?;
        Ok(Staged::new(zone.root.join(name), target.clone()))
    }

    /// Makes a staged file visible under its name, replacing what was there. Synchronised to disk first.
    ///
    /// # Errors
    /// When the file is not there or cannot be renamed, or a later attempt has published; it is removed then.
    pub fn publish(&self, staged: &Staged, fence: Option<&Fence>) -> Result<BlobFacts, BlobError> {
        let target = staged.target();
        let dir = self.checked(target)?;
        let root = &self.zone(&target.zone)?.root;
        let hidden = staged.path.strip_prefix(root).map_err(io::Error::other)?;
        let fences = root.join(FENCES);
        let _entered = fence.map(|fence| fence::enter(&fences, target, fence)).transpose()?;
        publish(dir, hidden, &target.path())?;
        self.stat(target)
    }

    /// Writes a blob atomically.
    ///
    /// # Errors
    /// When the name is not valid or the content cannot be read or written, or a later attempt has published.
    pub fn write(
        &self,
        target: &BlobRef,
        content: &mut dyn Read,
        fence: Option<&Fence>,
    ) -> Result<BlobFacts, BlobError> {
        let staged = self.stage(target)?;
        io::copy(content, &mut File::create_new(&staged.path)?)?;
        self.publish(&staged, fence)
    }

    /// The attempt that published a blob last; none where no attempt did, or long ago.
    #[must_use]
    pub fn publisher(&self, target: &BlobRef) -> Option<Fence> {
        fence::last(&self.zone(&target.zone).ok()?.root.join(FENCES), target)
    }

    /// Removes what dead processes left in the staging folders, and fences that nobody needs any more.
    pub fn sweep_staging(&self) {
        for zone in self.zones.values() {
            // What cannot be removed now is found again at the next start.
            let _ = OwnedFolder::sweep(&zone.root.join(STAGING));
            fence::sweep(&zone.root.join(FENCES));
        }
    }

    fn zone(&self, name: &str) -> Result<&Zone, BlobError> {
        let known = || self.zones.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.zones.get(name).ok_or_else(|| BlobError::UnknownZone(name.escape_debug().to_string(), known()))
    }

    fn checked(&self, blob: &BlobRef) -> Result<&Dir, BlobError> {
        blob.check()?;
        Ok(&self.zone(&blob.zone)?.dir)
    }
}

#[async_trait]
impl Zones for FolderZones {
    fn names(&self) -> Vec<String> {
        self.zones.keys().cloned().collect()
    }

    async fn stat(&self, blob: &BlobRef) -> Result<BlobFacts, BlobError> {
        self.stat(blob)
    }

    async fn list(
        &self,
        zone: &str,
        container: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<BlobFacts>, BlobError> {
        self.list(zone, container, prefix, limit)
    }

    async fn containers(&self, zone: &str) -> Result<Vec<String>, BlobError> {
        self.containers(zone)
    }

    async fn open(&self, blob: &BlobRef) -> Result<Source, BlobError> {
        self.native_path(blob).map(Source::File)
    }

    async fn create(&self, target: &BlobRef) -> Result<Output, BlobError> {
        self.stage(target).map(Output::File)
    }

    async fn publish(&self, output: Output, fence: Option<&Fence>) -> Result<BlobFacts, BlobError> {
        let staged = match output {
            Output::File(staged) => staged,
            Output::Object(upload) => return upload.publish(fence).await,
        };
        let (zones, fence) = (self.clone(), fence.cloned());
        blocking(move || zones.publish(&staged, fence.as_ref())).await
    }

    async fn write(
        &self,
        target: &BlobRef,
        content: &mut (dyn AsyncRead + Send + Unpin),
        fence: Option<&Fence>,
    ) -> Result<BlobFacts, BlobError> {
        let staged = self.stage(target)?;
        let mut file = File::create_new(&staged.path)?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = content.read(&mut buffer).await?;
            if count == 0 {
                break;
            }
            // Into the system's memory: it is the publication that waits for the disk.
            io::Write::write_all(&mut file, &buffer[..count])?;
        }
        Zones::publish(self, Output::File(staged), fence).await
    }

    async fn copy(
        &self,
        source: &BlobRef,
        target: &BlobRef,
        fence: Option<&Fence>,
    ) -> Result<BlobFacts, BlobError> {
        let (zones, fence) = (self.clone(), fence.cloned());
        let (source, target) = (source.clone(), target.clone());
        blocking(move || zones.write(&target, &mut zones.read(&source)?, fence.as_ref())).await
    }

    async fn sweep(&self) {
        self.sweep_staging();
    }
}

/// Runs what waits for a disk on a thread for that.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BlobError> + Send + 'static,
) -> Result<T, BlobError> {
    use tokio::runtime::{Handle, RuntimeFlavor};
    // A runtime of one thread is a simulation: it must repeat itself exactly.
    if Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread {
        return work();
    }
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn publish(dir: &Dir, hidden: &Path, visible: &str) -> Result<(), BlobError> {
    dir.open(hidden)?.sync_all()?;
    if let Some(folder) = Path::new(visible).parent() {
        dir.create_dir_all(folder)?;
    }
    dir.rename(hidden, dir, visible)?;
    Ok(())
}

fn walk(dir: &Dir, prefix: &str, names: &mut Vec<String>) -> Result<(), BlobError> {
    for entry in dir.entries()? {
        let entry = entry?;
        let part = entry.file_name().to_string_lossy().into_owned();
        if part.starts_with('.') {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(&entry.open_dir()?, &format!("{prefix}{part}/"), names)?;
        } else if kind.is_file() {
            names.push(format!("{prefix}{part}"));
        }
    }
    Ok(())
}

fn facts(blob: BlobRef, metadata: &cap_std::fs::Metadata) -> Result<BlobFacts, BlobError> {
    use cap_std::fs::MetadataExt;
    let modified = metadata.modified()?.into_std();
    let etag = format!(
        "{:x}-{:x}-{:x}{:08x}",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec()
    );
    Ok(BlobFacts { blob, size_bytes: metadata.len(), last_modified: modified.into(), etag })
}

fn missing(error: io::Error, blob: &BlobRef) -> BlobError {
    let gone = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    if gone { BlobError::NotFound(blob.to_string()) } else { error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(root: &Path) -> FolderZones {
        let roots = ["bronze", "silver"].map(|name| (name.to_owned(), root.join(name)));
        FolderZones::open(&BTreeMap::from(roots)).expect("opens")
    }

    fn blob(name: &str) -> BlobRef {
        BlobRef::new("silver", "cogs", name)
    }

    #[test]
    fn blobs_are_written_listed_and_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let zones = zones(folder.path());
        zones.write(&blob("a/2.tif"), &mut &b"two"[..], None).expect("writes");
        zones.write(&blob("a/1.tif"), &mut &b"one"[..], None).expect("writes");
        let names: Vec<String> = zones
            .list("silver", "cogs", "a/", 10)
            .expect("lists")
            .into_iter()
            .map(|facts| facts.blob.name)
            .collect();
        assert_eq!(names, ["a/1.tif", "a/2.tif"]);
        let mut text = String::new();
        zones.read(&blob("a/2.tif")).expect("opens").read_to_string(&mut text).expect("reads");
        assert_eq!(text, "two");
        assert_eq!(zones.containers("silver").expect("lists"), ["cogs"]);
        assert!(matches!(zones.stat(&blob("a")), Err(BlobError::NotFound(_))), "a folder is no blob");
        assert!(matches!(zones.stat(&BlobRef::new("gold", "c", "n")), Err(BlobError::UnknownZone(..))));
    }

    #[test]
    fn no_name_and_no_symlink_leaves_the_zone() {
        let folder = tempfile::tempdir().expect("a folder");
        let zones = zones(folder.path());
        std::fs::write(folder.path().join("canary"), "secret").expect("writes");
        std::fs::create_dir_all(folder.path().join("silver/cogs")).expect("creates");
        std::os::unix::fs::symlink("../../canary", folder.path().join("silver/cogs/link")).expect("links");
        std::os::unix::fs::symlink("/etc", folder.path().join("silver/cogs/etc")).expect("links");
        for name in ["link", "etc/passwd", "../../canary"] {
            assert!(zones.read(&blob(name)).is_err(), "{name} was read");
            assert!(zones.native_path(&blob(name)).is_err(), "{name} was resolved");
        }
        assert!(zones.write(&blob("etc/new"), &mut &b""[..], None).is_err());
    }

    #[test]
    fn a_staged_file_is_invisible_until_it_is_published() {
        let folder = tempfile::tempdir().expect("a folder");
        let zones = zones(folder.path());
        let staged = zones.stage(&blob("x.tif")).expect("stages");
        std::fs::write(&staged.path, "half").expect("writes");
        assert!(zones.list("silver", "cogs", "", 10).expect("lists").is_empty());
        assert!(zones.stat(&blob("x.tif")).is_err());
        assert_eq!(zones.publish(&staged, None).expect("publishes").size_bytes, 4);
        let running = zones.stage(&blob("y.tif")).expect("stages");
        std::fs::write(&running.path, "half").expect("writes");
        zones.sweep_staging();
        assert!(running.path.exists(), "what a living process stages is left alone");
    }

    /// B2: of two attempts of a task the later one wins, in whatever order they publish; another task may replace it if it was
    /// claimed later.
    #[test]
    fn a_stale_attempt_cannot_publish_over_a_later_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let zones = zones(folder.path());
        let fence = |owner: &str, epoch, claimed_at| Some(Fence { owner: owner.into(), epoch, claimed_at });
        let publish =
            |text: &str, fence: Option<Fence>| zones.write(&blob("x"), &mut text.as_bytes(), fence.as_ref());
        publish("first", fence("task", 1, 100)).expect("publishes");
        publish("third", fence("task", 3, 300)).expect("publishes");
        assert!(matches!(publish("second", fence("task", 2, 200)), Err(BlobError::Fenced)));
        let mut text = String::new();
        zones.read(&blob("x")).expect("opens").read_to_string(&mut text).expect("reads");
        assert_eq!(text, "third");
        publish("again", fence("task", 3, 300)).expect("an attempt may publish twice");
        publish("other", fence("another task", 1, 400)).expect("publishes");
        assert!(matches!(publish("asleep", fence("task", 3, 300)), Err(BlobError::Fenced)));
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::from(io::ErrorKind::StorageFull))
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let zones = zones(folder.path());
        assert!(matches!(zones.write(&blob("x"), &mut Broken, None), Err(BlobError::Full)));
        drop(zones);
        let staging = folder.path().join("silver").join(STAGING);
        assert_eq!(std::fs::read_dir(staging).expect("lists").count(), 0);
    }

    #[tokio::test]
    async fn folders_conform() {
        let folder = tempfile::tempdir().expect("a folder");
        crate::conformance::run(&zones(folder.path()), &zones(folder.path())).await;
    }
}
