//! The geoworker binary: parse, configure, run one command, answer with a documented exit code.

mod cli;
mod commands;
mod config;
mod confine;
mod context;
mod exit;
mod http_config;
mod logging;
mod output;
mod plugin_config;
mod server_lock;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where not even this can be printed, the exit code remains.
            let _ = error.print();
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if asked { ExitCode::SUCCESS } else { exit::USAGE.into() };
        }
    };
    if let Command::NativeOp = cli.command {
        return commands::native_op::run();
    }
    exit::finish(commands::run(&cli), cli.json)
}
