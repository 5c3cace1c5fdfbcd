//! The native process as it is shipped: what it says before it works, and what it cannot reach.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::DateTime;
use geoworker_blobs::{BlobError, BlobFacts, BlobRef, Fence, Object, Upload};
use geoworker_machine::{RetryClass, codes};
use geoworker_raster::estimate::Plan;
use geoworker_raster::model::{CogOptions, Engine};
use geoworker_raster::native::{GO, NativeLine, NativeRequest, Operation};
use geoworker_raster::{OUTPUT_OBJECT, SOURCE_OBJECT};
use geoworker_worker::{Admission, Assignment, Native, NativeFailure, Objects, WorkerSettings};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// A TIFF of 8 × 8 grey pixels.
fn tiff() -> Vec<u8> {
    const EDGE: u32 = 8;
    let (data, directory) = (8_u32, 8 + EDGE * EDGE);
    let entries: &[(u16, u32)] = &[
        (256, EDGE),        // width
        (257, EDGE),        // height
        (258, 8),           // bits per sample
        (259, 1),           // no compression
        (262, 1),           // black is zero
        (273, data),        // offset of the strip
        (277, 1),           // samples per pixel
        (278, EDGE),        // rows per strip
        (279, EDGE * EDGE), // bytes of the strip
    ];
    let mut file = b"II*\0".to_vec();
    file.extend(directory.to_le_bytes());
    file.extend((0..EDGE * EDGE).map(|value| value as u8));
    file.extend((entries.len() as u16).to_le_bytes());
    for (tag, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(4_u16.to_le_bytes());
        file.extend(1_u32.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}

/// Says so past the test runner, which keeps what passing tests print.
fn skipped(why: &str) {
    // A test without standard error is skipped in silence.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Runs statistics of `source`; `meanwhile` happens between the estimate and the work.
fn statistics(source: &Path, scratch: &Path, meanwhile: impl FnOnce()) -> (NativeLine, NativeLine) {
    let request = NativeRequest {
        operation: Operation::Statistics { source: source.to_owned(), max_pixels: 0 },
        memory_bytes: 1 << 30,
        plan: Plan::lean(),
        source: None,
        scratch: scratch.to_owned(),
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_geoworker"))
        .arg("native-op")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut next = || -> NativeLine {
        let line = lines.next().expect("a line").expect("is read");
        serde_json::from_str(&line).expect("is a line of the protocol")
    };
    let text = serde_json::to_string(&request).expect("serialises");
    writeln!(stdin, "{text}").expect("writes");
    let needs = next();
    meanwhile();
    writeln!(stdin, "{GO}").expect("writes");
    let answer = next();
    assert!(child.wait().expect("ends").success());
    (needs, answer)
}

/// B3: the process holds no right to a path but to the very file that it was started for. While it waits, another
/// file is put in that file's place: a process that is not confined reads it.
#[test]
fn the_process_reads_the_file_of_its_request_and_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, canary, scratch) =
        (folder.path().join("source.tif"), folder.path().join("canary.tif"), folder.path().join("scratch"));
    std::fs::create_dir(&scratch).expect("creates");
    std::fs::write(&source, tiff()).expect("writes");
    std::fs::write(&canary, tiff()).expect("writes");
    let (needs, answer) = statistics(&source, &scratch, || {});
    let NativeLine::Needs(estimate) = needs else { panic!("{needs:?}") };
    assert!(estimate.memory_bytes > 1 << 20 && estimate.disk_bytes == 0, "{estimate:?}");
    let NativeLine::Done(value) = answer else { panic!("{answer:?}") };
    assert_eq!(value[0]["maximum"], 63.0);
    if !landlock_offered() {
        skipped("this kernel has no Landlock");
        return;
    }
    let (_, answer) = statistics(&source, &scratch, || std::fs::rename(&canary, &source).expect("renames"));
    let NativeLine::Failed(error) = answer else { panic!("the canary was read: {answer:?}") };
    assert!(error.message.contains("Permission denied"), "{error}");
}

/// Whether a process of this program says that it is not confined.
fn landlock_offered() -> bool {
    let mut child = Command::new(env!("CARGO_BIN_EXE_geoworker"))
        .arg("native-op")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let request = NativeRequest {
        operation: Operation::ValidateCog { source: "/nowhere".into() },
        memory_bytes: 0,
        plan: Plan::lean(),
        source: None,
        scratch: "/nowhere".into(),
    };
    let text = serde_json::to_string(&request).expect("serialises");
    let mut stdin = child.stdin.take().expect("a pipe");
    // Closed behind the request: it ends without working.
    writeln!(stdin, "{text}").expect("writes");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    !String::from_utf8_lossy(&output.stderr).contains("no Landlock")
}

/// An object in memory; it breaks off where it is told to.
#[derive(Debug)]
struct InMemory {
    facts: BlobFacts,
    bytes: Vec<u8>,
    breaks_at: u64,
}

#[async_trait]
impl Object for InMemory {
    fn facts(&self) -> &BlobFacts {
        &self.facts
    }

    async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, BlobError> {
        if offset + length as u64 > self.breaks_at {
            return Err(BlobError::Unavailable("it went away".into()));
        }
        let start = usize::try_from(offset).expect("is within");
        Ok(self.bytes[start..start + length].to_vec())
    }
}

fn in_memory(bytes: Vec<u8>, breaks_at: u64) -> Arc<dyn Object> {
    let blob = BlobRef::new("bronze", "in", "x.tif");
    let (size_bytes, last_modified) = (bytes.len() as u64, DateTime::UNIX_EPOCH);
    let facts = BlobFacts { blob, size_bytes, last_modified, etag: "1".into() };
    Arc::new(InMemory { facts, bytes, breaks_at })
}

/// Runs an operation on an object that breaks off at `breaks_at`.
async fn on_object(
    folder: &Path,
    breaks_at: u64,
    output: Option<Arc<dyn Upload>>,
    operation: impl FnOnce(PathBuf) -> Operation,
) -> Result<Value, NativeFailure> {
    let settings = WorkerSettings {
        native_program: env!("CARGO_BIN_EXE_geoworker").into(),
        ..WorkerSettings::default()
    };
    let native = Native::new(&settings, Arc::new(Admission::new(4 << 30)));
    let object = in_memory(tiff(), breaks_at);
    let assignment = Assignment {
        operation: operation(SOURCE_OBJECT.into()),
        objects: Objects { source: Some(object), output },
        scratch: folder.to_owned(),
        limit: Duration::from_secs(60),
        lean: false,
    };
    native.run(assignment, &CancellationToken::new(), &mut |_| {}).await
}

/// R22, B3: a native process reads what is no file of its machine, without a network and without credentials.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_read_through_the_supervisor() {
    let folder = tempfile::tempdir().expect("a folder");
    let statistics = |source| Operation::Statistics { source, max_pixels: 0 };
    let answer = on_object(folder.path(), u64::MAX, None, statistics).await.expect("answers");
    assert_eq!(answer[0]["maximum"], 63.0);
    let inspect = |source| Operation::Inspect { source, input_crs: None };
    let info = on_object(folder.path(), u64::MAX, None, inspect).await.expect("answers");
    assert_eq!(
        (&info["size_bytes"], &info["last_modified"]),
        (&json!(tiff().len()), &json!("1970-01-01T00:00:00Z"))
    );
    let target = folder.path().join("cog.tif");
    let cog = |source| Operation::CreateCog { source, target, options: options() };
    let report = on_object(folder.path(), u64::MAX, None, cog).await.expect("answers");
    assert_eq!(report["pixels_verified"], true);
    let valid = on_object(folder.path(), u64::MAX, None, |source| Operation::ValidateCog { source }).await;
    assert!(valid.expect("answers")["valid"].is_boolean());
}

/// The storage's failure comes through with its code and class, not as an unreadable file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_goes_away_is_no_bad_file() {
    let folder = tempfile::tempdir().expect("a folder");
    for (breaks_at, operation) in [
        (0, Operation::Statistics { source: SOURCE_OBJECT.into(), max_pixels: 0 }),
        (0, Operation::ValidateCog { source: SOURCE_OBJECT.into() }),
        (0, Operation::Inspect { source: SOURCE_OBJECT.into(), input_crs: None }),
    ] {
        let failure = on_object(folder.path(), breaks_at, None, |_| operation).await.expect_err("fails");
        let NativeFailure::Failed(error) = failure else { panic!("{failure:?}") };
        assert_eq!(
            (error.code.as_str(), error.class),
            (codes::BLOB_STORAGE_UNAVAILABLE, RetryClass::Transient),
            "{error}"
        );
    }
}

fn options() -> CogOptions {
    let options = json!({
        "compression": "deflate", "predictor": "none", "block_size": 512,
        "overview_resampling": "average", "resampling": "bilinear"
    });
    serde_json::from_value(options).expect("are options")
}

/// An output in memory.
#[derive(Debug, Default)]
struct Blocks {
    blocks: Mutex<BTreeMap<u32, Vec<u8>>>,
    whole: Mutex<Vec<u8>>,
    broken: bool,
}

#[async_trait]
impl Upload for Blocks {
    async fn block(&self, number: u32, bytes: Vec<u8>) -> Result<(), BlobError> {
        if self.broken {
            return Err(BlobError::Full);
        }
        self.blocks.lock().expect("is whole").insert(number, bytes);
        Ok(())
    }

    async fn seal(&self, order: &[u32]) -> Result<Arc<dyn Object>, BlobError> {
        let blocks = self.blocks.lock().expect("is whole");
        let bytes: Vec<u8> = order.iter().flat_map(|number| blocks[number].clone()).collect();
        *self.whole.lock().expect("is whole") = bytes.clone();
        Ok(in_memory(bytes, u64::MAX))
    }

    async fn publish(&self, _: Option<&Fence>) -> Result<BlobFacts, BlobError> {
        Err(BlobError::Busy)
    }
}

/// R22, B7: a COG goes to an object in blocks, by either engine, and is verified there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cog_is_written_to_an_object() {
    let folder = tempfile::tempdir().expect("a folder");
    for engine in [Engine::Native, Engine::Gdal] {
        let options = CogOptions { engine, ..options() };
        let file = folder.path().join("cog.tif");
        let cog = |source| Operation::CreateCog { source, target: file.clone(), options: options.clone() };
        let expected = on_object(folder.path(), u64::MAX, None, cog).await.expect("answers");
        let output = Arc::new(Blocks::default());
        let cog = |source| Operation::CreateCog { source, target: OUTPUT_OBJECT.into(), options };
        let report = on_object(folder.path(), u64::MAX, Some(output.clone()), cog).await.expect("answers");
        assert_eq!(report["pixels_verified"], true);
        let whole = output.whole.lock().expect("is whole").clone();
        assert_eq!(report["size_bytes"], json!(whole.len()));
        assert_eq!(report["pixel_sha256"], expected["pixel_sha256"]);
        let written = std::fs::read(&file).expect("is there");
        // A file may have padding before the full resolution, where the file system inserts whole blocks; an object has none.
        assert!(engine == Engine::Native || whole == written, "{engine:?}");
        assert!(whole.len() <= written.len() && whole.starts_with(b"II*\0"), "{engine:?}");
        std::fs::remove_file(file).expect("is there");
        assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0, "nothing is left in scratch");
    }
}

/// A block that could not be stored is noticed, at the latest when the output is sealed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storage_that_takes_no_blocks_fails_the_operation() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Arc::new(Blocks { broken: true, ..Blocks::default() });
    let cog = |source| Operation::CreateCog { source, target: OUTPUT_OBJECT.into(), options: options() };
    let failure = on_object(folder.path(), u64::MAX, Some(output), cog).await.expect_err("fails");
    let NativeFailure::Failed(error) = failure else { panic!("{failure:?}") };
    assert_eq!((error.code.as_str(), error.class), (codes::DISK_FULL, RetryClass::Transient), "{error}");
}
