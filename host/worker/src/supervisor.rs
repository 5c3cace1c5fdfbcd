//! Native operations: a child process each, admitted by what it needs, watched, and killed to cancel.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use geoworker_machine::{ErrorInfo, RetryClass, codes};
use geoworker_raster::OUTPUT_OBJECT;
use geoworker_raster::estimate::{Estimate, Plan};
use geoworker_raster::native::{GO, NativeLine, NativeRequest, Operation};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Demand, Permit, Refused, mib};
use crate::cgroup::Group;
use crate::ending::Figures;
use crate::objects::{self, Objects};
use crate::settings::WorkerSettings;
use crate::watchdog::{Usage, Watch};

/// Settings of the allocator: buffers that are freed go back to the system, since limits are on what a child holds.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "1048576")];

/// Longest line of a child; an answer is a few KB.
const MAX_LINE: u64 = 16 << 20;
/// Bytes of standard error that are kept.
const STDERR_KEPT: u64 = 64 << 10;
/// Environment that a child needs to find its libraries and their data; everything else is withheld, credentials
/// above all.
const PASSED_ON: &[&str] = &["PATH", "LD_LIBRARY_PATH", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA"];

/// How native operations are run.
#[derive(Debug, Clone)]
pub struct Native {
    program: PathBuf,
    memory_bytes: u64,
    disk_bytes: u64,
    threads: usize,
    admission: Arc<Admission>,
    /// Use control groups where this process may create them.
    groups: bool,
}

/// An operation to run.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// What to do.
    pub operation: Operation,
    /// What it reads and writes that is no file.
    pub objects: Objects,
    /// Folder for its temporary files.
    pub scratch: PathBuf,
    /// Longest time, waiting for admission included.
    pub limit: Duration,
    /// With the plan that needs least.
    pub lean: bool,
}

/// Why an operation gave no answer.
#[derive(Debug, Clone)]
pub enum NativeFailure {
    /// It failed.
    Failed(ErrorInfo),
    /// It was killed because the attempt is over.
    Cancelled,
    /// It was not begun: others did not make room for it in time. What it waited for.
    Deferred(String),
}

/// How an operation gets on.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// It runs; 0 to 1.
    Fraction(f64),
    /// It has not begun: what it waits for.
    Waiting(String),
}

impl Native {
    /// As the settings say. `admission` is shared by all operations of the process.
    #[must_use]
    pub fn new(settings: &WorkerSettings, admission: Arc<Admission>) -> Self {
        Self {
            program: settings.native_program.clone(),
            memory_bytes: settings.native_memory_bytes,
            disk_bytes: settings.native_disk_bytes,
            threads: settings.native_threads,
            admission,
            groups: true,
        }
    }

    /// Runs an operation to its end, its time limit, or `cancel`. Dropping the future kills the child too.
    ///
    /// # Errors
    /// The operation's own failure, or `MEMORY`, `DISK_FULL`, `TIMEOUT`, `NATIVE_CRASH`, `NATIVE_PROTOCOL`.
    pub async fn run(
        &self,
        assignment: Assignment,
        cancel: &CancellationToken,
        report: &mut (dyn FnMut(Report) + Send),
    ) -> Result<Value, NativeFailure> {
        let Assignment { operation, objects, scratch, limit, lean } = assignment;
        let plan = if lean { Plan::lean() } else { Plan::full(self.threads, self.memory_bytes) };
        // What goes to an object passes through scratch at most.
        let file = operation.target().filter(|target| *target != Path::new(OUTPUT_OBJECT));
        let target = file.and_then(Path::parent).map(Path::to_owned);
        let source = objects.source_facts();
        let request = NativeRequest { operation, memory_bytes: self.memory_bytes, plan, source, scratch };
        let fault = |error: std::io::Error| {
            let message = format!("the native process cannot be started: {error}");
            NativeFailure::Failed(ErrorInfo::transient(codes::NATIVE_PROTOCOL, message))
        };
        let (mut child, socket) = self.spawn().map_err(fault)?;
        let pid = child.id().unwrap_or_default();
        let mut supervised = Supervised {
            native: self,
            pid,
            disk: target.clone().unwrap_or_else(|| request.scratch.clone()),
            buffers: objects.buffer_bytes(),
            group: self.group(pid),
            usage: Usage::default(),
            disk_limit: Arc::new(AtomicU64::new(self.disk_bytes)),
            estimate: None,
            permit: None,
        };
        let watch = Watch {
            pid,
            memory_limit: self.memory_bytes,
            scratch: request.scratch.clone(),
            target,
            disk_limit: Arc::clone(&supervised.disk_limit),
            usage: supervised.usage.clone(),
        };
        let ended = tokio::select! {
            outcome = supervised.converse(&mut child, &request, socket, objects, report) => Ended::Answered(outcome),
            breach = watch.breach() => Ended::Breach(breach),
            () = cancel.cancelled() => Ended::Cancelled,
            () = tokio::time::sleep(limit) => Ended::TimedOut,
        };
        if !matches!(ended, Ended::Answered(Ok(_))) {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
        let figures = supervised.figures();
        tracing::debug!(
            memory_mib = mib(figures.memory_peak),
            memory_estimate_mib = figures.estimate.map(|estimate| mib(estimate.memory_bytes)),
            disk_estimate_mib = figures.estimate.map(|estimate| mib(estimate.disk_bytes)),
            group = supervised.group.is_some(),
            lean,
            "native operation ended"
        );
        match ended {
            Ended::Answered(outcome) => outcome,
            Ended::Breach(breach) => Err(NativeFailure::Failed(figures.breach(breach))),
            Ended::Cancelled => Err(NativeFailure::Cancelled),
            Ended::TimedOut => Err(timeout(limit)),
        }
    }

    /// Starts the child. Its standard input is a socket: requests go down, and questions for its object come up.
    fn spawn(&self) -> std::io::Result<(Child, UnixStream)> {
        let (own, childs) = Socket::pair()?;
        own.set_nonblocking(true)?;
        let mut command = Command::new(&self.program);
        command.arg("native-op").env_clear().env("PROJ_NETWORK", "OFF").kill_on_drop(true);
        command.envs(ALLOCATOR);
        command.stdin(OwnedFd::from(childs)).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        Ok((command.spawn()?, UnixStream::from_std(own)?))
    }

    /// The child's own group, where this process may create one. The child has not been told anything yet.
    fn group(&self, pid: u32) -> Option<Group> {
        static SAID: Once = Once::new();
        if !self.groups || self.memory_bytes == 0 {
            return None;
        }
        let made = Group::create(self.memory_bytes).and_then(|group| group.add(pid).map(|()| group));
        made.inspect_err(|error| {
            SAID.call_once(|| {
                tracing::debug!(%error, "no control groups here: memory is limited by rlimit and watched");
            });
        })
        .ok()
    }
}

/// How the supervision of a child ended.
enum Ended {
    Answered(Result<Value, NativeFailure>),
    Breach(crate::watchdog::Breach),
    Cancelled,
    TimedOut,
}

/// A child, what it may use and what is known of it.
struct Supervised<'a> {
    native: &'a Native,
    pid: u32,
    /// Folder on the disk that fills: the output's, or scratch.
    disk: PathBuf,
    /// Memory that this process takes for it.
    buffers: u64,
    group: Option<Group>,
    usage: Usage,
    disk_limit: Arc<AtomicU64>,
    estimate: Option<Estimate>,
    permit: Option<Permit>,
}

impl Supervised<'_> {
    fn figures(&self) -> Figures {
        Figures {
            memory_limit: self.native.memory_bytes,
            memory_peak: self.usage.memory_peak(),
            disk_limit: self.disk_limit.load(Ordering::Relaxed),
            disk_used: self.usage.disk(),
            estimate: self.estimate,
            oom_kills: self.group.as_ref().map_or(0, Group::oom_kills),
        }
    }

    async fn converse(
        &mut self,
        child: &mut Child,
        request: &NativeRequest,
        socket: UnixStream,
        objects: Objects,
        report: &mut (dyn FnMut(Report) + Send),
    ) -> Result<Value, NativeFailure> {
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(broken("has no pipes"));
        };
        let mut text = serde_json::to_vec(request).map_err(|error| broken(&error.to_string()))?;
        text.push(b'\n');
        let (questions, mut down) = socket.into_split();
        // A child that is gone shows below, by its status.
        let _ = down.write_all(&text).await;
        let down = Arc::new(Mutex::new(down));
        let complaints = tokio::spawn(read_end(stderr));
        // Ends with this conversation.
        let mut helper = JoinSet::new();
        helper.spawn(objects::answer(objects, questions, Arc::clone(&down)));
        let answer = self.read_answer(down, stdout, report).await?;
        let status = child.wait().await.map_err(|error| broken(&error.to_string()))?;
        let complaints = complaints.await.unwrap_or_default();
        match answer {
            Some(NativeLine::Done(value)) => {
                if !complaints.is_empty() {
                    tracing::debug!(complaints, "a native process complained");
                }
                Ok(value)
            }
            Some(NativeLine::Failed(error)) => {
                Err(NativeFailure::Failed(self.figures().complete(ErrorInfo {
                    class: RetryClass::from_name(&error.class),
                    code: error.code,
                    message: error.message,
                    hint: None,
                })))
            }
            _ => Err(NativeFailure::Failed(self.figures().explain(status, &complaints))),
        }
    }

    /// Reads lines up to the answer, and lets the child begin when there is room for it.
    async fn read_answer(
        &mut self,
        down: Arc<Mutex<OwnedWriteHalf>>,
        stdout: impl AsyncRead + Unpin,
        report: &mut (dyn FnMut(Report) + Send),
    ) -> Result<Option<NativeLine>, NativeFailure> {
        let mut down = Some(down);
        let mut lines = BufReader::new(stdout).take(MAX_LINE).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            match serde_json::from_str(&line) {
                Ok(NativeLine::Needs(estimate)) => {
                    self.admit(estimate, report).await?;
                    // Taken: once is enough.
                    if let Some(down) = down.take() {
                        // A child that is gone shows by its status.
                        let _ = down.lock().await.write_all(format!("{GO}\n").as_bytes()).await;
                    }
                }
                Ok(NativeLine::Progress(fraction)) => report(Report::Fraction(fraction)),
                Ok(answer) => return Ok(Some(answer)),
                // Something else wrote to the pipe; the answer may still come.
                Err(_) => {}
            }
        }
        Ok(None)
    }

    /// Waits for a permit and sets the limits that follow from it.
    async fn admit(
        &mut self,
        estimate: Estimate,
        report: &mut (dyn FnMut(Report) + Send),
    ) -> Result<(), NativeFailure> {
        self.estimate = Some(estimate);
        self.check_limits(estimate)?;
        let memory_bytes = estimate.memory_bytes.saturating_add(self.buffers);
        let folder = (estimate.disk_bytes > 0).then(|| self.disk.clone());
        let demand =
            Demand { estimate: Estimate { memory_bytes, ..estimate }, folder, usage: self.usage.clone() };
        let mut waiting = |reason: &str| report(Report::Waiting(reason.to_owned()));
        let permit =
            self.native.admission.admit(demand, &mut waiting).await.map_err(|refused| match refused {
                Refused::TooLarge(error) => NativeFailure::Failed(error),
                Refused::Waited(reason) => NativeFailure::Deferred(reason),
            })?;
        let budgets = [permit.disk_budget.unwrap_or(0), self.native.disk_bytes];
        self.permit = Some(permit);
        if let Some(limit) = budgets.into_iter().filter(|bytes| *bytes > 0).min() {
            self.disk_limit.store(limit, Ordering::Relaxed);
            self.limit_files(limit);
        }
        Ok(())
    }

    /// An operation that would exceed its own limits is not begun.
    fn check_limits(&self, estimate: Estimate) -> Result<(), NativeFailure> {
        let (memory, disk) = (self.native.memory_bytes, self.native.disk_bytes);
        let (code, what, needed, limit) = if memory > 0 && estimate.memory_bytes > memory {
            (codes::MEMORY, "memory", estimate.memory_bytes, memory)
        } else if disk > 0 && estimate.disk_bytes > disk {
            (codes::DISK_FULL, "disk", estimate.disk_bytes, disk)
        } else {
            return Ok(());
        };
        let message = format!(
            "the operation needs about {} MiB of {what} and may have {} MiB; it was not begun",
            mib(needed),
            mib(limit)
        );
        Err(NativeFailure::Failed(ErrorInfo::new(code, RetryClass::Resource, message)))
    }

    /// No file of the child may be larger than its budget.
    fn limit_files(&self, bytes: u64) {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return };
        let limit = Rlimit { current: Some(bytes), maximum: Some(bytes) };
        if let Err(error) = prlimit(Some(pid), Resource::Fsize, limit) {
            // The watchdog remains.
            tracing::debug!(%error, "the size of a native process's files is not limited");
        }
    }
}

fn broken(what: &str) -> NativeFailure {
    NativeFailure::Failed(ErrorInfo::transient(codes::NATIVE_PROTOCOL, format!("the native process {what}")))
}

fn timeout(limit: Duration) -> NativeFailure {
    let message = format!("the operation took longer than {} s and was killed", limit.as_secs());
    NativeFailure::Failed(ErrorInfo::transient(codes::TIMEOUT, message))
}

async fn read_end(stderr: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    // What cannot be read cannot explain anything; the status remains.
    let _ = stderr.take(STDERR_KEPT).read_to_end(&mut kept).await;
    String::from_utf8_lossy(&kept).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    /// A stand-in for the native process that misbehaves as told; 1 GiB of memory, no groups.
    fn native(folder: &Path, script: &str) -> Native {
        let program = folder.join("child");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("writes");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("marks");
        let settings = WorkerSettings {
            native_program: program,
            native_memory_bytes: 1 << 30,
            native_threads: 1,
            ..WorkerSettings::default()
        };
        Native { groups: false, ..Native::new(&settings, Arc::new(Admission::new(4 << 30))) }
    }

    /// One at a time: a program cannot be started while another thread's fork still holds it open for writing.
    static ONE: Mutex<()> = Mutex::const_new(());

    /// Runs a stand-in that was changed by `set`, with a target in a folder of its own: `$OUT` in the script.
    async fn outcome_with(
        script: &str,
        limit: Duration,
        cancel: &CancellationToken,
        set: impl FnOnce(&mut Native),
    ) -> Result<Value, NativeFailure> {
        let _one = ONE.lock().await;
        let folder = tempfile::tempdir().expect("a folder");
        let (scratch, out) = (folder.path().join("scratch"), folder.path().join("out"));
        std::fs::create_dir(&scratch).expect("creates");
        std::fs::create_dir(&out).expect("creates");
        let operation =
            Operation::Preview { source: PathBuf::from("x"), target: out.join("blob"), max_edge: 16 };
        let mut native = native(folder.path(), &format!("OUT={}\n{script}", out.display()));
        set(&mut native);
        let assignment = Assignment { operation, objects: Objects::default(), scratch, limit, lean: false };
        native.run(assignment, cancel, &mut |_| {}).await
    }

    async fn failure_with(script: &str, set: impl FnOnce(&mut Native)) -> ErrorInfo {
        let cancel = CancellationToken::new();
        match outcome_with(script, Duration::from_secs(60), &cancel, set).await {
            Err(NativeFailure::Failed(info)) => info,
            other => panic!("{other:?}"),
        }
    }

    async fn code(script: &str) -> String {
        failure_with(script, |_| {}).await.code
    }

    /// A line that asks for memory and disk, and the wait for permission.
    fn needs(memory: u64, disk: u64) -> String {
        format!(
            "read request; echo '{{\"needs\":{{\"memory_bytes\":{},\"disk_bytes\":{}}}}}'; read go; [ \"$go\" = go ] || exit 7",
            memory * MIB,
            disk * MIB
        )
    }

    /// B3: however a child ends, the cause is known.
    #[tokio::test]
    async fn every_end_has_its_code() {
        assert_eq!(code("kill -SEGV $$").await, codes::NATIVE_CRASH);
        assert_eq!(code("echo 'std::bad_alloc' >&2; kill -ABRT $$").await, codes::MEMORY);
        assert_eq!(code("exit 3").await, codes::NATIVE_PROTOCOL);
        assert_eq!(code("echo nonsense").await, codes::NATIVE_PROTOCOL);
        let failed = r#"echo '{"failed":{"code":"FILE_EMPTY","message":"m","class":"permanent"}}'"#;
        assert_eq!(code(failed).await, codes::FILE_EMPTY);
    }

    #[tokio::test]
    async fn a_segmentation_fault_names_its_signal() {
        let failure = failure_with("kill -SEGV $$", |_| {}).await;
        assert!(failure.message.contains("signal 11"), "{}", failure.message);
        assert_eq!(failure.class, RetryClass::Transient);
    }

    #[tokio::test]
    async fn a_kill_from_outside_is_no_want_of_memory() {
        let failure = failure_with("kill -KILL $$", |_| {}).await;
        assert_eq!((failure.code.as_str(), failure.class), (codes::NATIVE_CRASH, RetryClass::Transient));
        assert!(failure.message.contains("signal 9 from outside"), "{}", failure.message);
    }

    /// `tail` keeps what may become the last line: it grows until somebody ends it.
    const HUNGRY: &str = "exec tail /dev/zero";

    #[tokio::test]
    async fn the_watchdog_kills_what_uses_too_much_memory() {
        let script = format!("{}; {HUNGRY}", needs(20, 0));
        let failure = failure_with(&script, |native| native.memory_bytes = 100 * MIB).await;
        assert_eq!((failure.code.as_str(), failure.class), (codes::MEMORY, RetryClass::Resource));
        assert!(failure.message.contains("limit 100 MiB, peak "), "{}", failure.message);
        assert!(failure.message.contains("estimate 20 MiB"), "{}", failure.message);
        let peak = failure.message.split("peak ").nth(1).and_then(|rest| rest.split(' ').next());
        let peak: u64 = peak.and_then(|peak| peak.parse().ok()).expect("a peak in MiB");
        assert!(peak > 100, "{}", failure.message);
    }

    /// Says so past the test runner, which keeps what passing tests print.
    fn skipped(why: &str) {
        use std::io::Write;
        // A test without standard error is skipped in silence.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
    }

    /// The kernel keeps the limit where a group can be made; the watchdog's own limit is out of the way here.
    #[tokio::test]
    async fn a_control_group_kills_what_uses_too_much_memory() {
        if let Err(error) = Group::create(100 * MIB) {
            skipped(&format!("no control group can be made here: {error}"));
            return;
        }
        let group = Group::create(100 * MIB).expect("a group");
        let mut child = Command::new("sh")
            .args(["-c", &format!("read go; {HUNGRY}")])
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        group.add(child.id().expect("runs")).expect("moves");
        child.stdin.take().expect("a pipe").write_all(b"go\n").await.expect("writes");
        let status =
            tokio::time::timeout(Duration::from_secs(60), child.wait()).await.expect("is killed in time");
        let figures = Figures { memory_limit: 100 * MIB, oom_kills: group.oom_kills(), ..Figures::default() };
        assert!(figures.oom_kills > 0, "{status:?}");
        assert_eq!(figures.explain(status.expect("is known"), "").code, codes::MEMORY);
    }

    #[tokio::test]
    async fn a_child_runs_in_a_group_of_its_own_that_goes_with_it() {
        if let Err(error) = Group::create(100 * MIB) {
            skipped(&format!("no control group can be made here: {error}"));
            return;
        }
        let script = format!(
            "{}; printf '{{\"done\":\"%s\"}}\\n' \"$(grep geoworker- /proc/self/cgroup)\"",
            needs(1, 0)
        );
        let cancel = CancellationToken::new();
        let answer =
            outcome_with(&script, Duration::from_secs(60), &cancel, |native| native.groups = true).await;
        let answer = answer.expect("answers");
        let own = format!("geoworker-{}-", std::process::id());
        let name = answer.as_str().and_then(|line| line.rsplit('/').next()).expect("a group").to_owned();
        assert!(name.starts_with(&own), "{name}");
        let again = Group::create(100 * MIB).expect("another");
        assert!(!again.beside(&name).exists(), "the group of an operation that ended is removed");
    }

    #[tokio::test]
    async fn more_disk_than_budgeted_is_killed() {
        let script = format!(
            "{}; n=0; while :; do n=$((n+1)); head -c 4194304 /dev/zero >$OUT/part$n; done",
            needs(1, 8)
        );
        let failure = failure_with(&script, |native| native.disk_bytes = 16 * MIB).await;
        assert_eq!((failure.code.as_str(), failure.class), (codes::DISK_FULL, RetryClass::Resource));
        assert!(failure.message.contains("budget 16 MiB, estimate 8 MiB"), "{}", failure.message);
    }

    #[tokio::test]
    async fn a_file_larger_than_the_budget_cannot_be_written() {
        let script = format!("{}; exec dd if=/dev/zero of=$OUT/blob bs=1M count=64 conv=fsync", needs(1, 8));
        let failure = failure_with(&script, |native| native.disk_bytes = 16 * MIB).await;
        assert_eq!(failure.code, codes::DISK_FULL, "{}", failure.message);
    }

    #[tokio::test]
    async fn what_needs_more_than_its_own_limits_is_not_begun() {
        for (script, code) in [(needs(200, 0), codes::MEMORY), (needs(1, 200), codes::DISK_FULL)] {
            let script = format!("{script}; kill -SEGV $$");
            let set = |native: &mut Native| {
                native.memory_bytes = 100 * MIB;
                native.disk_bytes = 100 * MIB;
            };
            let failure = failure_with(&script, set).await;
            assert_eq!((failure.code.as_str(), failure.class), (code, RetryClass::Resource));
            assert!(failure.message.contains("200 MiB") && failure.message.contains("100 MiB"));
        }
    }

    /// The permit is held while the child runs, however it ends, and a child that waits for one can be cancelled.
    #[tokio::test]
    async fn operations_wait_for_each_other_and_let_go_when_they_end() {
        let admission = Arc::new(Admission::new(100 * MIB));
        let cancel = CancellationToken::new();
        let folder = tempfile::tempdir().expect("a folder");
        let one = ONE.lock().await;
        let script = format!("{}; touch {}/begun; exec sleep 600", needs(80, 0), folder.path().display());
        let native = Native { admission: Arc::clone(&admission), ..native(folder.path(), &script) };
        let reports = Arc::new(std::sync::Mutex::new(Vec::new()));
        let run = |cancel: CancellationToken| {
            let (native, reports, scratch) = (native.clone(), Arc::clone(&reports), folder.path().to_owned());
            tokio::spawn(async move {
                let operation = Operation::ValidateCog { source: PathBuf::from("x") };
                let mut note = |report: Report| reports.lock().expect("is whole").push(report);
                let limit = Duration::from_secs(60);
                let assignment =
                    Assignment { operation, objects: Objects::default(), scratch, limit, lean: false };
                native.run(assignment, &cancel, &mut note).await
            })
        };
        let first = run(cancel.clone());
        poll_until(|| folder.path().join("begun").exists()).await;
        let second = run(cancel.clone());
        poll_until(|| !reports.lock().expect("is whole").is_empty()).await;
        drop(one);
        let waiting = "waiting for 80 MiB of memory; 80 of 100 MiB are in use by 1 operation";
        assert_eq!(*reports.lock().expect("is whole"), [Report::Waiting(waiting.into())]);
        cancel.cancel();
        for run in [first, second] {
            let outcome = tokio::time::timeout(Duration::from_secs(20), run).await.expect("ends");
            assert!(matches!(outcome, Ok(Err(NativeFailure::Cancelled))));
        }
        let whole = Demand {
            estimate: Estimate { memory_bytes: 100 * MIB, disk_bytes: 0 },
            folder: None,
            usage: Usage::default(),
        };
        let mut never = |reason: &str| panic!("{reason}");
        admission.admit(whole, &mut never).await.expect("everything was given back");
    }

    /// Polls for at most 20 s.
    async fn poll_until(mut condition: impl FnMut() -> bool) {
        for _ in 0..2000 {
            if condition() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it did not happen in time");
    }

    /// The environment of this test holds more than a child may see.
    #[tokio::test]
    async fn the_environment_is_withheld() {
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "the canary is set");
        let script = r#"printf '{"done":"%s"}\n' "$(env | cut -d= -f1 | tr '\n' ' ')""#;
        let cancel = CancellationToken::new();
        let names = outcome_with(script, Duration::from_secs(20), &cancel, |_| {}).await.expect("answers");
        // The shell adds some of its own.
        let known = ["PROJ_NETWORK", "PWD", "OLDPWD", "SHLVL", "_", "OUT"];
        for name in names.as_str().expect("names").split_whitespace() {
            let ours = ALLOCATOR.iter().any(|(known, _)| *known == name);
            assert!(ours || PASSED_ON.contains(&name) || known.contains(&name), "{name} was passed on");
        }
    }

    #[tokio::test]
    async fn a_hang_is_killed_and_a_cancel_is_no_failure() {
        let cancel = CancellationToken::new();
        let outcome = |limit| outcome_with("exec sleep 600", limit, &cancel, |_| {});
        let hung = outcome(Duration::from_millis(200)).await;
        assert!(matches!(hung, Err(NativeFailure::Failed(info)) if info.code == codes::TIMEOUT));
        cancel.cancel();
        let cancelled = outcome(Duration::from_secs(600)).await;
        assert!(matches!(cancelled, Err(NativeFailure::Cancelled)));
    }

    #[tokio::test]
    async fn progress_and_answer_are_told_apart() {
        let cancel = CancellationToken::new();
        let script =
            format!(r#"{}; echo '{{"progress":0.5}}'; echo '{{"done":{{"valid":true}}}}'"#, needs(1, 1));
        let answer = outcome_with(&script, Duration::from_secs(20), &cancel, |_| {}).await.expect("answers");
        assert_eq!(answer["valid"], true);
    }
}
