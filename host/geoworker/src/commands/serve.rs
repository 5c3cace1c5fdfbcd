//! `serve`: the server of a data directory.

use geoworker_worker::Shutdown;

use super::signals::Signals;
use crate::config::Config;
use crate::context::{Context, create_data_dir};
use crate::exit::{OK, Outcome};
use crate::server_lock::ServerLock;

pub(crate) async fn run(config: &Config, max_tasks: Option<u64>) -> Outcome {
    let mut config = config.clone();
    config.worker.max_tasks = max_tasks;
    create_data_dir(&config.data_dir)?;
    let _lock = ServerLock::take(&config.data_dir)?;
    let mut signals = Signals::listen()?;
    let context = Context::open(&config).await?;
    let mode = config.worker.mode;
    let failed = context.platform.registry.reports().iter().filter(|report| report.error.is_some()).count();
    tracing::info!(
        mode = mode.as_str(),
        properties = ?mode.properties(),
        data_dir = %config.data_dir.display(),
        plugins_failed = failed,
        "geoworker {} serves",
        env!("CARGO_PKG_VERSION")
    );
    let shutdown = Shutdown::default();
    let mut server = tokio::spawn(geoworker_worker::run(context.platform.clone(), shutdown.clone()));
    let ended = tokio::select! {
        ended = &mut server => ended,
        () = signals.next() => {
            tracing::info!("stopping: running tasks may finish; a second signal interrupts them");
            shutdown.stop.cancel();
            tokio::select! {
                ended = &mut server => ended,
                () = signals.next() => {
                    tracing::warn!("interrupting: running tasks are given back");
                    shutdown.interrupt.cancel();
                    server.await
                }
            }
        }
    };
    context.close().await;
    match ended {
        Ok(result) => result?,
        Err(error) => {
            let message = error.to_string();
            return Err(geoworker_machine::ErrorInfo::permanent(
                geoworker_machine::codes::WORKER_FAULT,
                message,
            ));
        }
    }
    tracing::info!("stopped");
    Ok(OK)
}
