//! Control groups: a memory limit that the kernel keeps, where this process may create groups.
//!
//! Version 2 where the memory controller is handed down to the children of this process's group (or of the one
//! above it, as service managers lay out what they delegate); version 1 where its memory hierarchy is mounted. A
//! group belongs to one operation and is removed after it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

/// Beginning of the names of groups; the number of their process follows.
const PREFIX: &str = "geoworker-";
/// A limit above this means none: version 1 writes the largest number of pages.
const UNLIMITED: u64 = 1 << 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group with a memory limit. Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    version: Version,
}

impl Group {
    /// Creates a group that may use `limit` bytes of memory, without swap.
    ///
    /// # Errors
    /// Where this machine has no group that this process may divide.
    pub(crate) fn create(limit: u64) -> io::Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        static SWEPT: Once = Once::new();
        remove_left();
        let hierarchy = Hierarchy::of_this_process()
            .ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, "no memory controller is mounted"))?;
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let mut refused =
            io::Error::new(io::ErrorKind::Unsupported, "the memory controller is not handed down");
        for parent in hierarchy.parents() {
            SWEPT.call_once(|| sweep(&parent));
            let path = parent.join(&name);
            if let Err(error) = std::fs::create_dir(&path) {
                refused = error;
                continue;
            }
            let group = Self { path, version: hierarchy.version };
            match group.limit(limit) {
                Ok(()) => return Ok(group),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Where another group of this name would be.
    #[cfg(test)]
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    fn limit(&self, bytes: u64) -> io::Result<()> {
        let text = bytes.to_string();
        let write = |file: &str, text: &str| std::fs::write(self.path.join(file), text);
        let optional = |file: &str, text: &str| match write(file, text) {
            // The kernel was built without accounting of swap.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        match self.version {
            Version::One => {
                write("memory.limit_in_bytes", &text)?;
                optional("memory.memsw.limit_in_bytes", &text)
            }
            Version::Two => {
                write("memory.max", &text)?;
                optional("memory.swap.max", "0")?;
                // A library's helper process must not survive the operation.
                optional("memory.oom.group", "1")
            }
        }
    }

    /// Moves a process into the group. What it used before stays with its old group.
    ///
    /// # Errors
    /// Where the process is gone or may not be moved.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        std::fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Processes of the group that the kernel killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = std::fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

/// Groups whose processes were still ending; tried again with the next operation.
static LEFT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

impl Drop for Group {
    fn drop(&mut self) {
        if std::fs::remove_dir(&self.path).is_err()
            && let Ok(mut left) = LEFT.lock()
        {
            left.push(std::mem::take(&mut self.path));
        }
    }
}

fn remove_left() {
    if let Ok(mut left) = LEFT.lock() {
        left.retain(|path| std::fs::remove_dir(path).is_err() && path.exists());
    }
}

/// Removes the groups of processes that died.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            // One that still has processes stays; its limit holds them.
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

/// Where this process stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    version: Version,
    mount: PathBuf,
    /// This process's group, below the mount.
    own: PathBuf,
}

impl Hierarchy {
    fn of_this_process() -> Option<Self> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::find(&groups, &mounts)
    }

    /// From `/proc/self/cgroup` and `/proc/self/mountinfo`: version 1 where the memory controller is bound to it,
    /// else version 2.
    fn find(groups: &str, mounts: &str) -> Option<Self> {
        let entry = |wanted: &dyn Fn(&str, &str) -> bool| {
            groups.lines().find_map(|line| {
                let (id, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                wanted(id, controllers).then(|| path.to_owned())
            })
        };
        let one = entry(&|_, controllers| controllers.split(',').any(|name| name == "memory"));
        let (version, path) = match one {
            Some(path) => (Version::One, path),
            None => (Version::Two, entry(&|id, _| id == "0")?),
        };
        for line in mounts.lines() {
            let (place, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let (name, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
            let fits = match version {
                Version::One => name == "cgroup" && options.split(',').any(|option| option == "memory"),
                Version::Two => name == "cgroup2",
            };
            let mut place = place.split(' ').skip(3);
            if let (true, Some(root), Some(mount)) = (fits, place.next(), place.next()) {
                // In a container the mount may show a part of the hierarchy only.
                let own = path.strip_prefix(root.trim_end_matches('/')).unwrap_or(&path);
                let own = own.trim_start_matches('/').into();
                return Some(Self { version, mount: mount.into(), own });
            }
        }
        None
    }

    /// Groups below which one with a limit may be created: this process's own, and for version 2 the one above.
    fn parents(&self) -> Vec<PathBuf> {
        let own = self.mount.join(&self.own);
        if self.version == Version::One {
            return vec![own];
        }
        let mut parents = vec![own.clone()];
        parents.extend(own.parent().filter(|parent| parent.starts_with(&self.mount)).map(Path::to_owned));
        parents.retain(|path| {
            let handed = std::fs::read_to_string(path.join("cgroup.subtree_control")).unwrap_or_default();
            handed.split_whitespace().any(|name| name == "memory")
        });
        parents
    }

    /// The smallest limit of this process's group and those above it, in bytes.
    fn limit(&self) -> Option<u64> {
        let file = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        let own = self.mount.join(&self.own);
        let groups = own.ancestors().take_while(|path| path.starts_with(&self.mount));
        groups
            .filter_map(|path| std::fs::read_to_string(path.join(file)).ok()?.trim().parse::<u64>().ok())
            .filter(|limit| *limit < UNLIMITED)
            .min()
    }
}

/// Memory that this process and its children can have at all, in bytes: the smaller of the machine's and its
/// group's limit. 4 GiB where neither can be read.
pub(crate) fn available_memory() -> u64 {
    const UNKNOWN: u64 = 4 << 30;
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| kib(&text, "MemTotal:"));
    let group = Hierarchy::of_this_process().and_then(|hierarchy| hierarchy.limit());
    [machine, group].into_iter().flatten().min().unwrap_or(UNKNOWN)
}

/// The bytes of a line such as `MemTotal:  1024 kB`.
pub(crate) fn kib(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_in_what_the_kernel_writes() {
        let groups = "4:memory:/jobs/a\n3:cpuset:/\n0::/\n";
        let mounts = "30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                      31 25 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";
        let found = Hierarchy::find(groups, mounts).expect("version 1");
        assert_eq!(
            (found.version, found.mount.join(&found.own)),
            (Version::One, PathBuf::from("/sys/fs/cgroup/memory/jobs/a"))
        );
        let mounts = "30 25 0:26 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchy::find("0::/docker/x/inner\n", mounts).expect("version 2");
        assert_eq!(
            (found.version, found.mount.join(&found.own)),
            (Version::Two, PathBuf::from("/sys/fs/cgroup/inner"))
        );
        assert_eq!(Hierarchy::find("0::/\n", "31 25 0:27 / /proc rw - proc proc rw\n"), None);
    }

    #[test]
    fn memory_of_this_machine_is_known() {
        assert!(available_memory() > 64 << 20);
        assert_eq!(kib("A: 1 kB\nMemTotal:       24684000 kB\n", "MemTotal:"), Some(24_684_000 * 1024));
    }
}
