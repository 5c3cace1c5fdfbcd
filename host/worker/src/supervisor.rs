//! Native operations: a child process each, with memory and time limits, killed to cancel.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use geoworker_machine::{ErrorInfo, RetryClass, codes};
use geoworker_raster::native::{NativeLine, NativeRequest, Operation};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::settings::WorkerSettings;

/// Longest line of a child; an answer is a few KB.
const MAX_LINE: u64 = 16 << 20;
/// Bytes of standard error that are kept.
const STDERR_KEPT: u64 = 64 << 10;
/// Environment that a child needs to find its libraries and their data; everything else is withheld.
const PASSED_ON: &[&str] = &["PATH", "LD_LIBRARY_PATH", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA"];

/// How native operations are run.
#[derive(Debug, Clone)]
pub struct Native {
    program: PathBuf,
    memory_bytes: u64,
    threads: usize,
}

/// Why an operation gave no answer.
#[derive(Debug, Clone)]
pub enum NativeFailure {
    /// It failed.
    Failed(ErrorInfo),
    /// It was killed because the attempt is over.
    Cancelled,
}

impl Native {
    /// As the settings say.
    #[must_use]
    pub fn new(settings: &WorkerSettings) -> Self {
        Self {
            program: settings.native_program.clone(),
            memory_bytes: settings.native_memory_bytes,
            threads: settings.native_threads,
        }
    }

    /// Runs an operation to its end, its time limit, or `cancel`. Dropping the future kills the child too.
    ///
    /// # Errors
    /// The operation's own failure, or `MEMORY`, `TIMEOUT`, `NATIVE_CRASH`, `NATIVE_PROTOCOL`.
    pub async fn run(
        &self,
        operation: Operation,
        scratch: PathBuf,
        limit: Duration,
        cancel: &CancellationToken,
        progress: &mut (dyn FnMut(f64) + Send),
    ) -> Result<Value, NativeFailure> {
        let request =
            NativeRequest { operation, memory_bytes: self.memory_bytes, threads: self.threads, scratch };
        let fault = |error: std::io::Error| {
            let message = format!("the native process cannot be started: {error}");
            NativeFailure::Failed(ErrorInfo::transient(codes::NATIVE_PROTOCOL, message))
        };
        let mut child = self.spawn().map_err(fault)?;
        let outcome = tokio::select! {
            outcome = converse(&mut child, &request, progress) => outcome,
            () = cancel.cancelled() => Err(NativeFailure::Cancelled),
            () = tokio::time::sleep(limit) => Err(timeout(limit)),
        };
        if outcome.is_err() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
        outcome
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg("native-op").env_clear().kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.spawn()
    }
}

fn timeout(limit: Duration) -> NativeFailure {
    let message = format!("the operation took longer than {} s and was killed", limit.as_secs());
    NativeFailure::Failed(ErrorInfo::transient(codes::TIMEOUT, message))
}

async fn converse(
    child: &mut Child,
    request: &NativeRequest,
    progress: &mut (dyn FnMut(f64) + Send),
) -> Result<Value, NativeFailure> {
    let broken = |what: &str| {
        NativeFailure::Failed(ErrorInfo::transient(
            codes::NATIVE_PROTOCOL,
            format!("the native process {what}"),
        ))
    };
    let (Some(mut stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(broken("has no pipes"));
    };
    let text = serde_json::to_vec(request).map_err(|error| broken(&error.to_string()))?;
    // A child that is gone shows below, by its status.
    let _ = stdin.write_all(&text).await;
    drop(stdin);
    let complaints = tokio::spawn(read_end(stderr));
    let answer = read_answer(stdout, progress).await;
    let status = child.wait().await.map_err(|error| broken(&error.to_string()))?;
    let complaints = complaints.await.unwrap_or_default();
    match answer {
        Some(NativeLine::Done(value)) => Ok(value),
        Some(NativeLine::Failed(error)) => Err(NativeFailure::Failed(ErrorInfo {
            class: RetryClass::from_name(&error.class),
            code: error.code,
            message: error.message,
            hint: None,
        })),
        _ => Err(NativeFailure::Failed(explain(status, &complaints, request.memory_bytes))),
    }
}

/// Reads lines up to the answer.
async fn read_answer(
    stdout: impl AsyncRead + Unpin,
    progress: &mut (dyn FnMut(f64) + Send),
) -> Option<NativeLine> {
    let mut lines = BufReader::new(stdout).take(MAX_LINE).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(NativeLine::Progress(fraction)) => progress(fraction),
            Ok(answer) => return Some(answer),
            // Something else wrote to the pipe; the answer may still come.
            Err(_) => {}
        }
    }
    None
}

async fn read_end(stderr: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    // What cannot be read cannot explain anything; the status remains.
    let _ = stderr.take(STDERR_KEPT).read_to_end(&mut kept).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// Why a child ended without an answer.
fn explain(status: ExitStatus, complaints: &str, memory_bytes: u64) -> ErrorInfo {
    use std::os::unix::process::ExitStatusExt;
    const SIGKILL: i32 = 9;
    let starved = ["memory allocation of", "bad_alloc", "out of memory", "Cannot allocate memory"];
    let memory = starved.iter().any(|words| complaints.contains(words));
    let mib = memory_bytes >> 20;
    if memory || status.signal() == Some(SIGKILL) {
        let message = format!("the operation ran out of memory; its limit is {mib} MiB");
        return ErrorInfo::new(codes::MEMORY, RetryClass::Resource, message);
    }
    match status.signal() {
        Some(signal) => {
            let message = format!("the native process ended by signal {signal}");
            ErrorInfo::transient(codes::NATIVE_CRASH, message)
        }
        None => {
            tracing::warn!(%status, complaints, "a native process ended without an answer");
            ErrorInfo::transient(
                codes::NATIVE_PROTOCOL,
                format!("the native process ended without an answer ({status})"),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A stand-in for the native process that misbehaves as told.
    fn native(folder: &std::path::Path, script: &str) -> Native {
        let program = folder.join("child");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("writes");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("marks");
        Native { program, memory_bytes: 1 << 30, threads: 1 }
    }

    /// One at a time: a program cannot be started while another thread's fork still holds it open for writing.
    static ONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    async fn outcome(
        script: &str,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Value, NativeFailure> {
        let _one = ONE.lock().await;
        let folder = tempfile::tempdir().expect("a folder");
        let operation = Operation::ValidateCog { source: PathBuf::from("x") };
        let native = native(folder.path(), script);
        native.run(operation, folder.path().to_owned(), limit, cancel, &mut |_| {}).await
    }

    async fn code(script: &str) -> String {
        let cancel = CancellationToken::new();
        match outcome(script, Duration::from_secs(20), &cancel).await {
            Err(NativeFailure::Failed(info)) => info.code,
            other => format!("{other:?}"),
        }
    }

    /// B3: however a child ends, the cause is known.
    #[tokio::test]
    async fn every_end_has_its_code() {
        assert_eq!(code("kill -SEGV $$").await, codes::NATIVE_CRASH);
        assert_eq!(code("kill -KILL $$").await, codes::MEMORY);
        assert_eq!(code("echo 'std::bad_alloc' >&2; kill -ABRT $$").await, codes::MEMORY);
        assert_eq!(code("exit 3").await, codes::NATIVE_PROTOCOL);
        assert_eq!(code("echo nonsense").await, codes::NATIVE_PROTOCOL);
        let failed = r#"echo '{"failed":{"code":"FILE_EMPTY","message":"m","class":"permanent"}}'"#;
        assert_eq!(code(failed).await, codes::FILE_EMPTY);
    }

    #[tokio::test]
    async fn a_hang_is_killed_and_a_cancel_is_no_failure() {
        let cancel = CancellationToken::new();
        let hung = outcome("exec sleep 600", Duration::from_millis(200), &cancel).await;
        assert!(matches!(hung, Err(NativeFailure::Failed(info)) if info.code == codes::TIMEOUT));
        cancel.cancel();
        let cancelled = outcome("exec sleep 600", Duration::from_secs(600), &cancel).await;
        assert!(matches!(cancelled, Err(NativeFailure::Cancelled)));
    }

    #[tokio::test]
    async fn progress_and_answer_are_told_apart() {
        let cancel = CancellationToken::new();
        let script = r#"cat >/dev/null; echo '{"progress":0.5}'; echo '{"done":{"valid":true}}'"#;
        let answer = outcome(script, Duration::from_secs(20), &cancel).await.expect("answers");
        assert_eq!(answer["valid"], true);
    }
}
