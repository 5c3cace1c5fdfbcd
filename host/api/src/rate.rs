//! A token bucket over all clients of the process.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::settings::Rate;

/// Fills with `per_second` up to `burst`.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    level: Mutex<(f64, Instant)>,
}

impl Bucket {
    /// A full one.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, level: Mutex::new((f64::from(rate.burst), Instant::now())) }
    }

    /// Takes one request's share.
    ///
    /// # Errors
    /// Where there is none: how long until there is.
    pub(crate) fn take(&self) -> Result<(), Duration> {
        let mut level = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, per_second) = (Instant::now(), f64::from(self.rate.per_second));
        let filled = level.0 + now.duration_since(level.1).as_secs_f64() * per_second;
        let there = filled.min(f64::from(self.rate.burst));
        if there < 1.0 {
            *level = (there, now);
            return Err(Duration::from_secs_f64((1.0 - there) / per_second));
        }
        *level = (there - 1.0, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_taken_then_the_rate() {
        let bucket = Bucket::new(Rate { per_second: 2, burst: 3 });
        assert_eq!((0..5).filter(|_| bucket.take().is_ok()).count(), 3);
        assert_eq!(bucket.take(), Err(Duration::from_millis(500)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..5).filter(|_| bucket.take().is_ok()).count(), 2);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!((0..9).filter(|_| bucket.take().is_ok()).count(), 3, "no more than a burst is saved up");
    }
}
