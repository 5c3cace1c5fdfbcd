//! Why a native process ended without a good answer, with the figures that tell what to change.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use geoworker_machine::{ErrorInfo, RetryClass, codes};
use geoworker_raster::estimate::Estimate;

use crate::admission::mib;
use crate::watchdog::Breach;

const SIGKILL: i32 = 9;
/// What ends a process that writes beyond its limit for files.
const SIGXFSZ: i32 = 25;
/// A peak above this share of the limit explains a kill: the last look was a moment before it.
const NEAR_PERCENT: u64 = 85;
/// What libraries say when an allocation fails.
const STARVED: &[&str] = &["memory allocation of", "bad_alloc", "out of memory", "Cannot allocate memory"];

/// What an operation was allowed, used and expected to need. Bytes; 0 is no limit, or not known.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    pub(crate) memory_limit: u64,
    pub(crate) memory_peak: u64,
    pub(crate) disk_limit: u64,
    pub(crate) disk_used: u64,
    /// None where the process ended before it had read the header.
    pub(crate) estimate: Option<Estimate>,
    /// Processes that the kernel killed at the group's limit.
    pub(crate) oom_kills: u64,
}

impl Figures {
    fn memory(&self) -> String {
        let known =
            |bytes: u64| if bytes == 0 { "not known".to_owned() } else { format!("{} MiB", mib(bytes)) };
        format!(
            "limit {}, peak {}, estimate {}",
            if self.memory_limit == 0 { "none".to_owned() } else { known(self.memory_limit) },
            known(self.memory_peak),
            known(self.estimate.map_or(0, |estimate| estimate.memory_bytes))
        )
    }

    fn disk(&self) -> String {
        format!(
            "used {} MiB, budget {}, estimate {}",
            mib(self.disk_used),
            if self.disk_limit == 0 { "none".to_owned() } else { format!("{} MiB", mib(self.disk_limit)) },
            self.estimate
                .map_or("not known".to_owned(), |estimate| format!("{} MiB", mib(estimate.disk_bytes)))
        )
    }

    fn near_the_limit(&self) -> bool {
        self.memory_limit > 0 && self.memory_peak / NEAR_PERCENT >= self.memory_limit / 100
    }

    /// Out of memory, with the figures.
    pub(crate) fn out_of_memory(&self) -> ErrorInfo {
        let message = format!("the operation ran out of memory ({})", self.memory());
        ErrorInfo::new(codes::MEMORY, RetryClass::Resource, message)
    }

    /// The limit that the watchdog killed for.
    pub(crate) fn breach(&self, breach: Breach) -> ErrorInfo {
        match breach {
            Breach::Memory => self.out_of_memory(),
            Breach::Disk => self.over_budget(),
            // Whoever filled the disk may free it again.
            Breach::NearlyFull(free) => ErrorInfo::transient(
                codes::DISK_FULL,
                format!("the disk is nearly full: {} MiB are free ({})", mib(free), self.disk()),
            ),
        }
    }

    fn over_budget(&self) -> ErrorInfo {
        let message = format!("the operation filled more disk than it may ({})", self.disk());
        ErrorInfo::new(codes::DISK_FULL, RetryClass::Resource, message)
    }

    /// Adds the figures to what the process itself said.
    pub(crate) fn complete(&self, mut error: ErrorInfo) -> ErrorInfo {
        let figures = match error.code.as_str() {
            codes::MEMORY => self.memory(),
            codes::DISK_FULL => self.disk(),
            _ => return error,
        };
        error.message = format!("{} ({figures})", error.message);
        error
    }

    /// Why a process ended without an answer. `complaints` is what it wrote to standard error.
    pub(crate) fn explain(&self, status: ExitStatus, complaints: &str) -> ErrorInfo {
        let starved = STARVED.iter().any(|words| complaints.contains(words));
        match status.signal() {
            _ if starved || self.oom_kills > 0 => self.out_of_memory(),
            Some(SIGKILL) if self.near_the_limit() => self.out_of_memory(),
            Some(SIGKILL) => {
                let message = format!(
                    "the native process was killed by signal {SIGKILL} from outside: not by its supervisor, and not \
                     for its memory ({})",
                    self.memory()
                );
                ErrorInfo::transient(codes::NATIVE_CRASH, message)
            }
            Some(SIGXFSZ) => self.over_budget(),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn figures() -> Figures {
        Figures {
            memory_limit: 1000 * MIB,
            memory_peak: 300 * MIB,
            disk_limit: 50 * MIB,
            disk_used: 51 * MIB,
            estimate: Some(Estimate { memory_bytes: 200 * MIB, disk_bytes: 40 * MIB }),
            oom_kills: 0,
        }
    }

    #[test]
    fn a_kill_is_one_of_memory_only_where_memory_was_short() {
        let killed = ExitStatus::from_raw(SIGKILL);
        let outside = figures().explain(killed, "");
        assert_eq!((outside.code.as_str(), outside.class), (codes::NATIVE_CRASH, RetryClass::Transient));
        assert!(outside.message.contains("signal 9 from outside"), "{}", outside.message);
        let near = Figures { memory_peak: 950 * MIB, ..figures() }.explain(killed, "");
        assert_eq!((near.code.as_str(), near.class), (codes::MEMORY, RetryClass::Resource));
        assert!(near.message.contains("limit 1000 MiB, peak 950 MiB, estimate 200 MiB"), "{}", near.message);
        let counted = Figures { oom_kills: 1, ..figures() }.explain(killed, "");
        assert_eq!(counted.code, codes::MEMORY);
        let unlimited = Figures { memory_limit: 0, ..figures() }.explain(killed, "");
        assert_eq!(unlimited.code, codes::NATIVE_CRASH);
    }

    #[test]
    fn disk_errors_carry_their_figures() {
        let text = "used 51 MiB, budget 50 MiB, estimate 40 MiB";
        let said = ErrorInfo::transient(codes::DISK_FULL, "no space left on device");
        for error in [
            figures().explain(ExitStatus::from_raw(SIGXFSZ), ""),
            figures().breach(Breach::Disk),
            figures().breach(Breach::NearlyFull(9 * MIB)),
            figures().complete(said),
        ] {
            assert_eq!(error.code, codes::DISK_FULL);
            assert!(error.message.contains(text), "{}", error.message);
        }
        let other = ErrorInfo::permanent(codes::FILE_EMPTY, "the file has no bytes");
        assert_eq!(figures().complete(other.clone()), other);
    }
}
