//! The operations as a child process runs them: a request on standard input, JSON lines on standard output.
//!
//! The request is one line. The child reads the header of its source, answers what the work will need, and waits
//! for the line [`GO`] before it does it. It has no way to reach anything but the paths in its request, and the object
//! that its supervisor reads for it (see [`crate::channel`]); a supervisor kills it to cancel.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::RasterError;
use crate::estimate::{Estimate, Plan, estimate};
use crate::model::CogOptions;
use crate::object::{CACHED_BYTES, OUTPUT_OBJECT, ObjectFacts};
use crate::{cog, environment, inspect, preview, statistics, validate};

/// Progress lines at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// The line that lets a child begin.
pub const GO: &str = "go";

/// What a child is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NativeRequest {
    /// The work.
    pub operation: Operation,
    /// Bytes of data memory that the child may have; 0 is no limit.
    pub memory_bytes: u64,
    /// Threads and buffers.
    pub plan: Plan,
    /// What is known of the source, where it is an object that the supervisor reads.
    pub source: Option<ObjectFacts>,
    /// Folder for temporary files; removed by the supervisor.
    pub scratch: PathBuf,
}

impl NativeRequest {
    /// Whether the supervisor reads or writes for it.
    #[must_use]
    pub fn has_objects(&self) -> bool {
        self.source.is_some() || self.operation.target() == Some(Path::new(OUTPUT_OBJECT))
    }
}

/// The work, with resolved paths.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the functions of this crate document what they take")]
pub enum Operation {
    Inspect { source: PathBuf, input_crs: Option<String> },
    Statistics { source: PathBuf, max_pixels: u64 },
    CreateCog { source: PathBuf, target: PathBuf, options: CogOptions },
    ValidateCog { source: PathBuf },
    Preview { source: PathBuf, target: PathBuf, max_edge: u32 },
}

/// One line that a child writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NativeLine {
    /// What the work will need; the first line, unless the header cannot be read.
    Needs(Estimate),
    /// 0 to 1.
    Progress(f64),
    /// The answer; the last line.
    Done(Value),
    /// The failure; the last line.
    Failed(RasterError),
}

/// Runs a request and writes its lines. Begins when `input` has the line [`GO`]; ends without an answer where it
/// ends without that line.
///
/// # Errors
/// Only where a line cannot be read or written: the supervisor is gone.
pub fn serve(request: &NativeRequest, input: &mut dyn BufRead, out: &mut dyn Write) -> io::Result<()> {
    environment::configure(request.plan.cache_mib, request.memory_bytes, Some(&request.scratch));
    match estimate(&request.operation, &request.plan) {
        Ok(mut needs) => {
            if request.has_objects() {
                needs.memory_bytes += CACHED_BYTES;
            }
            line(out, &NativeLine::Needs(needs))?;
        }
        Err(error) => return line(out, &NativeLine::Failed(error)),
    }
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    if answer.trim() != GO {
        return Ok(());
    }
    let mut last = Instant::now();
    let mut progress = |fraction: f64| {
        if last.elapsed() >= PROGRESS_INTERVAL {
            last = Instant::now();
            // A supervisor that is gone shows when the answer is written.
            let _ = line(out, &NativeLine::Progress(fraction));
        }
    };
    let result = run(&request.operation, &request.plan, &mut progress);
    let last_line = match result {
        Ok(value) => NativeLine::Done(value),
        Err(error) => NativeLine::Failed(error),
    };
    line(out, &last_line)
}

/// Runs one operation in this process.
///
/// # Errors
/// What the operation's function says.
pub fn run(operation: &Operation, plan: &Plan, progress: &mut dyn FnMut(f64)) -> Result<Value, RasterError> {
    let value = match operation {
        Operation::Inspect { source, input_crs } => to_value(inspect::inspect(source, input_crs.as_deref())?),
        Operation::Statistics { source, max_pixels } => {
            to_value(statistics::statistics(source, *max_pixels)?)
        }
        Operation::CreateCog { source, target, options } => {
            to_value(cog::create_cog(source, target, options, plan, progress)?)
        }
        Operation::ValidateCog { source } => to_value(validate::validate_cog(source)?),
        Operation::Preview { source, target, max_edge } => {
            to_value(preview::preview(source, target, *max_edge)?)
        }
    };
    value.map_err(|error| RasterError::permanent(crate::error::GDAL_ERROR, error.to_string()))
}

impl Operation {
    /// The file that the operation reads.
    #[must_use]
    pub fn source(&self) -> &Path {
        match self {
            Self::Inspect { source, .. }
            | Self::Statistics { source, .. }
            | Self::CreateCog { source, .. }
            | Self::ValidateCog { source }
            | Self::Preview { source, .. } => source,
        }
    }

    /// The file that the operation writes.
    #[must_use]
    pub fn target(&self) -> Option<&Path> {
        match self {
            Self::CreateCog { target, .. } | Self::Preview { target, .. } => Some(target),
            Self::Inspect { .. } | Self::Statistics { .. } | Self::ValidateCog { .. } => None,
        }
    }
}

fn to_value(answer: impl Serialize) -> Result<Value, serde_json::Error> {
    serde_json::to_value(answer)
}

fn line(out: &mut dyn Write, line: &NativeLine) -> io::Result<()> {
    serde_json::to_writer(&mut *out, line)?;
    out.write_all(b"\n")?;
    out.flush()
}
