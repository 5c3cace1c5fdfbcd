//! Operations that are repeated until they worked, their answer is final, or their time is over; and the one connection
//! on which they run.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::connection::Connection;
use crate::error::{Failure, ServiceBusError};
use crate::settings::Settings;

/// Pause before the first repetition; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// An attempt gets this part of an operation's time, so that a connection that is silently dead leaves time for another.
const ATTEMPTS: u32 = 2;

/// Runs operations.
#[derive(Debug)]
pub(crate) struct Attempts {
    settings: Arc<Settings>,
    slot: Mutex<Slot>,
}

/// The connection of now. Its generation makes sure that one failure does not tear down the connection after it.
#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    connection: Option<Arc<Connection>>,
}

impl Attempts {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), slot: Mutex::default() }
    }

    /// Longest time for the broker to answer.
    pub(crate) fn answer_time(&self) -> Duration {
        self.settings.operation_timeout / ATTEMPTS
    }

    /// Runs an operation that consists of waiting for answers.
    pub(crate) async fn ask<T, F>(
        &self,
        operation: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, ServiceBusError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.run(Duration::ZERO, |connection| self.answered(operation(connection))).await
    }

    /// Waits for an answer, but not for ever.
    async fn answered<T>(&self, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let late = |_| Failure::Transport("the broker did not answer".into());
        timeout(self.answer_time(), answer).await.map_err(late)?
    }

    /// Runs an operation that bounds its own time, on the connection of now, again and again while that is worth it.
    /// `wait` comes on top of the time for operations.
    pub(crate) async fn run<T, F>(
        &self,
        wait: Duration,
        operation: impl Fn(Arc<Connection>) -> F,
    ) -> Result<T, ServiceBusError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut retry = Retry::new(wait + self.settings.operation_timeout);
        loop {
            let failure = match self.connection().await {
                Err(failure) => failure,
                Ok(connection) => {
                    let generation = connection.generation;
                    // Boxed: opening and attaching make large futures, and callers nest them.
                    match Box::pin(operation(connection)).await {
                        Ok(value) => return Ok(value),
                        Err(failure) => self.judge(failure, generation).await,
                    }
                }
            };
            tracing::debug!(?failure, "an attempt failed");
            retry.pause(failure).await?;
        }
    }

    /// The connection of now; opens one if there is none.
    async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        self.answered(async {
            let mut slot = self.slot.lock().await;
            if let Some(connection) = &slot.connection {
                return Ok(connection.clone());
            }
            slot.generation += 1;
            let opening = Box::pin(Connection::open(self.settings.clone(), slot.generation));
            let connection = Arc::new(opening.await?);
            slot.connection = Some(connection.clone());
            Ok(connection)
        })
        .await
    }

    /// Lets go of the connection if the failure says that it is broken; those who still use it end on their own.
    async fn judge(&self, failure: Failure, generation: u64) -> Failure {
        let mut slot = self.slot.lock().await;
        if slot.generation != generation {
            return failure;
        }
        match (&failure, &slot.connection) {
            (Failure::Transport(_), Some(_)) => {
                slot.connection = None;
                tracing::warn!(?failure, generation, "the connection to the broker is given up");
            }
            // Others may use it; the next attempt shows a token again.
            (Failure::Unauthorized(_), Some(connection)) => connection.forget_claims().await,
            _ => {}
        }
        failure
    }

    /// Closes the connection, if there is one.
    pub(crate) async fn close(&self) {
        if let Some(connection) = self.slot.lock().await.connection.take() {
            // It is over either way.
            let _ = timeout(self.answer_time(), connection.close()).await;
        }
    }
}

/// When to try again.
#[derive(Debug)]
struct Retry {
    deadline: Instant,
    pause: Duration,
    unauthorized: bool,
}

impl Retry {
    fn new(time: Duration) -> Self {
        Self { deadline: Instant::now() + time, pause: FIRST_PAUSE, unauthorized: false }
    }

    /// Waits before the next attempt; the failure as an error if there is none.
    async fn pause(&mut self, failure: Failure) -> Result<(), ServiceBusError> {
        let hopeless = match failure {
            Failure::Final(_) => true,
            // One more attempt brings a fresh token.
            Failure::Unauthorized(_) => std::mem::replace(&mut self.unauthorized, true),
            Failure::Transport(_) | Failure::Busy(_) | Failure::Token(_) => false,
        };
        let pause = self.pause.mul_f64(0.5 + random_share() / 2.0);
        if hopeless || Instant::now() + pause >= self.deadline {
            return Err(failure.into_error());
        }
        sleep(pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// From 0 to 1, so that those who failed together do not come back together.
fn random_share() -> f64 {
    f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Failure {
        Failure::Busy("slow down".into())
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_with_the_time_of_an_operation() {
        let begin = Instant::now();
        let mut retry = Retry::new(Duration::from_secs(30));
        let mut attempts = 0;
        let end = loop {
            match retry.pause(busy()).await {
                Ok(()) => attempts += 1,
                Err(error) => break error,
            }
        };
        assert!((8..40).contains(&attempts), "{attempts} attempts");
        let took = begin.elapsed();
        assert!(took <= Duration::from_secs(30) && took > Duration::from_secs(24), "{took:?}");
        assert_eq!(end, ServiceBusError::Busy("slow down".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_answer_is_not_asked_for_again_and_a_refused_token_once() {
        let mut retry = Retry::new(Duration::from_secs(30));
        let lost = Failure::Final(ServiceBusError::LockLost);
        assert_eq!(retry.pause(lost).await, Err(ServiceBusError::LockLost));
        let refused = || Failure::Unauthorized("no".into());
        assert_eq!(retry.pause(refused()).await, Ok(()));
        assert_eq!(retry.pause(refused()).await, Err(ServiceBusError::Unauthorized("no".into())));
    }
}
