//! `run`: start, submit, wait, print, stop.

use geoworker_machine::ErrorInfo;
use geoworker_store::records::Job;
use geoworker_worker::Shutdown;

use super::signals::{Signals, interrupted};
use super::submit::submit;
use super::wait::{print_end, wait};
use crate::cli::RunArgs;
use crate::config::{Config, Database};
use crate::context::{Context, create_data_dir};
use crate::exit::Outcome;
use crate::server_lock::ServerLock;

pub(crate) async fn run(config: &Config, args: &RunArgs, json: bool) -> Outcome {
    create_data_dir(&config.data_dir)?;
    let mut signals = Signals::listen()?;
    let embedded = matches!(config.backends.database, Database::Sqlite);
    let lock = if embedded { ServerLock::try_take(&config.data_dir)? } else { None };
    let mut config = config.clone();
    config.worker.exclusive = lock.is_some();
    let context = Context::open(&config).await?;
    let shutdown = Shutdown::default();
    // Where a server runs already on an embedded data directory, it does the work.
    let works = lock.is_some() || !embedded;
    let server =
        works.then(|| tokio::spawn(geoworker_worker::run(context.platform.clone(), shutdown.clone())));
    let job = follow(&context, args, &mut signals).await;
    shutdown.stop.cancel();
    if job.is_err() {
        shutdown.interrupt.cancel();
    }
    if let Some(server) = server {
        // Its own end has nothing to add to the job's.
        let _ = server.await;
    }
    let code = print_end(&context.platform, &job?, json).await?;
    context.close().await;
    Ok(code)
}

async fn follow(context: &Context, args: &RunArgs, signals: &mut Signals) -> Result<Job, ErrorInfo> {
    let submitted = submit(&context.platform, &args.job).await?;
    tokio::select! {
        job = wait(&context.platform, &submitted.job_id) => job,
        () = signals.next() => Err(interrupted().with_hint("the job goes on at the next `geoworker serve` or the same `geoworker run`")),
    }
}
