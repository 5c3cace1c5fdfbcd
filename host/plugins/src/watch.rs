//! Watching the plugin folder, and reloading when it has changed and is quiet again.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, sleep_until};

use crate::generations::Plugins;

/// How the folder is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WatchMode {
    /// By the kernel's events; by looking where the folder lies on a network, or there are no events.
    #[default]
    On,
    /// By looking.
    Poll,
    /// Not at all.
    Off,
}

/// Times of watching.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchSettings {
    /// How. Default `On`.
    pub mode: WatchMode,
    /// How long nothing must change before a reload. Default 500 ms.
    pub quiet: Duration,
    /// After this long a folder that never gets quiet is reloaded all the same. Default 5 s.
    pub longest: Duration,
    /// Between two looks. Default 10 s.
    pub poll: Duration,
    /// The same beside events: a folder that was replaced as a whole tells nothing any more. Default 60 s.
    pub lookout: Duration,
}

impl Default for WatchSettings {
    fn default() -> Self {
        Self {
            mode: WatchMode::default(),
            quiet: Duration::from_millis(500),
            longest: Duration::from_secs(5),
            poll: Duration::from_secs(10),
            lookout: Duration::from_secs(60),
        }
    }
}

/// Reloads whenever the folder has changed; ends only where there is nothing to watch.
pub async fn watch(plugins: Plugins, settings: WatchSettings) {
    let Some(folder) = plugins.folder() else { return };
    if settings.mode == WatchMode::Off {
        return;
    }
    let by_events = settings.mode == WatchMode::On && !is_remote(folder);
    let (bell, mut rings) = channel(1);
    let mut seen = None;
    loop {
        // Made anew each time, since the folder may be another one; and before the look, so that no change is between.
        let watcher = by_events.then(|| listen(folder, bell.clone())).flatten();
        let found = Some(look(folder));
        if found != seen {
            seen = found;
            if let Err(error) = plugins.reload().await {
                tracing::error!(code = error.code, "plugins stay as they are: {}", error.message);
            }
        }
        let pause = if watcher.is_some() { settings.lookout } else { settings.poll };
        tokio::select! {
            _ = rings.recv() => settle(&mut rings, settings).await,
            () = sleep(pause) => {}
        }
    }
}

/// Waits until nothing was heard for a while.
async fn settle(rings: &mut Receiver<()>, settings: WatchSettings) {
    let end = Instant::now() + settings.longest;
    loop {
        tokio::select! {
            () = sleep_until(end.min(Instant::now() + settings.quiet)) => return,
            _ = rings.recv() => {}
        }
        if Instant::now() >= end {
            return;
        }
    }
}

fn listen(folder: &Path, bell: Sender<()>) -> Option<RecommendedWatcher> {
    let on_event = move |event: notify::Result<Event>| {
        if event.as_ref().map_or(true, is_change) {
            // A bell that rings already is enough.
            let _ = bell.try_send(());
        }
    };
    let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
        watcher.watch(folder, RecursiveMode::NonRecursive)?;
        Ok(watcher)
    });
    watcher
        .inspect_err(
            |error| tracing::debug!(%error, "no events of the plugin folder: it is looked at instead"),
        )
        .ok()
}

/// Reading is none, and loading reads.
fn is_change(event: &Event) -> bool {
    match event.kind {
        EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

/// Name, file, size and time of change of everything that a load reads; none where it cannot be seen.
type Look = Vec<(PathBuf, Option<(u64, u64, i64, i64)>)>;

fn look(folder: &Path) -> Look {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Look = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|it| it == "wasm" || it == "sig" || it == "lock"))
        .map(|path| {
            let facts = std::fs::metadata(&path).ok();
            let facts = facts.map(|it| (it.ino(), it.len(), it.ctime(), it.ctime_nsec()));
            (path, facts)
        })
        .collect();
    found.sort();
    found
}

/// Whether others change the folder without this kernel's knowledge.
fn is_remote(folder: &Path) -> bool {
    /// NFS, SMB, CIFS, 9P, Ceph, FUSE.
    const REMOTE: [i64; 6] = [0x6969, 0xfe53_4d42, 0xff53_4d42, 0x0102_1997, 0x00c3_6400, 0x6573_5546];
    rustix::fs::statfs(folder).is_ok_and(|facts| REMOTE.contains(&facts.f_type))
}
