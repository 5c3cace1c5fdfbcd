//! SIGINT and SIGTERM.

use geoworker_machine::{ErrorInfo, codes};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals that end a process in order.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub(crate) fn listen() -> Result<Self, ErrorInfo> {
        let refused = |error: std::io::Error| ErrorInfo::permanent(codes::WORKER_FAULT, error.to_string());
        let interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
        let terminate = signal(SignalKind::terminate()).map_err(refused)?;
        Ok(Self { interrupt, terminate })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// What an interrupted command answers.
pub(crate) fn interrupted() -> ErrorInfo {
    ErrorInfo::permanent(codes::INTERRUPTED, "interrupted")
}
