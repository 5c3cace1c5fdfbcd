//! `serve`: the server of a data directory.

use std::time::Duration;

use geoworker_api::Server;
use geoworker_machine::{ErrorInfo, RetryClass, codes};
use geoworker_worker::Shutdown;

use super::signals::{Signals, interrupted};
use crate::cli::ServeArgs;
use crate::config::{Config, Database};
use crate::context::{Context, create_data_dir};
use crate::exit::{OK, Outcome};
use crate::server_lock::ServerLock;

/// Wait before a database that did not answer is tried again; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

pub(crate) async fn run(config: &Config, args: &ServeArgs) -> Outcome {
    let mut signals = Signals::listen()?;
    let mut config = config.clone();
    config.worker.max_tasks = if args.once { Some(1) } else { args.max_tasks };
    config.worker.until_idle = args.once;
    config.plugin_settings.trust.locked |= args.locked;
    create_data_dir(&config.data_dir)?;
    let embedded = matches!(config.backends.database, Database::Sqlite);
    config.worker.exclusive = embedded;
    let _lock = embedded.then(|| ServerLock::take(&config.data_dir)).transpose()?;
    let shutdown = Shutdown::default();
    let http = listen(&config, &shutdown).await?;
    let context = tokio::select! {
        context = open_patiently(&config) => context?,
        () = signals.next() => return Err(interrupted()),
    };
    if let Some(http) = &http {
        http.attach(context.platform.clone());
    }
    let mode = config.worker.mode;
    let registry = context.platform.registry();
    let failed = registry.reports().iter().filter(|report| report.error.is_some()).count();
    tracing::info!(
        mode = mode.as_str(),
        properties = ?mode.properties(),
        data_dir = %config.data_dir.display(),
        plugins_failed = failed,
        http = http.as_ref().map(|http| http.address().to_string()),
        "geoworker {} serves",
        env!("CARGO_PKG_VERSION")
    );
    drop(registry);
    let plugins = context.platform.plugins.clone();
    let watching = tokio::spawn(geoworker_plugins::watch(plugins, config.plugin_settings.watch));
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
    watching.abort();
    // Probes answer until nothing runs any more.
    if let Some(http) = http {
        http.end().await;
    }
    context.close().await;
    match ended {
        Ok(result) => result?,
        Err(error) => {
            return Err(ErrorInfo::permanent(codes::WORKER_FAULT, error.to_string()));
        }
    }
    tracing::info!("stopped");
    Ok(OK)
}

/// Probes answer before the database does.
async fn listen(config: &Config, shutdown: &Shutdown) -> Result<Option<Server>, ErrorInfo> {
    let Some(settings) = config.http.clone() else { return Ok(None) };
    Server::start(settings, config.worker.mode, shutdown.stop.clone()).await.map(Some)
}

/// Waits for a database that does not answer (R18).
async fn open_patiently(config: &Config) -> Result<Context, ErrorInfo> {
    let mut pause = FIRST_PAUSE;
    loop {
        match Context::open(config).await {
            Err(error) if error.class == RetryClass::Transient => {
                tracing::warn!(code = error.code, "waiting {pause:?}: {}", error.message);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}
