//! Why something does not go on (B9): nobody should have to guess why a job is stuck.

use chrono::Utc;
use geoworker_machine::{AppMode, ErrorInfo, TaskState};
use geoworker_store::records::{Job, Stage, Task, TasksPage, Worker};

use crate::core::rfc3339;
use crate::platform::Platform;

/// A worker that was not seen for this long counts as gone.
const GONE_MS: i64 = 60_000;

/// Why a task that is not over does not run; none where it runs.
#[must_use]
pub fn task_waits_for(task: &Task) -> Option<String> {
    let code = || task.error.as_ref().map_or("an error", |error| error.code.as_str());
    match task.state {
        TaskState::Pending => Some("its message is about to be sent".into()),
        TaskState::Queued => Some(format!("a free slot on {}, or its plugin", task.queue)),
        TaskState::PendingRetry => {
            Some(format!("its next attempt at {}, after {}", rfc3339(task.not_before), code()))
        }
        TaskState::Processing if task.lease_until < Utc::now().timestamp_millis() => {
            let worker = task.worker.as_deref().unwrap_or("its worker");
            Some(format!("another worker: {worker} does not answer"))
        }
        _ => None,
    }
}

impl Platform {
    /// Why a job that is not over does not go on; none where one of its tasks runs. `stages` are its planned ones.
    ///
    /// # Errors
    /// A failure of the store.
    pub async fn job_waits_for(&self, job: &Job, stages: &[Stage]) -> Result<Option<String>, ErrorInfo> {
        if job.state.is_final() {
            return Ok(None);
        }
        if job.cancelling {
            return Ok(Some("the end of its running tasks".into()));
        }
        match stages.last() {
            Some(stage) if stage.remaining > 0 => self.stage_waits_for(job).await,
            Some(stage) => {
                if let Some(reason) = self.waits_for_plugin("job", &job.job_type) {
                    return Ok(Some(reason));
                }
                Ok(Some(self.jobs_queue_waits(&format!("to go on after stage {}", stage.number)).await?))
            }
            None => match self.waits_for_plugin("job", &job.job_type) {
                Some(reason) => Ok(Some(reason)),
                None => Ok(Some(self.jobs_queue_waits("to plan its first stage").await?)),
            },
        }
    }

    /// Running tasks answer for their stage; where none runs, the one that could run soonest does.
    async fn stage_waits_for(&self, job: &Job) -> Result<Option<String>, ErrorInfo> {
        const FEW: u32 = 100;
        let mut first = None;
        for state in [TaskState::Processing, TaskState::Queued, TaskState::Pending, TaskState::PendingRetry] {
            let page = TasksPage { job: &job.job_id, state: Some(state), after: None, limit: FEW };
            let tasks = self.store.tasks_page(page).await.map_err(|error| error.info())?;
            for task in tasks {
                let Some(reason) = task_waits_for(&task) else { return Ok(None) };
                first.get_or_insert((task, reason));
            }
        }
        let Some((task, reason)) = first else { return Ok(None) };
        if let Some(reason) = self.waits_for_plugin("task", &task.task_type) {
            return Ok(Some(format!("task {} waits for {reason}", task.task_id.short())));
        }
        let reason = if self.is_served(&task.queue).await? {
            reason
        } else {
            format!("a worker: none serves {}", task.queue)
        };
        Ok(Some(format!("task {} waits for {reason}", task.task_id.short())))
    }

    /// A type that is not offered here; none where it is, or where no plugins are loaded here to tell.
    fn waits_for_plugin(&self, what: &str, name: &str) -> Option<String> {
        let registry = self.registry();
        let asked = match what {
            _ if registry.generation() == 0 => return None,
            "job" => registry.job_type(name).map(drop),
            _ => registry.task_type(name).map(drop),
        };
        let hint = asked.err()?.hint.map_or_else(String::new, |hint| format!("; {hint}"));
        Some(format!("a plugin: none offers {what} type '{name}'{hint}"))
    }

    async fn jobs_queue_waits(&self, what_for: &str) -> Result<String, ErrorInfo> {
        let queue = self.jobs_queue();
        let served = self.is_served(queue).await?;
        let who = if served { "its turn on" } else { "a server: none serves" };
        Ok(format!("{who} {queue}, {what_for}"))
    }

    /// Whether a worker that answers serves a queue.
    async fn is_served(&self, queue: &str) -> Result<bool, ErrorInfo> {
        let workers = self.store.workers().await.map_err(|error| error.info())?;
        Ok(workers.iter().any(|worker| worker.silent_ms < GONE_MS && self.serves(worker, queue)))
    }

    fn serves(&self, worker: &Worker, queue: &str) -> bool {
        let Ok(mode) = worker.mode.parse::<AppMode>() else { return false };
        let (properties, queues) = (mode.properties(), &self.settings.router.queues);
        (properties.jobs_queue && queue == queues.jobs)
            || (properties.raster_queue && queue == queues.raster)
            || (properties.vector_queue && queue == queues.vector)
            || (properties.long_queue && queue == queues.long)
    }
}
