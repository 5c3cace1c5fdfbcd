//! `native-op`: one operation in a process of its own. The request is read, limits and confinement follow, and only
//! then anything of a user is opened.

use std::io::{self, BufRead, Read};
use std::process::ExitCode;

use geoworker_raster::channel::Channel;
use geoworker_raster::connect;
use geoworker_raster::native::{NativeRequest, serve};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::confine::confine;
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
    let mut input = io::stdin().lock();
    let mut text = String::new();
    input.by_ref().take(MAX_REQUEST).read_line(&mut text)?;
    let request: NativeRequest = serde_json::from_str(&text)?;
    if request.memory_bytes > 0 {
        let limit = Rlimit { current: Some(request.memory_bytes), maximum: Some(request.memory_bytes) };
        setrlimit(Resource::Data, limit)?;
    }
    if !confine(&request)? {
        eprintln!("native-op: this kernel has no Landlock: the process is not confined");
    }
    if request.has_objects() {
        // The supervisor says nothing after the request until it is asked: no answer is in the buffer of the input.
        connect(Box::new(Channel::over(&io::stdin())?), request.source.clone())?;
    }
    serve(&request, &mut input, &mut io::stdout())
}
