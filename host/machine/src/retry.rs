//! When a failed attempt is followed by another.

use serde::{Deserialize, Serialize};

use crate::error::RetryClass;

/// First delay in milliseconds (domain.md: 30 s · 2^n).
pub const BASE_DELAY_MS: i64 = 30_000;
/// Longest delay in milliseconds.
pub const MAX_DELAY_MS: i64 = 600_000;
/// Factor of a throttled failure's delay.
pub const THROTTLED_FACTOR: i64 = 4;
/// Retries after the first attempt where a task type says nothing.
pub const DEFAULT_MAX_RETRIES: u32 = 3;

/// How often and how fast a task type is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Retries after the first attempt. Default 3.
    pub max_retries: u32,
    /// First delay in milliseconds. Default 30 000.
    pub base_delay_ms: i64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_retries: DEFAULT_MAX_RETRIES, base_delay_ms: BASE_DELAY_MS }
    }
}

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after this many milliseconds.
    RetryAfter(i64),
    /// The task has failed.
    Fail,
}

impl RetryPolicy {
    /// Decides after attempt `attempt` (from 1) failed with `class`. `previous` is the class of the failure of the
    /// attempt before it, none for the first.
    ///
    /// `jitter` in 0..=1 comes from the caller, since this crate has no randomness: the delay is between half
    /// of the nominal one and all of it. A resource failure is not retried unchanged: the attempt after it runs
    /// with the [`lean`] plan, and fails for good where even that needs too much.
    #[must_use]
    pub fn decide(
        &self,
        class: RetryClass,
        previous: Option<RetryClass>,
        attempt: u32,
        jitter: f64,
    ) -> Verdict {
        let retryable = match class {
            RetryClass::Transient | RetryClass::Throttled => true,
            RetryClass::Resource => !lean(previous),
            RetryClass::Permanent => false,
        };
        if !retryable || attempt > self.max_retries {
            return Verdict::Fail;
        }
        let exponent = attempt.saturating_sub(1).min(16);
        let factor = if class == RetryClass::Throttled { THROTTLED_FACTOR } else { 1 };
        let nominal =
            (self.base_delay_ms.saturating_mul(1 << exponent).saturating_mul(factor)).min(MAX_DELAY_MS);
        let share = 0.5 + 0.5 * jitter.clamp(0.0, 1.0);
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_DELAY_MS")]
        Verdict::RetryAfter((nominal as f64 * share) as i64)
    }
}

/// Whether an attempt runs with the lean plan (fewest threads, smallest buffers), given the class of the failure of
/// the attempt before it.
#[must_use]
pub fn lean(previous: Option<RetryClass>) -> bool {
    previous == Some(RetryClass::Resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_ceiling() {
        let policy = RetryPolicy { max_retries: 9, ..RetryPolicy::default() };
        let delays: Vec<Verdict> =
            (1..=7).map(|attempt| policy.decide(RetryClass::Transient, None, attempt, 1.0)).collect();
        let expected = [30, 60, 120, 240, 480, 600, 600].map(|s| Verdict::RetryAfter(s * 1000));
        assert_eq!(delays, expected);
    }

    #[test]
    fn retries_end_and_permanent_errors_are_never_retried() {
        let policy = RetryPolicy::default();
        assert_eq!(policy.decide(RetryClass::Transient, None, 3, 0.0), Verdict::RetryAfter(60_000));
        assert_eq!(policy.decide(RetryClass::Transient, None, 4, 0.0), Verdict::Fail);
        assert_eq!(policy.decide(RetryClass::Permanent, None, 1, 0.0), Verdict::Fail);
    }

    #[test]
    fn a_resource_failure_gets_one_leaner_attempt() {
        use RetryClass::{Permanent, Resource, Throttled, Transient};
        let policy = RetryPolicy::default();
        for previous in [None, Some(Transient), Some(Throttled), Some(Permanent)] {
            assert!(!lean(previous));
            let verdict = policy.decide(Resource, previous, 1, 1.0);
            assert_eq!(verdict, Verdict::RetryAfter(30_000), "after {previous:?}");
        }
        assert!(lean(Some(Resource)));
        assert_eq!(
            policy.decide(Resource, Some(Resource), 2, 1.0),
            Verdict::Fail,
            "the lean plan failed too"
        );
        assert_eq!(policy.decide(Transient, Some(Resource), 2, 1.0), Verdict::RetryAfter(60_000));
        let never = RetryPolicy { max_retries: 0, ..policy };
        assert_eq!(never.decide(Resource, None, 1, 1.0), Verdict::Fail);
    }
}
