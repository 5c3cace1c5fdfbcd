//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use geoworker_store::decisions::DecisionKind;

/// Turn rasters into Cloud Optimized GeoTIFFs and STAC items, with task types as WebAssembly plugins.
#[derive(Debug, Parser)]
#[command(
    name = "geoworker",
    version,
    max_term_width = 110,
    after_help = "Examples:
  geoworker blobs put scene.tif bronze/uploads/scene.tif
  geoworker run process_raster --param container_name=uploads --param blob_name=scene.tif
  geoworker serve
  geoworker cog scene.tif scene_cog.tif --compression zstd

Exit codes: 0 done, 1 the job failed or the file is not valid, 2 refused or not possible (a code says why),
64 wrong command line, 130 interrupted. `geoworker explain CODE` says what to do about a code."
)]
pub(crate) struct Cli {
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Where database, zones, scratch and cache live [env: GEOWORKER_DATA_DIR; default: ./.geoworker].
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Folder of plugins [env: GEOWORKER_PLUGINS; default: plugins/dist here or beside the program].
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) plugins: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server: poll queues, run tasks, advance jobs, serve HTTP. Ctrl-C ends it in order, twice at once.
    #[command(after_help = "Examples:
  APP_MODE=standalone geoworker serve --data-dir /srv/geoworker
  POSTGRES_HOST=db POSTGRES_USER=geo POSTGRES_DATABASE=geo APP_MODE=worker_docker geoworker serve
  geoworker serve --once            # one task, or none where none comes: for scaling by jobs
  GEOWORKER_HTTP=0.0.0.0:8080 GEOWORKER_API_TOKEN=… geoworker serve

HTTP: job API (by mode), /livez, /readyz, /health, /metrics on GEOWORKER_HTTP [default: 127.0.0.1:8080, or a free
port where that is taken; off: none]. Beyond loopback the job API wants GEOWORKER_API_TOKEN.")]
    Serve(ServeArgs),
    /// Submit a job to the server on this data directory.
    #[command(after_help = "Examples:
  geoworker submit hello_world --param n=10 --wait
  geoworker submit process_raster --params job.json")]
    Submit(SubmitArgs),
    /// Start, submit, wait, print the result, stop: one process, for scripts.
    #[command(after_help = "Example:
  geoworker run process_raster --param container_name=uploads --param blob_name=scene.tif --json")]
    Run(RunArgs),
    /// List jobs, or show one with its stages, tasks and events.
    Jobs(JobsArgs),
    /// List the tasks of a job, show, cancel or retry one.
    #[command(subcommand)]
    Tasks(TasksCommand),
    /// Count the messages of the queues, look at those that were set aside, put them back.
    #[command(subcommand)]
    Queues(QueuesCommand),
    /// List the workers on this database, with what they run and when they were last seen.
    Workers,
    /// Look at plugins, lock, sign and compile them.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Put, list and get blobs of the zones.
    #[command(subcommand)]
    Blobs(BlobsCommand),
    /// Make a Cloud Optimized GeoTIFF of a file, without a queue.
    #[command(after_help = "Examples:
  geoworker cog in.tif out.tif
  geoworker cog photo.tif out.tif --compression jpeg --quality 85
  geoworker cog in.tif out.tif --target-crs EPSG:3857 --resampling cubic")]
    Cog(CogArgs),
    /// Check the layout of a Cloud Optimized GeoTIFF.
    ValidateCog {
        /// The file.
        file: PathBuf,
    },
    /// Explain an error code, or list all.
    Explain {
        /// The code.
        code: Option<String>,
    },
    /// Measure plugins and throughput on this machine.
    Bench {
        /// Greetings of the hello_world job.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
        tasks: u32,
    },
    /// Run one native operation (what the server starts as a child process).
    #[command(hide = true)]
    NativeOp,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Exit after this many tasks.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max_tasks: Option<u64>,
    /// Exit after one task, or when none came within 30 s.
    #[arg(long, conflicts_with = "max_tasks")]
    pub(crate) once: bool,
    /// Refuse plugins that are not in plugins.lock, or not as it says [env: GEOWORKER_PLUGINS_LOCKED].
    #[arg(long)]
    pub(crate) locked: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QueuesCommand {
    /// Count the messages of all queues. Of a long queue of Service Bus only the first ones are counted.
    List,
    /// List messages that were set aside, with the reason, oldest first.
    #[command(after_help = "Example:\n  geoworker queues dead-letters long-running-tasks")]
    DeadLetters {
        /// Name of the queue.
        queue: String,
        /// At most this many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Put messages that were set aside back into their queue, oldest first. What they are about decides what becomes of
    /// them: a hint about a task that is over is dropped.
    #[command(after_help = "Example:\n  geoworker queues redrive long-running-tasks --limit 10")]
    Redrive {
        /// Name of the queue.
        queue: String,
        /// At most this many.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum TasksCommand {
    /// List the tasks of a job, with routing, attempts, what they wait for, and errors.
    List {
        /// Id of the job, or its first digits.
        job: String,
    },
    /// Show one task with its timeline.
    Show {
        /// Id of the task, or its first digits.
        task: String,
    },
    /// Cancel one task, at once where nobody runs it. Its stage counts it as failed.
    Cancel {
        /// Id of the task, or its first digits.
        task: String,
    },
    /// Try one failed task again: a new run of its job, in which everything that succeeded is carried over.
    #[command(after_help = "Example:\n  geoworker tasks retry 3f9a1c --wait")]
    Retry {
        /// Id of the task, or its first digits.
        task: String,
        /// Wait for the new run's end; exit status 1 where it fails.
        #[arg(long)]
        wait: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// Type of the job; `geoworker plugin list` shows them.
    pub(crate) job_type: String,
    /// One parameter; its type follows from the job type's schema.
    #[arg(long = "param", value_name = "KEY=VALUE")]
    pub(crate) parameters: Vec<String>,
    /// A JSON file with parameters (- for standard input); --param overrides it.
    #[arg(long = "params", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Make a new run even where one with the same parameters exists.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
    /// Wait for the job's end; exit status 1 where it fails.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    pub(crate) command: Option<JobsCommand>,
    /// Jobs to list at most.
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: u32,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// Show one job.
    Show {
        /// Id of the job, or its first digits.
        job: String,
        /// Print its timeline too.
        #[arg(long)]
        events: bool,
    },
    /// Try all failed tasks of a job again: a new run, in which everything that succeeded is carried over.
    Retry {
        /// Id of the job, or its first digits.
        job: String,
        /// Wait for the new run's end; exit status 1 where it fails.
        #[arg(long)]
        wait: bool,
    },
    /// Run all of a job again, as a new run that is linked to it.
    Rerun {
        /// Id of the job, or its first digits.
        job: String,
        /// Wait for the new run's end; exit status 1 where it fails.
        #[arg(long)]
        wait: bool,
    },
    /// Cancel one job: waiting tasks end at once, running ones are stopped.
    Cancel {
        /// Id of the job, or its first digits.
        job: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// What each plugin file offers, or why it failed to load.
    List,
    /// Parameters and stages of a task or job type.
    Inspect {
        /// Name of the type.
        name: String,
    },
    /// Ask a candidate what was asked of plugins before, and show what it would decide otherwise. It changes nothing.
    #[command(after_help = "Examples:
  geoworker plugin replay --candidate new/hello.wasm
  geoworker plugin replay --candidate new/raster.wasm --since 7d --kind validate --json

Exit codes: 0 everything is decided the same, 1 something is decided otherwise, 2 the candidate does not load.")]
    Replay(ReplayArgs),
    /// Write plugins.lock: the SHA-256 of each plugin file. `serve --locked` loads only what it names.
    #[command(after_help = "Examples:
  geoworker plugin lock --plugins plugins/dist
  geoworker plugin lock --check     # exit status 1 where a file differs from it")]
    Lock {
        /// Compare with the lock file instead of writing it.
        #[arg(long)]
        check: bool,
    },
    /// Make a key for signatures. The public one is printed, and belongs into the file of GEOWORKER_PLUGIN_KEYS.
    #[command(after_help = "Example:\n  geoworker plugin keygen --out signing.key >> keys.txt")]
    Keygen {
        /// File of the private key; must not exist. Only its owner can read it.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign a plugin file: writes FILE.sig beside it.
    #[command(after_help = "Example:\n  geoworker plugin sign plugins/dist/hello.wasm --key signing.key")]
    Sign {
        /// The plugin file.
        file: PathBuf,
        /// File of the private key.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Compile all plugins into a folder, for GEOWORKER_PLUGIN_CACHE of the same version on such a processor.
    #[command(after_help = "Example:
  geoworker plugin precompile --out /opt/geoworker/cache
  GEOWORKER_PLUGIN_CACHE=/opt/geoworker/cache GEOWORKER_PLUGIN_COMPILE=off geoworker serve")]
    Precompile {
        /// The folder (default: the cache of the data directory).
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The plugin file to try.
    #[arg(long, value_name = "FILE")]
    pub(crate) candidate: PathBuf,
    /// Only decisions of this last time, such as 90m, 12h or 7d (default: all that are kept).
    #[arg(long, value_parser = span_ms)]
    pub(crate) since: Option<i64>,
    /// Only this task or job type.
    #[arg(long = "type", value_name = "NAME")]
    pub(crate) type_name: Option<String>,
    /// Only decisions of this kind: validate, route, plan-stage, handle or finalize.
    #[arg(long, value_parser = decision_kind)]
    pub(crate) kind: Option<DecisionKind>,
    /// At most so many decisions, the newest ones.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Print all changes instead of the first 20.
    #[arg(long)]
    pub(crate) all: bool,
}

/// A time such as `90m`, `12h` or `7d`, in milliseconds.
fn span_ms(text: &str) -> Result<i64, String> {
    let wanted = || "a number with s, m, h or d is wanted, such as 7d".to_owned();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: i64 = digits.parse().ok().filter(|number| *number > 0).ok_or_else(wanted)?;
    let seconds: i64 = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(wanted()),
    };
    number.checked_mul(seconds * 1000).ok_or_else(wanted)
}

fn decision_kind(name: &str) -> Result<DecisionKind, String> {
    DecisionKind::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = DecisionKind::ALL.iter().map(|kind| kind.as_str()).collect();
        format!("there are: {}", names.join(", "))
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the effective configuration, secrets redacted.
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BlobsCommand {
    /// Copy a file into a zone.
    #[command(after_help = "Example:\n  geoworker blobs put scene.tif bronze/uploads/2024/scene.tif")]
    Put {
        /// The file.
        file: PathBuf,
        /// ZONE/CONTAINER/NAME.
        blob: String,
    },
    /// Copy a blob to a file.
    Get {
        /// ZONE/CONTAINER/NAME.
        blob: String,
        /// The file; must not exist.
        file: PathBuf,
    },
    /// List blobs.
    List {
        /// ZONE, ZONE/CONTAINER or ZONE/CONTAINER/PREFIX.
        #[arg(default_value = "bronze")]
        place: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CogArgs {
    /// The raster.
    pub(crate) input: PathBuf,
    /// The COG; must not exist unless --overwrite is given.
    pub(crate) output: PathBuf,
    /// none, deflate, zstd, lzw, jpeg, webp, lerc, lerc_deflate or lerc_zstd.
    #[arg(long, default_value = "deflate")]
    pub(crate) compression: String,
    /// Level of deflate (1 to 12) or zstd (1 to 22).
    #[arg(long)]
    pub(crate) level: Option<u8>,
    /// Quality of jpeg or webp, 1 to 100; webp 100 is lossless.
    #[arg(long)]
    pub(crate) quality: Option<u8>,
    /// auto, none, horizontal or floating-point.
    #[arg(long, default_value = "auto")]
    pub(crate) predictor: String,
    /// Largest error of lerc, in data units.
    #[arg(long)]
    pub(crate) max_z_error: Option<f64>,
    /// Edge of a block in pixels: 128, 256, 512, ... 4096.
    #[arg(long, default_value_t = 512)]
    pub(crate) block_size: u32,
    /// nearest, average, bilinear, cubic, mode, rms or gauss.
    #[arg(long, default_value = "average")]
    pub(crate) overview_resampling: String,
    /// For --target-crs: nearest, average, bilinear, cubic, mode or rms.
    #[arg(long, default_value = "bilinear")]
    pub(crate) resampling: String,
    /// CRS of the input, where the file does not say it.
    #[arg(long)]
    pub(crate) input_crs: Option<String>,
    /// Reproject to this CRS.
    #[arg(long)]
    pub(crate) target_crs: Option<String>,
    /// Replace an existing output.
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// auto: the single-pass encoder, and GDAL's where that one does not do what is asked for; native: that one or a
    /// refusal; gdal: GDAL's COG driver.
    #[arg(long, default_value = "auto", value_parser = ["auto", "native", "gdal"])]
    pub(crate) engine: String,
    /// Memory that the encoder may take, such as 256M or 2G (default: GEOWORKER_NATIVE_MEMORY_MB).
    #[arg(long, value_parser = megabytes)]
    pub(crate) memory: Option<u64>,
    /// Store no tiles that hold nothing but nodata (or zeros): GDAL makes them up, some other readers cannot.
    #[arg(long)]
    pub(crate) sparse: bool,
    /// Decode the whole result and compare it with the source, instead of a sample of it.
    #[arg(long)]
    pub(crate) verify_pixels: bool,
}

/// A size such as `256M` or `2G`, in MiB.
fn megabytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| "a number with M or G is wanted, such as 256M".to_owned())?;
    match text[digits.len()..].to_ascii_uppercase().as_str() {
        "M" | "MB" | "MIB" => Ok(number),
        "G" | "GB" | "GIB" => Ok(number.saturating_mul(1024)),
        _ => Err("the unit is M or G, such as 256M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_names_its_time_and_kind() {
        let parsed = |arguments: &[&str]| {
            let line = ["geoworker", "plugin", "replay", "--candidate", "x.wasm"];
            Cli::try_parse_from(line.iter().chain(arguments))
        };
        let cli = parsed(&["--since", "7d", "--kind", "plan-stage"]).expect("parses");
        let Command::Plugin(PluginCommand::Replay(args)) = cli.command else {
            unreachable!("a replay was asked for");
        };
        assert_eq!((args.since, args.kind), (Some(7 * 24 * 3600 * 1000), Some(DecisionKind::PlanStage)));
        for wrong in [["--since", "7"], ["--since", "0d"], ["--since", "7w"], ["--kind", "describe"]] {
            assert!(parsed(&wrong).is_err(), "{wrong:?}");
        }
    }
}
