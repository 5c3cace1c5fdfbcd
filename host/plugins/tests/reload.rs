//! Generations, trust and the artefact cache, with a real guest.
//!
//! The guests come from `tools/build-plugins`, which `make test` runs first.

#![expect(clippy::expect_used, reason = "helpers of tests fail by panicking")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use geoworker_machine::codes;
use geoworker_plugins::{
    ArtefactCache, Changes, Limits, LoadReport, LoadStage, Loader, LockFile, PluginEngine, Plugins, Registry,
    SigningKey, WatchMode, WatchSettings, signature_path, watch,
};
use tempfile::TempDir;

/// Of all tests that do not count compilations.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/reload-cache");

/// A plugin of the same behaviour and another digest: `mark` lies in a custom section.
fn hello(mark: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/dist/hello.wasm");
    let mut bytes = std::fs::read(path).expect("run tools/build-plugins");
    let length = u8::try_from(mark.len() + 2).expect("a short mark");
    assert!(length < 128, "one byte of LEB128");
    bytes.extend_from_slice(&[0, length, 1, b'm']);
    bytes.extend_from_slice(mark.as_bytes());
    bytes
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, content: &[u8]) {
        let new = self.path(&format!(".{name}.new"));
        std::fs::write(&new, content).expect("writes");
        std::fs::rename(new, self.path(name)).expect("renames");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).expect("removes");
    }

    fn loader(&self) -> Loader {
        let engine = PluginEngine::new().expect("an engine");
        let mut loader = Loader::new(engine, self.0.path(), Limits::default());
        loader.cache = ArtefactCache::in_folder(Path::new(CACHE));
        loader
    }

    async fn plugins(&self) -> Plugins {
        Plugins::load(self.loader()).await.expect("loads")
    }
}

async fn reload(plugins: &Plugins) -> Changes {
    plugins.reload().await.expect("reloads").expect("something changed")
}

fn report(registry: &Registry, file: &str) -> LoadReport {
    registry.reports().iter().find(|report| report.file == file).expect("a report").clone()
}

fn code(report: &LoadReport) -> &str {
    report.error.as_ref().map_or("", |error| error.code.as_str())
}

fn serving(plugins: &Plugins) -> String {
    plugins.current().job_type("hello_world").expect("is offered").0.digest.clone()
}

#[tokio::test]
async fn a_version_that_fails_leaves_the_one_before_serving() {
    let folder = Folder::new();
    folder.put("a.wasm", &hello("1"));
    let plugins = folder.plugins().await;
    let first = serving(&plugins);
    assert!(plugins.reload().await.expect("reloads").is_none(), "nothing changed");

    folder.put("a.wasm", &hello("2"));
    let old = plugins.current();
    let changes = reload(&plugins).await;
    assert_eq!((changes.generation, changes.replaced), (2, vec!["a.wasm".to_owned()]));
    let second = serving(&plugins);
    assert_ne!(first, second);
    assert_eq!(
        old.job_type("hello_world").expect("still there").0.digest,
        first,
        "work in flight keeps its own"
    );

    for broken in [&b"not wasm"[..], &hello("3")[..2000], b""] {
        folder.put("a.wasm", broken);
        assert_eq!(reload(&plugins).await.failed, ["a.wasm"]);
        assert_eq!(serving(&plugins), second);
        let report = report(&plugins.current(), "a.wasm");
        assert_eq!(report.serving.as_deref(), Some(second.as_str()));
        let expected = if broken.is_empty() { codes::PLUGIN_FILE } else { codes::PLUGIN_NOT_WASM };
        assert!(code(&report) == expected && !report.job_types.is_empty(), "{report:?}");
    }
    folder.put("a.wasm", &hello("2"));
    assert_eq!(reload(&plugins).await.restored, ["a.wasm"]);
    folder.put("a.wasm", &hello("4"));
    assert_eq!(reload(&plugins).await.replaced, ["a.wasm"]);

    folder.remove("a.wasm");
    assert_eq!(reload(&plugins).await.removed, ["a.wasm"]);
    assert_eq!(plugins.current().job_type("hello_world").expect_err("is gone").code, codes::JOB_TYPE_UNKNOWN);
    folder.put("a.wasm", &hello("4"));
    assert_eq!(reload(&plugins).await.added, ["a.wasm"]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_changes_nothing() {
    let folder = Folder::new();
    folder.put("a.wasm", &hello("1"));
    let plugins = folder.plugins().await;
    std::fs::remove_dir_all(folder.0.path()).expect("removes");
    assert_eq!(plugins.reload().await.expect_err("is refused").code, codes::CONFIG_INVALID);
    serving(&plugins);
}

#[tokio::test]
async fn content_is_compiled_once_under_whatever_name() {
    let folder = Folder::new();
    folder.put("a.wasm", &hello("1"));
    folder.put("b.wasm", &hello("1"));
    let mut loader = folder.loader();
    loader.cache = ArtefactCache::default();
    let engine = loader.engine.clone();
    let plugins = Plugins::load(loader).await.expect("loads");
    assert!(plugins.current().reports().iter().all(|report| report.error.is_none()), "twins are no conflict");
    assert_eq!(plugins.current().job_type("hello_world").expect("is offered").0.name, "a.wasm");
    folder.remove("a.wasm");
    reload(&plugins).await;
    assert_eq!(plugins.current().job_type("hello_world").expect("is offered").0.name, "b.wasm");
    std::fs::rename(folder.path("b.wasm"), folder.path("c.wasm")).expect("renames");
    let changes = reload(&plugins).await;
    assert_eq!((changes.added, changes.removed), (vec!["c.wasm".to_owned()], vec!["b.wasm".to_owned()]));
    assert_eq!(engine.compilations(), 1);
}

#[tokio::test]
async fn of_two_plugins_with_the_same_types_the_first_by_name_serves() {
    let folder = Folder::new();
    folder.put("b.wasm", &hello("b"));
    let plugins = folder.plugins().await;
    folder.put("a.wasm", &hello("a"));
    let changes = reload(&plugins).await;
    assert_eq!((changes.added, changes.failed), (vec!["a.wasm".to_owned()], vec!["b.wasm".to_owned()]));
    let (now, restarted) = (plugins.current(), folder.plugins().await.current());
    for registry in [&now, &restarted] {
        assert_eq!(code(&report(registry, "b.wasm")), codes::PLUGIN_CONFLICT);
        assert_eq!(registry.job_type("hello_world").expect("is offered").0.name, "a.wasm");
    }
}

#[tokio::test]
async fn only_what_the_lock_file_names_is_loaded() {
    let folder = Folder::new();
    folder.put("a.wasm", &hello("1"));
    let mut loader = folder.loader();
    loader.trust.locked = true;
    let missing = Plugins::load(loader.clone()).await.expect_err("there is no lock file");
    assert_eq!(missing.code, codes::PLUGIN_NOT_LOCKED);
    LockFile::of_folder(folder.0.path()).expect("hashes").write(folder.0.path()).expect("writes");
    let plugins = Plugins::load(loader).await.expect("loads");
    let first = serving(&plugins);

    // Not even parsed: what is no WebAssembly would have another code.
    folder.put("a.wasm", b"tampered");
    folder.put("x.wasm", b"unknown");
    reload(&plugins).await;
    for file in ["a.wasm", "x.wasm"] {
        let report = report(&plugins.current(), file);
        assert_eq!((code(&report), report.stage), (codes::PLUGIN_NOT_LOCKED, LoadStage::Trust));
    }
    assert_eq!(serving(&plugins), first);

    // A version that is revoked is no longer "the one before".
    folder.put("a.wasm", &hello("1"));
    folder.put("plugins.lock", b"[plugins]\n");
    assert_eq!(reload(&plugins).await.removed, ["a.wasm"]);
}

#[tokio::test]
async fn only_what_a_known_key_has_signed_is_loaded() {
    let folder = Folder::new();
    let (known, other) = (SigningKey::generate().expect("a key"), SigningKey::generate().expect("a key"));
    let keys = folder.path("keys.txt");
    std::fs::write(&keys, format!("# ours\n\n{}\n", known.public_text())).expect("writes");
    let mut loader = folder.loader();
    loader.trust.keys = Some(keys.clone());
    folder.put("a.wasm", &hello("1"));
    let signature = signature_path(&folder.path("a.wasm"));
    let outcome = async || {
        let registry = loader.load(&Registry::default()).await.expect("loads");
        code(&report(&registry, "a.wasm")).to_owned()
    };
    assert_eq!(outcome().await, codes::PLUGIN_SIGNATURE, "there is none");
    let key = SigningKey::from_text(known.secret_text()).expect("is a key");
    for (wrong, why) in [
        (other.sign(&hello("1")), "of another key"),
        (key.sign(&hello("2")), "of another content"),
        ("%".to_owned(), "no base64"),
        ("AAAA".to_owned(), "too short"),
    ] {
        std::fs::write(&signature, wrong).expect("writes");
        assert_eq!(outcome().await, codes::PLUGIN_SIGNATURE, "{why}");
    }
    std::fs::write(&signature, key.sign(&hello("1"))).expect("writes");
    assert_eq!(outcome().await, "");
    for unusable in ["", "AAAA\n"] {
        std::fs::write(&keys, unusable).expect("writes");
        let error = loader.load(&Registry::default()).await.expect_err("has no keys");
        assert_eq!(error.code, codes::PLUGIN_SIGNATURE);
    }
}

#[tokio::test]
async fn loads_at_once_compile_once() {
    let folder = Folder::new();
    folder.put("a.wasm", &hello("1"));
    let mut loader = folder.loader();
    loader.cache = ArtefactCache::default();
    let empty = Registry::default();
    let (one, two, three) = tokio::join!(loader.load(&empty), loader.load(&empty), loader.load(&empty));
    for registry in [one, two, three] {
        assert!(registry.expect("loads").job_type("hello_world").is_ok());
    }
    assert_eq!(loader.engine.compilations(), 1);
}

#[tokio::test]
async fn without_a_compiler_only_prepared_artefacts_are_loaded() {
    let (folder, prepared) = (Folder::new(), tempfile::tempdir().expect("a folder"));
    folder.put("a.wasm", &hello("1"));
    let mut loader = folder.loader();
    loader.cache =
        ArtefactCache { compile: false, prepared: Some(prepared.path().into()), ..ArtefactCache::default() };
    let outcome = async || {
        let registry = loader.load(&Registry::default()).await.expect("loads");
        code(&report(&registry, "a.wasm")).to_owned()
    };
    assert_eq!(outcome().await, codes::PLUGIN_NOT_PRECOMPILED);
    let mut compiling = folder.loader();
    compiling.cache = ArtefactCache::in_folder(prepared.path());
    compiling.load(&Registry::default()).await.expect("loads");
    assert_eq!(outcome().await, "");
    assert_eq!(loader.engine.compilations(), 0);
    // Machine code that others could have written is none.
    let writable = |mode| {
        std::fs::set_permissions(prepared.path(), std::os::unix::fs::PermissionsExt::from_mode(mode))
            .expect("sets");
    };
    writable(0o775);
    assert_eq!(outcome().await, codes::PLUGIN_NOT_PRECOMPILED);
    writable(0o755);
    assert_eq!(outcome().await, "");
}

#[tokio::test]
async fn a_changed_folder_is_reloaded_by_events_and_by_looking() {
    for mode in [WatchMode::On, WatchMode::Poll] {
        let folder = Folder::new();
        folder.put("a.wasm", &hello("1"));
        let plugins = folder.plugins().await;
        let mut generations = plugins.generations();
        let settings = WatchSettings {
            mode,
            quiet: Duration::from_millis(20),
            poll: Duration::from_millis(20),
            lookout: Duration::from_secs(3600),
            ..WatchSettings::default()
        };
        let watching = tokio::spawn(watch(plugins.clone(), settings));
        for mark in ["2", "3"] {
            folder.put("a.wasm", &hello(mark));
            let told = tokio::time::timeout(Duration::from_secs(30), generations.changed()).await;
            told.expect("reloads in time").expect("is not over");
        }
        let digest = serving(&plugins);
        assert_eq!(report(&plugins.current(), "a.wasm").digest, Some(digest));
        watching.abort();
    }
}
