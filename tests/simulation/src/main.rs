//! `geoworker-simulation`: plays seeds, replays one, shows that broken rules are noticed.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use geoworker_simulation::{Mutation, Simulation};

/// Play many workers under faults, deterministically, and check what must hold.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  geoworker-simulation --seeds 2000
  geoworker-simulation --replay 1234          # the trace of one seed
  geoworker-simulation --mutations --seeds 500

Exit codes: 0 all seeds are good (or every broken rule was noticed), 1 not, 64 wrong command line.")]
struct Cli {
    /// Seeds to play.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Play this one seed and print its trace.
    #[arg(long, value_name = "SEED")]
    replay: Option<u64>,
    /// Break this rule.
    #[arg(long)]
    mutation: Option<Mutation>,
    /// Break each rule in turn, until it is noticed.
    #[arg(long)]
    mutations: bool,
    /// Threads.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    threads: usize,
    /// Folder with hello.wasm and probe.wasm.
    #[arg(long, default_value = "plugins/dist-simulation")]
    plugins: PathBuf,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where not even this can be printed, the exit code remains.
            let _ = error.print();
            return if error.use_stderr() { 64.into() } else { ExitCode::SUCCESS };
        }
    };
    let simulation = match Simulation::load(&cli.plugins) {
        Ok(simulation) => simulation,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let good = match (cli.replay, cli.mutations) {
        (Some(seed), _) => replay(&simulation, seed, cli.mutation),
        (None, true) => mutations(&simulation, &cli),
        (None, false) => seeds(&simulation, &cli),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(simulation: &Simulation, seed: u64, mutation: Option<Mutation>) -> bool {
    let outcome = match simulation.play(seed, mutation, true) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("seed {seed} cannot be played: {error}");
            return false;
        }
    };
    outcome.trace.iter().for_each(|line| println!("{line}"));
    outcome.broken.iter().for_each(|line| println!("BROKEN {line}"));
    outcome.broken.is_empty()
}

/// Seeds between two lines of progress.
const PROGRESS: u64 = 5000;

fn seeds(simulation: &Simulation, cli: &Cli) -> bool {
    let started = Instant::now();
    let next = AtomicU64::new(cli.first);
    let (claims, deaths) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..cli.threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= cli.first + cli.seeds {
                        return;
                    }
                    let played = seed - cli.first;
                    if played > 0 && played.is_multiple_of(PROGRESS) {
                        eprintln!(
                            "{played} of {} seeds, {:.0} s",
                            cli.seeds,
                            started.elapsed().as_secs_f64()
                        );
                    }
                    match simulation.play(seed, cli.mutation, false) {
                        Ok(outcome) => {
                            claims.fetch_add(outcome.claims, Ordering::Relaxed);
                            deaths.fetch_add(outcome.deaths, Ordering::Relaxed);
                            if let Some(first) = outcome.broken.first() {
                                failed.fetch_add(1, Ordering::Relaxed);
                                println!("seed {seed}: {first}");
                            }
                        }
                        Err(error) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("seed {seed} cannot be played: {error}");
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!(
        "{} seeds in {:.1} s: {} attempts, {} processes died, {failed} seeds broke an invariant",
        cli.seeds,
        started.elapsed().as_secs_f64(),
        claims.into_inner(),
        deaths.into_inner()
    );
    failed == 0
}

/// Plays seeds with each rule broken until an invariant notices.
fn mutations(simulation: &Simulation, cli: &Cli) -> bool {
    let mut all = true;
    for mutation in Mutation::value_variants() {
        let range = cli.first..cli.first + cli.seeds;
        let caught = range.clone().find_map(|seed| {
            let outcome = simulation.play(seed, Some(*mutation), false).ok()?;
            outcome.broken.into_iter().next().map(|line| (seed, line))
        });
        let name = mutation.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
        match caught {
            Some((seed, line)) => println!("{name:30} seed {seed:4}: {line}"),
            None => {
                all = false;
                println!("{name:30} was not noticed in {} seeds", cli.seeds);
            }
        }
    }
    all
}
