//! Files that are wrong, and guests that misbehave while they start or describe themselves.

use std::path::Path;

use geoworker_machine::codes;
use geoworker_plugins::{Limits, LoadReport, PluginEngine, load_directory};

use crate::{ALONE, folder, tight};

const MARKER: &[u8] = b"geoworker-evil-variant:none";

/// The hostile guest as that variant.
fn variant(name: &str) -> Vec<u8> {
    let mut bytes = std::fs::read(folder("dist-hostile").join("evil.wasm")).expect("reads");
    let at = bytes.windows(MARKER.len()).position(|window| window == MARKER).expect("has the marker");
    let at = at + MARKER.len() - 4;
    bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
    if name.len() < 4 {
        bytes[at + name.len()..at + 4].fill(b'.');
    }
    bytes
}

async fn reports(folder: &Path, limits: Limits) -> Vec<LoadReport> {
    let engine = PluginEngine::new().expect("an engine");
    load_directory(&engine, folder, None, limits).await.expect("reads").reports().to_vec()
}

async fn code(bytes: &[u8], limits: Limits) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.wasm"), bytes).expect("writes");
    let report = reports(folder.path(), limits).await.remove(0);
    report.error.map_or_else(|| "ok".into(), |error| error.code)
}

#[tokio::test]
async fn variants_that_misbehave_at_start_or_describe_do_not_load() {
    let _alone = ALONE.lock().await;
    let expected = [
        ("start", codes::PLUGIN_DESCRIBE),
        ("start_memory", codes::PLUGIN_DESCRIBE),
        ("evil_spin", codes::PLUGIN_DESCRIBE),
        ("evil_calls", codes::PLUGIN_DESCRIBE),
        ("evil_recursion", codes::PLUGIN_DESCRIBE),
        ("evil_memory", codes::PLUGIN_DESCRIBE),
        ("evil_panic", codes::PLUGIN_DESCRIBE),
        ("evil_string", codes::PLUGIN_DESCRIBE),
        ("operations", codes::PLUGIN_DESCRIBE),
        ("schema", codes::PLUGIN_SCHEMA),
        ("reference", codes::PLUGIN_SCHEMA),
        ("name", codes::PLUGIN_SCHEMA),
        ("none", "ok"),
    ];
    for (name, expected) in expected {
        assert_eq!(code(&variant(name), tight()).await, expected, "{name}");
    }
}

#[tokio::test]
async fn files_that_are_no_plugins_are_refused() {
    let whole = variant("none");
    let module = b"\0asm\x01\0\0\0";
    let wasi =
        [&module[..], b"\x01\x04\x01\x60\0\0", b"\x02\x23\x01\x16wasi_snapshot_preview1\x08fd_write\0\0"];
    assert_eq!(code(b"", tight()).await, codes::PLUGIN_FILE);
    assert_eq!(code(&whole, Limits { file_mib: 0, ..tight() }).await, codes::PLUGIN_FILE);
    assert_eq!(code(b"some text", tight()).await, codes::PLUGIN_NOT_WASM);
    assert_eq!(code(&whole[..whole.len() / 2], tight()).await, codes::PLUGIN_NOT_WASM);
    assert_eq!(code(module, tight()).await, codes::PLUGIN_WORLD_MISMATCH);
    assert_eq!(code(&wasi.concat(), tight()).await, codes::PLUGIN_WORLD_MISMATCH);
}

#[tokio::test]
async fn links_that_leave_the_folder_folders_and_second_owners_are_refused() {
    let _alone = ALONE.lock().await;
    let (inside, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let foreign = outside.path().join("a.wasm");
    std::fs::write(&foreign, variant("none")).expect("writes");
    std::os::unix::fs::symlink(&foreign, inside.path().join("a.wasm")).expect("links");
    std::fs::create_dir(inside.path().join("b.wasm")).expect("creates");
    std::fs::write(inside.path().join("c.data"), variant("none")).expect("writes");
    std::os::unix::fs::symlink("c.data", inside.path().join("c.wasm")).expect("links");
    // Another version of the same plugin: the same content under two names is one plugin.
    let other = [&variant("none")[..], b"\0\x05\x04note"].concat();
    std::fs::write(inside.path().join("d.wasm"), other).expect("writes");
    let reports = reports(inside.path(), tight()).await;
    let codes: Vec<_> =
        reports.iter().map(|report| report.error.as_ref().map(|error| error.code.as_str())).collect();
    let expected = [Some(codes::PLUGIN_FILE), Some(codes::PLUGIN_FILE), None, Some(codes::PLUGIN_CONFLICT)];
    assert_eq!(codes, expected);
}
