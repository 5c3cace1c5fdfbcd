//! One file per command.

mod bench;
mod blobs;
mod cog;
mod config;
mod explain;
mod jobs;
pub(crate) mod native_op;
mod plugin;
mod plugin_lock;
mod plugin_precompile;
mod plugin_replay;
mod plugin_trust;
mod queues;
mod run;
mod serve;
mod signals;
mod submit;
mod tasks;
mod wait;
mod workers;

use geoworker_machine::{ErrorInfo, codes};

use crate::cli::{Cli, Command, ConfigCommand};
use crate::config::{Config, Environment};
use crate::exit::Outcome;
use crate::logging::{self, LogSettings};

/// Runs the command that was asked for.
pub(crate) fn run(cli: &Cli) -> Outcome {
    if let Command::Explain { code } = &cli.command {
        return explain::run(code.as_deref(), cli.json);
    }
    let config = Config::read(cli, &Environment)?;
    start_logging(cli, &config);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ErrorInfo::permanent(codes::WORKER_FAULT, error.to_string()))?;
    let outcome = runtime.block_on(dispatch(cli, &config));
    // A blocking thread (a file copy, a compilation) must not hold up the exit.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(cli: &Cli, config: &Config) -> Outcome {
    match &cli.command {
        Command::Serve(args) => serve::run(config, args).await,
        Command::Submit(args) => submit::run(config, args, cli.json).await,
        Command::Run(args) => run::run(config, args, cli.json).await,
        Command::Jobs(args) => jobs::run(config, args, cli.json).await,
        Command::Tasks(command) => tasks::run(config, command, cli.json).await,
        Command::Queues(command) => queues::run(config, command, cli.json).await,
        Command::Workers => workers::run(config, cli.json).await,
        Command::Plugin(command) => plugin::run(config, command, cli.json).await,
        Command::Config(ConfigCommand::Show) => config::run(config, cli.json),
        Command::Blobs(command) => blobs::run(config, command, cli.json).await,
        Command::Cog(args) => cog::run(config, args, cli.json).await,
        Command::ValidateCog { file } => cog::validate(file, cli.json),
        Command::Bench { tasks } => bench::run(config, *tasks, cli.json).await,
        Command::Explain { .. } | Command::NativeOp => Ok(crate::exit::OK),
    }
}

/// The server logs as configured; other commands only warnings, unless a level is set.
fn start_logging(cli: &Cli, config: &Config) {
    let explicit = std::env::var_os("LOG_LEVEL").is_some();
    let quiet = !matches!(cli.command, Command::Serve(_)) && !explicit;
    let level = if quiet { "error".to_owned() } else { config.log.level.clone() };
    logging::start(&LogSettings { level, ..config.log.clone() });
}
