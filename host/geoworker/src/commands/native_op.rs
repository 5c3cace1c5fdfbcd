//! `native-op`: one operation in a process of its own. Limits come first, then the request is read.

use std::io::{self, Read};
use std::process::ExitCode;

use geoworker_raster::native::{NativeRequest, serve};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::exit;

/// Longest request.
const MAX_REQUEST: u64 = 1 << 20;

pub(crate) fn run() -> ExitCode {
    match limited() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("native-op: {error}");
            exit::ERROR.into()
        }
    }
}

fn limited() -> io::Result<()> {
    // An orphan has nobody to work for.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let mut text = String::new();
    io::stdin().take(MAX_REQUEST).read_to_string(&mut text)?;
    let request: NativeRequest = serde_json::from_str(&text)?;
    if request.memory_bytes > 0 {
        let limit = Rlimit { current: Some(request.memory_bytes), maximum: Some(request.memory_bytes) };
        setrlimit(Resource::Data, limit)?;
    }
    serve(&request, &mut io::stdout())
}
