//! Confinement of a native process: it sees its source, its libraries and their data, and writes its own folders.
//!
//! GDAL decodes what strangers uploaded. Whoever takes it over finds a process that can open nothing else, start no
//! program, and reach no network by TCP; its environment holds no credentials.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use geoworker_raster::native::NativeRequest;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// The rules ask for what this version knows; an older kernel enforces what it has of it.
const WANTED: ABI = ABI::V10;
/// Libraries and their data, and what the C library and GDAL look up about the machine. Read only.
const SYSTEM: &[&str] = &[
    "/usr",
    "/lib",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/proc/self",
    "/proc/meminfo",
    "/proc/cpuinfo",
    "/sys/devices/system/cpu",
    "/dev/urandom",
];
/// Variables that name folders of libraries or their data, separated by colons.
const FOLDERS: &[&str] = &["LD_LIBRARY_PATH", "GDAL_DATA", "PROJ_DATA", "PROJ_LIB"];
/// Sink that libraries may open.
const NULL: &str = "/dev/null";

/// Confines this thread, and every thread and process that it starts, to what a request names. False where this
/// kernel has no Landlock. Nothing that a user supplied may have been opened before.
///
/// # Errors
/// Where the kernel offers Landlock and refuses the rules.
pub(crate) fn confine(request: &NativeRequest) -> io::Result<bool> {
    let variables = FOLDERS.iter().filter_map(std::env::var_os);
    let mut readable: Vec<PathBuf> =
        SYSTEM.iter().map(PathBuf::from).chain(variables.flat_map(folders)).collect();
    readable.push(request.operation.source().to_owned());
    let target = request.operation.target().and_then(Path::parent);
    let writable: Vec<&Path> = [Some(request.scratch.as_path()), target].into_iter().flatten().collect();
    let status = restrict(&readable, &writable).map_err(io::Error::other)?;
    Ok(status != RulesetStatus::NotEnforced)
}

/// The folders in the value of a variable. The root is none: it would open everything.
fn folders(value: OsString) -> Vec<PathBuf> {
    std::env::split_paths(&value).filter(|path| path.is_absolute() && path.parent().is_some()).collect()
}

/// What does not exist is left out: it cannot be opened either.
fn restrict(readable: &[PathBuf], writable: &[&Path]) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    let sink: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::WriteFile;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(Scope::from_all(WANTED))?
        .create()?
        .add_rules(path_beneath_rules(readable, read))?
        .add_rules(path_beneath_rules(writable, write))?
        .add_rules(path_beneath_rules([NULL], sink))?
        .restrict_self()?;
    Ok(status.ruleset)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    use geoworker_raster::estimate::Plan;
    use geoworker_raster::native::Operation;

    use super::*;

    /// Variables by which the test tells its helper process what to try.
    const FOLDER: &str = "GEOWORKER_TEST_FOLDER";
    const PORT: &str = "GEOWORKER_TEST_PORT";
    const CONFINED: &str = "GEOWORKER_TEST_CONFINED";

    fn request(folder: &Path) -> NativeRequest {
        NativeRequest {
            operation: Operation::Preview {
                source: folder.join("in/source"),
                target: folder.join("out/blob"),
                max_edge: 16,
            },
            memory_bytes: 0,
            plan: Plan::lean(),
            source: None,
            scratch: folder.join("scratch"),
        }
    }

    /// Says so past the test runner, which keeps what passing tests print.
    fn skipped(why: &str) {
        use std::io::Write;
        // A test without standard error is skipped in silence.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    }

    /// What the helper process tries, and whether it may.
    fn attempts(folder: &Path, port: u16) -> Vec<(&'static str, bool, io::Result<()>)> {
        let create = |name: &str| File::create(folder.join(name)).map(drop);
        let open = |name: &str| File::open(folder.join(name)).map(drop);
        vec![
            ("read the source", true, open("in/source")),
            ("write scratch", true, create("scratch/x")),
            ("write the output", true, create("out/blob")),
            ("remove a temporary file", true, std::fs::remove_file(folder.join("scratch/x"))),
            ("read the libraries", true, std::fs::read_dir("/usr/lib").map(drop)),
            ("read its own status", true, File::open("/proc/self/status").map(drop)),
            ("write the sink", true, File::create(NULL).map(drop)),
            ("read the canary", false, open("canary")),
            ("read beside the source", false, open("in/neighbour")),
            ("list the source's folder", false, std::fs::read_dir(folder.join("in")).map(drop)),
            ("write the source", false, File::options().write(true).open(folder.join("in/source")).map(drop)),
            ("write beside the folders", false, create("new")),
            ("read the accounts", false, File::open("/etc/passwd").map(drop)),
            ("read another process", false, File::open("/proc/1/status").map(drop)),
            ("start a program", false, Command::new("/bin/true").status().map(drop)),
            ("connect by TCP", false, TcpStream::connect(("127.0.0.1", port)).map(drop)),
            ("listen by TCP", false, TcpListener::bind("127.0.0.1:0").map(drop)),
        ]
    }

    /// Not a test of its own: [`a_confined_process_reaches_nothing_else`] runs it in a process of its own.
    #[test]
    #[ignore = "helper process of another test"]
    fn helper() {
        let folder = PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
        let port = std::env::var(PORT).ok().and_then(|port| port.parse().ok()).expect("a port");
        let confined = std::env::var_os(CONFINED).is_some();
        if confined {
            assert!(confine(&request(&folder)).expect("the kernel takes the rules"), "NO LANDLOCK");
        }
        for (what, allowed, outcome) in attempts(&folder, port) {
            let expected = allowed || !confined;
            assert_eq!(outcome.is_ok(), expected, "{what}: {outcome:?}");
        }
    }

    /// B3. The helper tries the same without confinement, so that a refusal has no other cause.
    #[test]
    fn a_confined_process_reaches_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["in", "out", "scratch"] {
            std::fs::create_dir(folder.path().join(name)).expect("creates");
        }
        for name in ["in/source", "in/neighbour", "canary"] {
            std::fs::write(folder.path().join(name), "content").expect("writes");
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let port = listener.local_addr().expect("an address").port();
        let run = |confined: bool| {
            let mut command = Command::new(std::env::current_exe().expect("a program"));
            command.args(["--exact", "confine::tests::helper", "--ignored", "--nocapture"]);
            command.env(FOLDER, folder.path()).env(PORT, port.to_string());
            if confined {
                command.env(CONFINED, "1");
            }
            command.output().expect("runs")
        };
        let text = |output: &std::process::Output| {
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        let free = run(false);
        assert!(free.status.success() && text(&free).contains("1 passed"), "{}", text(&free));
        let confined = run(true);
        if text(&confined).contains("NO LANDLOCK") {
            skipped("this kernel has no Landlock");
            return;
        }
        assert!(confined.status.success() && text(&confined).contains("1 passed"), "{}", text(&confined));
    }

    #[test]
    fn variables_name_folders_and_never_the_root() {
        assert_eq!(folders("/a:/:relative::/b/c".into()), [Path::new("/a"), Path::new("/b/c")]);
    }
}
