//! A private PostgreSQL server for tests: a cluster in a temporary folder, reached through a Unix socket in it, gone with
//! the value.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot have its server fails")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Role and database of the cluster.
pub const NAME: &str = "postgres";

/// A running server.
#[derive(Debug)]
pub struct PrivatePostgres {
    folder: TempDir,
    programs: PathBuf,
}

impl PrivatePostgres {
    /// Makes a cluster and starts its server. Takes about a second.
    ///
    /// # Panics
    /// Where PostgreSQL is not installed or does not start; the message says what it printed.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let server = Self { folder, programs: programs() };
        std::fs::set_permissions(server.folder.path(), std::fs::Permissions::from_mode(0o777))
            .expect("opens the folder for the server's user");
        let data = server.data();
        server.run("initdb", &["--auth=trust", "--username", NAME, "--no-sync", "-D", &data]);
        let options = format!("-k {} -c listen_addresses= -c fsync=off", server.host());
        let log = server.folder.path().join("log").to_string_lossy().into_owned();
        server.run("pg_ctl", &["start", "--wait", "-D", &data, "-l", &log, "-o", &options]);
        server
    }

    /// Folder of the socket: what clients take for a host.
    #[must_use]
    pub fn host(&self) -> String {
        self.folder.path().to_string_lossy().into_owned()
    }

    /// Has one role show its password from the next reload of the configuration on; the others are trusted as before.
    ///
    /// # Panics
    /// Where the cluster's file of rules cannot be written.
    pub fn ask_for_passwords(&self, role: &str) {
        let rules = format!("local all {role} scram-sha-256\nlocal all all trust\n");
        std::fs::write(format!("{}/pg_hba.conf", self.data()), rules).expect("writes the rules");
    }

    /// Stops the server without waiting for anybody and starts it again, as after a crash.
    ///
    /// # Panics
    /// Where it does not start again.
    pub fn crash(&self) {
        let data = self.data();
        self.run("pg_ctl", &["restart", "--wait", "--mode=immediate", "-D", &data]);
    }

    fn data(&self) -> String {
        self.folder.path().join("data").to_string_lossy().into_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.output(program, arguments);
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The server refuses to run as root; as root its own user runs it.
    fn output(&self, program: &str, arguments: &[&str]) -> Output {
        let path = self.programs.join(program);
        let mut command = if rustix::process::getuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(&path);
            command
        } else {
            Command::new(&path)
        };
        // What the server inherits must not be a pipe that somebody waits on.
        command.args(arguments).current_dir("/").stdin(std::process::Stdio::null());
        if program == "pg_ctl" {
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        }
        command.output().unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        let data = self.data();
        // Where it cannot be stopped there is nobody left to tell.
        let _ = self.output("pg_ctl", &["stop", "--mode=immediate", "-D", &data]);
    }
}

/// Folder of the newest server's programs, as Debian lays them out; elsewhere they are on the path.
fn programs() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_string_lossy().parse().ok()?;
            let folder = entry.path().join("bin");
            folder.join("initdb").exists().then_some((version, folder))
        })
        .collect();
    versions.sort();
    versions.pop().map_or_else(|| Path::new("").to_owned(), |(_, folder)| folder)
}
