//! `cog` and `validate-cog`: the encoder and the checker without a queue.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use geoworker_machine::{ErrorInfo, RetryClass, codes};
use geoworker_raster::model::{CogOptions, CogReport, Engine};
use geoworker_raster::native::Operation;
use geoworker_raster::{RasterError, validate};
use geoworker_worker::{Admission, Assignment, Native, NativeFailure, Objects, Report};
use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::signals::{Signals, interrupted};
use crate::cli::CogArgs;
use crate::config::Config;
use crate::exit::{NEGATIVE, OK, Outcome};
use crate::output;

/// Longest time of one encoding.
const LIMIT: Duration = Duration::from_secs(24 * 3600);
const STEPS: f64 = 1000.0;

pub(crate) async fn run(config: &Config, args: &CogArgs, json: bool) -> Outcome {
    let mut signals = Signals::listen()?;
    let usage = |message: String| ErrorInfo::permanent(codes::USAGE, message);
    let input =
        args.input.canonicalize().map_err(|error| usage(format!("{}: {error}", args.input.display())))?;
    if args.output.exists() && !args.overwrite {
        return Err(usage(format!("{} exists; --overwrite replaces it", args.output.display())));
    }
    let hidden = Hidden::beside(&args.output)?;
    let result = tokio::select! {
        result = encode(config, &input, &hidden, args) => result,
        () = signals.next() => Err(interrupted()),
    };
    let report = result?;
    std::fs::rename(hidden.file(), &args.output)
        .map_err(|error| usage(format!("{}: {error}", args.output.display())))?;
    print(&report, &args.output, json);
    Ok(OK)
}

/// A folder beside the output that nobody looks at, so that the output appears at once and whole, and the encoder
/// may write into no other. Removed when it is dropped.
struct Hidden(PathBuf);

impl Hidden {
    fn beside(output: &Path) -> Result<Self, ErrorInfo> {
        let usage = |message: String| ErrorInfo::permanent(codes::USAGE, message);
        let name = output.file_name().ok_or_else(|| usage("the output has no file name".into()))?;
        let folder =
            output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder =
            folder.canonicalize().map_err(|error| usage(format!("{}: {error}", folder.display())))?;
        let hidden = Self(folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id())));
        let created = std::fs::create_dir(&hidden.0).and_then(|()| std::fs::create_dir(hidden.scratch()));
        created.map_err(|error| usage(format!("{}: {error}", output.display())))?;
        Ok(hidden)
    }

    fn file(&self) -> PathBuf {
        self.0.join("output")
    }

    fn scratch(&self) -> PathBuf {
        self.0.join("scratch")
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // What cannot be removed is hidden, and named after its output.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn encode(
    config: &Config,
    input: &Path,
    hidden: &Hidden,
    args: &CogArgs,
) -> Result<CogReport, ErrorInfo> {
    let options = CogOptions {
        compression: args.compression.clone(),
        level: args.level,
        quality: args.quality,
        predictor: args.predictor.clone(),
        max_z_error: args.max_z_error,
        block_size: args.block_size,
        overview_resampling: args.overview_resampling.clone(),
        resampling: args.resampling.clone(),
        input_crs: args.input_crs.clone(),
        target_crs: args.target_crs.clone(),
        engine: match args.engine.as_str() {
            "native" => Engine::Native,
            "gdal" => Engine::Gdal,
            _ => Engine::Auto,
        },
        verify_pixels: args.verify_pixels,
        sparse: args.sparse,
    };
    let operation = Operation::CreateCog { source: input.to_owned(), target: hidden.file(), options };
    let bar = bar();
    let mut progress = |report: Report| match report {
        Report::Fraction(fraction) => bar.set_position((fraction * STEPS) as u64),
        // Nobody is before it in this process.
        Report::Waiting(_) => {}
    };
    let never = CancellationToken::new();
    let mut settings = config.worker.clone();
    if let Some(megabytes) = args.memory {
        settings.native_memory_bytes = megabytes << 20;
    }
    let native = Native::new(&settings, Arc::new(Admission::new(settings.memory_bytes)));
    let assignment = Assignment {
        operation,
        objects: Objects::default(),
        scratch: hidden.scratch(),
        limit: LIMIT,
        lean: false,
    };
    let answer = native.run(assignment, &never, &mut progress).await;
    bar.finish_and_clear();
    let value = answer.map_err(|failure| match failure {
        NativeFailure::Failed(error) => error,
        NativeFailure::Cancelled => interrupted(),
        NativeFailure::Deferred(reason) => ErrorInfo::new(codes::MEMORY, RetryClass::Resource, reason),
    })?;
    serde_json::from_value(value)
        .map_err(|error| ErrorInfo::permanent(codes::NATIVE_PROTOCOL, error.to_string()))
}

fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(STEPS as u64);
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} [{bar:40}] {percent} %") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn print(report: &CogReport, path: &Path, json: bool) {
    if json {
        output::json(report);
        return;
    }
    let verified = match (report.pixels_verified, report.engine) {
        (true, _) => "pixels equal the source's",
        (false, Engine::Native) => "verified by a sample",
        (false, _) => "lossy or reprojected",
    };
    output::line(&format!(
        "{}: {} × {}, {} ({}), {} overviews, {} bytes, {verified}",
        path.display(),
        report.width,
        report.height,
        report.compression,
        report.predictor,
        report.overview_count,
        report.size_bytes
    ));
    for lost in &report.not_carried {
        eprintln!("warning: not carried over: {lost}");
    }
}

/// Checks the layout of a file: exit status 1 where it is not valid.
pub(crate) fn validate(file: &Path, json: bool) -> Outcome {
    let verdict = validate::validate_cog(file).map_err(|error: RasterError| {
        ErrorInfo::new(&error.code, RetryClass::from_name(&error.class), error.message)
    })?;
    if json {
        output::json(&verdict);
    } else {
        output::line(if verdict.valid { "valid" } else { "not valid" });
        for (kind, problem) in verdict
            .problems
            .iter()
            .map(|problem| ("problem", problem))
            .chain(verdict.warnings.iter().map(|problem| ("warning", problem)))
        {
            output::line(&format!("  {kind} {}: {}", problem.requirement, problem.message));
        }
    }
    Ok(if verdict.valid { OK } else { NEGATIVE })
}
