//! What every kind of zones does alike. Expects zones `bronze` and `silver`, each with an empty container `cogs`.

use std::sync::Arc;

use crate::{BlobError, BlobFacts, BlobRef, Fence, Object, Output, Source, Upload, Zones};

/// Runs the suite over two instances, as two processes have them.
pub(crate) async fn run(zones: &dyn Zones, other: &dyn Zones) {
    names(zones).await;
    blobs_are_written_read_and_listed(zones, other).await;
    blobs_are_replaced_at_once_and_readers_notice(zones, other).await;
    outputs_are_invisible_until_they_are_published(zones, other).await;
    files_are_staged_and_published(zones, other).await;
    of_two_attempts_the_later_one_wins(zones, other).await;
    a_persons_command_always_wins(zones, other).await;
    blobs_are_copied(zones).await;
    a_failed_write_leaves_what_was_there(zones, other).await;
    blocks_come_in_any_order(zones, other).await;
    names_that_leave_the_zone_are_refused(zones).await;
}

pub(crate) fn blob(name: &str) -> BlobRef {
    BlobRef::new("silver", "cogs", name)
}

pub(crate) fn fence(owner: &str, epoch: i64, claimed_at: i64) -> Fence {
    Fence { owner: owner.to_owned(), epoch, claimed_at }
}

pub(crate) async fn write(
    zones: &dyn Zones,
    name: &str,
    text: &str,
    fence: Option<&Fence>,
) -> Result<BlobFacts, BlobError> {
    zones.write(&blob(name), &mut text.as_bytes(), fence).await
}

pub(crate) async fn read(zones: &dyn Zones, blob: &BlobRef) -> String {
    let bytes = match zones.open(blob).await.expect("opens") {
        Source::File(path) => std::fs::read(path).expect("reads"),
        Source::Object(object) => {
            let size = usize::try_from(object.facts().size_bytes).expect("fits");
            object.read(0, size).await.expect("reads")
        }
    };
    String::from_utf8(bytes).expect("is text")
}

async fn list(zones: &dyn Zones, prefix: &str, limit: usize) -> Vec<String> {
    let found = zones.list("silver", "cogs", prefix, limit).await.expect("lists");
    for facts in &found {
        let same = zones.stat(&facts.blob).await.expect("is there");
        assert_eq!((&same.etag, same.size_bytes), (&facts.etag, facts.size_bytes), "{facts:?}");
    }
    found.into_iter().map(|facts| facts.blob.name).collect()
}

async fn names(zones: &dyn Zones) {
    assert_eq!(zones.names(), ["bronze", "silver"]);
    let missing = zones.stat(&BlobRef::new("gold", "cogs", "x")).await;
    assert!(matches!(missing, Err(BlobError::UnknownZone(..))), "{missing:?}");
}

async fn blobs_are_written_read_and_listed(zones: &dyn Zones, other: &dyn Zones) {
    assert!(matches!(zones.stat(&blob("a/2.tif")).await, Err(BlobError::NotFound(_))));
    assert!(matches!(zones.open(&blob("a/2.tif")).await, Err(BlobError::NotFound(_))));
    let written = write(zones, "a/2.tif", "two", None).await.expect("writes");
    assert_eq!((written.size_bytes, &written.blob), (3, &blob("a/2.tif")));
    assert_eq!(other.stat(&blob("a/2.tif")).await.expect("is there"), written);
    let name = "a/scene 1_b-2 (copy) 100%+ü&#.tif";
    for name in ["a/1.tif", name, "b/3.tif"] {
        write(zones, name, name, None).await.expect("writes");
    }
    assert_eq!(read(other, &blob("a/2.tif")).await, "two");
    assert_eq!(read(other, &blob(name)).await, name);
    assert_eq!(list(other, "a/", 10).await, ["a/1.tif", "a/2.tif", name]);
    assert_eq!(list(other, "a/", 2).await, ["a/1.tif", "a/2.tif"]);
    assert_eq!(list(other, "", 10).await, ["a/1.tif", "a/2.tif", name, "b/3.tif"]);
    assert!(list(other, "c", 10).await.is_empty() && list(other, "", 0).await.is_empty());
    assert!(zones.containers("silver").await.expect("lists").contains(&"cogs".to_owned()));
    write(zones, "empty", "", None).await.expect("writes");
    assert_eq!((read(other, &blob("empty")).await.as_str(), list(zones, "e", 9).await.len()), ("", 1));
}

async fn blobs_are_replaced_at_once_and_readers_notice(zones: &dyn Zones, other: &dyn Zones) {
    let before = write(zones, "replaced", "0123456789", None).await.expect("writes");
    let opened = zones.open(&blob("replaced")).await.expect("opens");
    if let Source::Object(object) = &opened {
        ranges(object.as_ref()).await;
    }
    let after = write(other, "replaced", "new", None).await.expect("writes");
    assert_ne!(before.etag, after.etag);
    assert_eq!(read(zones, &blob("replaced")).await, "new");
    if let Source::Object(object) = opened {
        assert_eq!(object.facts(), &before);
        let stale = object.read(0, 3).await;
        assert!(matches!(stale, Err(BlobError::Changed(_))), "{stale:?}");
    }
}

async fn ranges(object: &dyn Object) {
    for (offset, length, expected) in [
        (0, 10, "0123456789"),
        (3, 4, "3456"),
        (8, 10, "89"),
        (9, 1, "9"),
        (10, 5, ""),
        (99, 5, ""),
        (2, 0, ""),
    ] {
        let bytes = object.read(offset, length).await.expect("reads");
        assert_eq!(bytes, expected.as_bytes(), "{offset}+{length}");
    }
}

/// Writes an output as a native process does: a file, or blocks that are sealed.
pub(crate) async fn fill(output: &Output, text: &str) {
    match output {
        Output::File(staged) => std::fs::write(&staged.path, text).expect("writes"),
        Output::Object(upload) => {
            upload.block(1, text.into()).await.expect("arrives");
            let sealed = upload.seal(&[1]).await.expect("seals");
            assert_eq!(sealed.read(0, 100).await.expect("reads"), text.as_bytes());
        }
    }
}

async fn outputs_are_invisible_until_they_are_published(zones: &dyn Zones, other: &dyn Zones) {
    let before = list(other, "", 100).await;
    let output = zones.create(&blob("output.tif")).await.expect("begins");
    fill(&output, "pixels").await;
    assert!(matches!(other.stat(&blob("output.tif")).await, Err(BlobError::NotFound(_))));
    assert_eq!(list(other, "", 100).await, before);
    other.sweep().await;
    assert_eq!(zones.publish(output, None).await.expect("publishes").size_bytes, 6);
    assert_eq!(read(other, &blob("output.tif")).await, "pixels");
    let unwritten = zones.create(&blob("unwritten.tif")).await.expect("begins");
    assert!(zones.publish(unwritten, None).await.is_err(), "there is nothing");
}

async fn files_are_staged_and_published(zones: &dyn Zones, other: &dyn Zones) {
    let Output::File(staged) = zones.create(&blob("staged.tif")).await.expect("stages") else { return };
    std::fs::write(&staged.path, "pixels").expect("writes");
    let (path, folder) = (staged.path.clone(), staged.path.parent().expect("has one").to_owned());
    zones.publish(Output::File(staged), None).await.expect("publishes");
    assert!(!path.exists() && !folder.exists(), "nothing stays behind");
    let Output::File(dropped) = zones.create(&blob("dropped.tif")).await.expect("stages") else { return };
    std::fs::write(&dropped.path, "half").expect("writes");
    other.sweep().await;
    assert!(dropped.path.exists(), "what a living process stages is left alone");
    let folder = dropped.path.parent().expect("has one").to_owned();
    drop(dropped);
    assert!(!folder.exists() && zones.stat(&blob("dropped.tif")).await.is_err());
}

async fn of_two_attempts_the_later_one_wins(zones: &dyn Zones, other: &dyn Zones) {
    let publish = async |zones: &dyn Zones, text: &str, fence: Fence| {
        let output = zones.create(&blob("fenced")).await.expect("begins");
        fill(&output, text).await;
        zones.publish(output, Some(&fence)).await
    };
    publish(zones, "first", fence("task", 1, 100)).await.expect("publishes");
    publish(other, "third", fence("task", 3, 300)).await.expect("publishes");
    let second = publish(zones, "second", fence("task", 2, 200)).await;
    assert!(matches!(second, Err(BlobError::Fenced)), "{second:?}");
    assert_eq!(read(zones, &blob("fenced")).await, "third");
    publish(zones, "again", fence("task", 3, 300)).await.expect("an attempt may publish twice");
    publish(other, "other", fence("another task", 1, 400)).await.expect("publishes");
    let asleep = publish(zones, "asleep", fence("task", 3, 300)).await;
    assert!(matches!(asleep, Err(BlobError::Fenced)), "{asleep:?}");
    assert_eq!(read(zones, &blob("fenced")).await, "other");
    // At the same time, too.
    let (a, b) = (fence("task", 7, 500), fence("task", 8, 600));
    let (earlier, later) =
        tokio::join!(write(zones, "race", "earlier", Some(&a)), write(other, "race", "later", Some(&b)));
    later.expect("publishes");
    assert!(matches!(earlier, Ok(_) | Err(BlobError::Fenced)), "{earlier:?}");
    assert_eq!(read(zones, &blob("race")).await, "later");
}

async fn a_persons_command_always_wins(zones: &dyn Zones, other: &dyn Zones) {
    let attempt = |epoch| fence("task", epoch, 100 * epoch);
    write(zones, "command", "attempt", Some(&attempt(2))).await.expect("publishes");
    write(other, "command", "person", None).await.expect("publishes");
    let asleep = write(zones, "command", "asleep", Some(&attempt(1))).await;
    assert!(matches!(asleep, Err(BlobError::Fenced)), "{asleep:?}");
    assert_eq!(read(zones, &blob("command")).await, "person");
    write(zones, "command", "next", Some(&attempt(3))).await.expect("publishes");
}

async fn blobs_are_copied(zones: &dyn Zones) {
    write(zones, "source", "content", None).await.expect("writes");
    let target = BlobRef::new("bronze", "cogs", "copies/1");
    let attempt = fence("task", 2, 200);
    let copied = zones.copy(&blob("source"), &target, Some(&attempt)).await.expect("copies");
    assert_eq!((copied.size_bytes, copied.blob), (7, target.clone()));
    assert_eq!(read(zones, &target).await, "content");
    let earlier = zones.copy(&blob("source"), &target, Some(&fence("task", 1, 100))).await;
    assert!(matches!(earlier, Err(BlobError::Fenced)), "{earlier:?}");
    let missing = zones.copy(&blob("no such"), &target, None).await;
    assert!(matches!(missing, Err(BlobError::NotFound(_))), "{missing:?}");
}

async fn a_failed_write_leaves_what_was_there(zones: &dyn Zones, other: &dyn Zones) {
    write(zones, "kept", "old", None).await.expect("writes");
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let mut content = breaking_off(b"half", full);
    let failed = zones.write(&blob("kept"), &mut content, None).await;
    assert!(matches!(failed, Err(BlobError::Full)), "{failed:?}");
    assert_eq!(read(other, &blob("kept")).await, "old");
}

async fn upload(zones: &dyn Zones, name: &str) -> Option<Arc<dyn Upload>> {
    match zones.create(&blob(name)).await.expect("begins") {
        Output::Object(upload) => Some(upload),
        Output::File(_) => None,
    }
}

async fn blocks_come_in_any_order(zones: &dyn Zones, other: &dyn Zones) {
    let Some(upload) = upload(zones, "blocks").await else { return };
    let blocks = [(7, "c"), (0, "a"), (3, "?"), (3, "b"), (9, "never committed")];
    for (number, text) in blocks {
        upload.block(number, text.into()).await.expect("arrives");
    }
    assert!(upload.seal(&[0, 1]).await.is_err(), "1 never arrived");
    let sealed = upload.seal(&[0, 3, 7]).await.expect("seals");
    assert_eq!(sealed.read(0, 10).await.expect("reads"), b"abc");
    let facts = upload.publish(None).await.expect("publishes");
    assert_eq!(facts, other.stat(&blob("blocks")).await.expect("is there"));
    assert_eq!(read(other, &blob("blocks")).await, "abc");
}

async fn names_that_leave_the_zone_are_refused(zones: &dyn Zones) {
    for name in ["", "../x", "a//b", "a/../../b", "/etc/passwd", ".staging/x", "a\0"] {
        let target = blob(name);
        let refused = |result: Result<(), BlobError>| {
            assert!(matches!(result, Err(BlobError::InvalidName(_))), "{name:?}: {result:?}");
        };
        refused(zones.stat(&target).await.map(drop));
        refused(zones.open(&target).await.map(drop));
        refused(zones.create(&target).await.map(drop));
        refused(zones.write(&target, &mut &b"x"[..], None).await.map(drop));
        refused(zones.copy(&target, &blob("x"), None).await.map(drop));
        refused(zones.copy(&blob("source"), &target, None).await.map(drop));
    }
    assert!(matches!(zones.list("silver", "../bronze", "", 1).await, Err(BlobError::InvalidName(_))));
}

/// Content that breaks off.
fn breaking_off(bytes: &'static [u8], error: std::io::Error) -> impl tokio::io::AsyncRead + Send + Unpin {
    use tokio::io::AsyncReadExt as _;
    bytes.chain(Broken(Some(error)))
}

struct Broken(Option<std::io::Error>);

impl tokio::io::AsyncRead for Broken {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(self.0.take().map_or(Ok(()), Err))
    }
}
