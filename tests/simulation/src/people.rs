//! What people do while the workers work: submit, cancel, retry.

use std::sync::Arc;
use std::time::Duration;

use geoworker_worker::{Platform, Submission};
use serde_json::{Map, Value, json};

use crate::world::{PEOPLE, World};

/// How often somebody looks whether all is done.
const LOOK: Duration = Duration::from_secs(5);

/// Submits the work of a seed, meddles with it, and waits for its end; false where `patience` was not enough.
pub(crate) async fn act(platform: &Platform, world: &Arc<World>, patience: Duration) -> bool {
    let jobs = world.lock().dice.between(1, 3);
    for n in 0..jobs {
        let submission = job(world, n);
        let name = submission.job_type.clone();
        match platform.submit(submission).await {
            Ok(submitted) => world.trace(PEOPLE, || format!("submit {name} as {}", submitted.job_id.short())),
            Err(error) => world.violation(format!("a job is accepted: {error}")),
        }
        let pause = Duration::from_millis(world.lock().dice.between(0, 20_000));
        tokio::time::sleep(pause).await;
    }
    let end = tokio::time::Instant::now() + patience;
    loop {
        tokio::time::sleep(LOOK).await;
        let jobs = platform.store.jobs("", 1000).await.unwrap_or_default();
        if jobs.iter().all(|job| job.state.is_final()) {
            let again = world.lock().dice.chance(150);
            let failed = jobs.iter().find(|job| job.error.is_some());
            match failed.filter(|_| again && jobs.len() < 6) {
                Some(job) if platform.retry(job, None).await.is_ok() => {
                    world.trace(PEOPLE, || format!("retry {}", job.job_id.short()));
                }
                _ => return true,
            }
        }
        if tokio::time::Instant::now() > end {
            return false;
        }
        // A job that is stuck must show: later, nobody helps it out by cancelling it.
        if !world.is_calm() {
            meddle(platform, world).await;
        }
    }
}

async fn meddle(platform: &Platform, world: &Arc<World>) {
    let (job, task) = {
        let mut tables = world.lock();
        let (job, task) = (tables.dice.chance(15), tables.dice.chance(20));
        let open_job = tables.jobs.values().find(|job| !job.state.is_final()).cloned();
        let open_task = tables.tasks.values().find(|task| !task.state.is_final()).cloned();
        (open_job.filter(|_| job), open_task.filter(|_| task))
    };
    if let Some(open) = job {
        world.trace(PEOPLE, || format!("cancel job {}", open.job_id.short()));
        // It may have ended meanwhile.
        let _ = platform.cancel(&open.job_id).await;
    }
    if let Some(open) = task {
        world.trace(PEOPLE, || format!("cancel task {}", open.task_id.short()));
        let _ = platform.cancel_task(&open.task_id).await;
    }
}

fn job(world: &Arc<World>, number: u64) -> Submission {
    let mut tables = world.lock();
    let probe = tables.dice.chance(600);
    let n = tables.dice.between(u64::from(!probe), 4);
    let mut parameters: Map<String, Value> = Map::new();
    parameters.insert("n".into(), json!(n));
    if probe {
        parameters.insert("folder".into(), json!(format!("job-{number}")));
    } else if tables.dice.chance(300) {
        parameters.insert("failure_rate".into(), json!(0.5));
    }
    let job_type = if probe { "probe" } else { "hello_world" };
    Submission { job_type: job_type.into(), parameters, force: true, correlation_id: None }
}
