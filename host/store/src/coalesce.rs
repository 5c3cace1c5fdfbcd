//! Calls that wait for each other become one: while a batch is under way, the next one gathers.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::error::StoreError;

/// Calls that one batch holds at most.
const LIMIT: usize = 128;

type Answer<R> = Result<R, StoreError>;

/// Gathers concurrent calls into batches. Whoever finds no batch under way runs one for all that wait.
#[derive(Debug)]
pub struct Coalescer<T, R> {
    waiting: Mutex<Vec<(T, oneshot::Sender<Answer<R>>)>>,
    turn: tokio::sync::Mutex<()>,
}

impl<T, R> Default for Coalescer<T, R> {
    fn default() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }
}

impl<T, R> Coalescer<T, R> {
    /// Adds a call and answers it. `batch` gets the calls that wait and answers each, in their order.
    ///
    /// # Errors
    /// What `batch` fails with, for every call of the batch. Where the caller that ran it was dropped, the others are
    /// told that the database did not answer: whether the batch was committed is not known.
    pub async fn run(&self, call: T, batch: impl AsyncFnOnce(Vec<T>) -> Answer<Vec<R>>) -> Answer<R> {
        let (sender, mut answer) = oneshot::channel();
        self.lock().push((call, sender));
        let turn = self.turn.lock().await;
        let calls: Vec<_> = match answer.try_recv() {
            // Another caller's batch had this call in it.
            Ok(answer) => return answer,
            Err(oneshot::error::TryRecvError::Closed) => return Err(StoreError::no_answer()),
            Err(oneshot::error::TryRecvError::Empty) => {
                let mut waiting = self.lock();
                let count = waiting.len().min(LIMIT);
                waiting.drain(..count).collect()
            }
        };
        let (calls, senders): (Vec<T>, Vec<_>) = calls.into_iter().unzip();
        match batch(calls).await {
            // A caller that went away does not want its answer.
            Ok(answers) => answers.into_iter().zip(senders).for_each(|(answer, sender)| {
                let _ = sender.send(Ok(answer));
            }),
            Err(error) => {
                let error = Arc::new(error);
                for sender in senders {
                    let _ = sender.send(Err(StoreError::Batch(Arc::clone(&error))));
                }
            }
        }
        drop(turn);
        answer.await.unwrap_or_else(|_| Err(StoreError::no_answer()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(T, oneshot::Sender<Answer<R>>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Barrier;

    use super::*;

    #[tokio::test]
    async fn calls_that_wait_share_a_batch_and_keep_their_answers() {
        let coalescer = Arc::new(Coalescer::<u32, u32>::default());
        let batches = Arc::new(AtomicUsize::new(0));
        let calls = (0..100).map(|n| {
            let (coalescer, batches) = (Arc::clone(&coalescer), Arc::clone(&batches));
            tokio::spawn(async move {
                let double = async |numbers: Vec<u32>| {
                    batches.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    Ok(numbers.into_iter().map(|n| n * 2).collect())
                };
                assert_eq!(coalescer.run(n, double).await.expect("answers"), n * 2);
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("is answered");
        }
        assert!(batches.load(Ordering::Relaxed) < 100, "no call shared a batch");
    }

    /// A caller that is dropped in the middle of a batch must not leave the others waiting.
    #[tokio::test]
    async fn a_dropped_leader_leaves_nobody_waiting() {
        let coalescer = Arc::new(Coalescer::<u32, u32>::default());
        let started = Arc::new(Barrier::new(2));
        let (shared, barrier) = (Arc::clone(&coalescer), Arc::clone(&started));
        let leader = tokio::spawn(async move {
            let never = async |_: Vec<u32>| {
                barrier.wait().await;
                std::future::pending().await
            };
            shared.run(1, never).await
        });
        started.wait().await;
        let follower = coalescer.run(2, async |numbers: Vec<u32>| Ok(numbers));
        tokio::pin!(follower);
        assert!(futures_poll(&mut follower).await.is_none(), "it waits for the batch");
        leader.abort();
        assert_eq!(follower.await.expect("has its own batch"), 2);
    }

    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
