//! Modes: which queues a process serves and where it sends what it does not serve (R1, R2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the specification; MODES describes each")]
pub enum AppMode {
    Standalone,
    PlatformRaster,
    PlatformVector,
    PlatformOnly,
    WorkerRaster,
    WorkerVector,
    WorkerDocker,
}

/// One row of the mode table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "the columns of requirement R2")]
pub struct ModeProperties {
    /// Serves the job API.
    pub http: bool,
    /// Consumes the jobs queue.
    pub jobs_queue: bool,
    /// Consumes the raster tasks queue.
    pub raster_queue: bool,
    /// Consumes the vector tasks queue.
    pub vector_queue: bool,
    /// Consumes the long-running tasks queue.
    pub long_queue: bool,
    /// Leaves raster tasks to another process.
    pub routes_raster_out: bool,
    /// Leaves vector tasks to another process.
    pub routes_vector_out: bool,
    /// Signals `stage_complete` instead of advancing stages itself.
    pub worker: bool,
    /// Runs in the worker container.
    pub docker: bool,
}

/// All modes, in the order of the specification.
pub const MODES: &[(AppMode, &str)] = &[
    (AppMode::Standalone, "standalone"),
    (AppMode::PlatformRaster, "platform_raster"),
    (AppMode::PlatformVector, "platform_vector"),
    (AppMode::PlatformOnly, "platform_only"),
    (AppMode::WorkerRaster, "worker_raster"),
    (AppMode::WorkerVector, "worker_vector"),
    (AppMode::WorkerDocker, "worker_docker"),
];

impl AppMode {
    /// The name in `APP_MODE`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        MODES.iter().find(|(mode, _)| *mode == self).map_or("standalone", |(_, name)| name)
    }

    /// The row of the mode table.
    #[must_use]
    pub fn properties(self) -> ModeProperties {
        let row = match self {
            //                      http jobs rast vect long r.out v.out work dock
            Self::Standalone =>
            /**/
            {
                [1, 1, 1, 1, 1, 0, 0, 0, 0]
            }
            Self::PlatformRaster => [1, 1, 1, 0, 0, 0, 1, 0, 0],
            Self::PlatformVector => [1, 1, 0, 1, 0, 1, 0, 0, 0],
            Self::PlatformOnly =>
            /**/
            {
                [1, 1, 0, 0, 0, 1, 1, 0, 0]
            }
            Self::WorkerRaster =>
            /**/
            {
                [1, 0, 1, 0, 0, 0, 0, 1, 0]
            }
            Self::WorkerVector =>
            /**/
            {
                [1, 0, 0, 1, 0, 0, 0, 1, 0]
            }
            Self::WorkerDocker =>
            /**/
            {
                [0, 0, 0, 0, 1, 0, 0, 1, 1]
            }
        };
        let [http, jobs, raster, vector, long, raster_out, vector_out, worker, docker] =
            row.map(|cell| cell == 1);
        ModeProperties {
            http,
            jobs_queue: jobs,
            raster_queue: raster,
            vector_queue: vector,
            long_queue: long,
            routes_raster_out: raster_out,
            routes_vector_out: vector_out,
            worker,
            docker,
        }
    }
}

/// An `APP_MODE` that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("APP_MODE is '{0}'; valid are {list}", list = names())]
pub struct UnknownMode(String);

impl FromStr for AppMode {
    type Err = UnknownMode;
    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        let found = MODES.iter().find(|(_, name)| *name == text);
        found.map(|(mode, _)| *mode).ok_or_else(|| UnknownMode(text.to_owned()))
    }
}

impl fmt::Display for AppMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn names() -> String {
    MODES.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R2, letter by letter as in the specification.
    #[test]
    fn properties_are_those_of_the_specification() {
        let expected = "standalone YYYYYNNNN platform_raster YYYNNNYNN platform_vector YYNYNYNNN \
                        platform_only YYNNNYYNN worker_raster YNYNNNNYN worker_vector YNNYNNNYN \
                        worker_docker NNNNYNNYY";
        let letter = |flag: bool| if flag { 'Y' } else { 'N' };
        let actual: Vec<String> = MODES
            .iter()
            .map(|(mode, name)| {
                let p = mode.properties();
                let cells = [
                    p.http,
                    p.jobs_queue,
                    p.raster_queue,
                    p.vector_queue,
                    p.long_queue,
                    p.routes_raster_out,
                    p.routes_vector_out,
                    p.worker,
                    p.docker,
                ];
                format!("{name} {}", cells.map(letter).iter().collect::<String>())
            })
            .collect();
        assert_eq!(actual.join(" "), expected);
    }

    /// R1: no silent fallback.
    #[test]
    fn an_unknown_mode_is_an_error_that_lists_the_valid_ones() {
        let error = "docker".parse::<AppMode>().expect_err("is not a mode").to_string();
        assert!(MODES.iter().all(|(_, name)| error.contains(name)), "{error}");
        assert_eq!("worker_docker".parse::<AppMode>().ok(), Some(AppMode::WorkerDocker));
    }
}
