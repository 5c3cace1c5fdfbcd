//! What all requests share.

use std::sync::{Arc, OnceLock};

use axum::http::StatusCode;
use geoworker_machine::codes;
use geoworker_worker::Platform;
use tokio_util::sync::CancellationToken;

use crate::health::History;
use crate::metrics::HttpMetrics;
use crate::problem::Problem;
use crate::rate::Bucket;
use crate::settings::HttpSettings;

/// The state of the HTTP side.
#[derive(Clone)]
pub(crate) struct Api(Arc<Shared>);

/// See [`Api`].
pub(crate) struct Shared {
    pub(crate) settings: HttpSettings,
    /// Only this machine can reach it.
    pub(crate) loopback: bool,
    /// The process is ending.
    pub(crate) stop: CancellationToken,
    pub(crate) bucket: Bucket,
    pub(crate) metrics: HttpMetrics,
    pub(crate) history: History,
    platform: OnceLock<Platform>,
}

impl std::ops::Deref for Api {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Api {
    pub(crate) fn new(settings: HttpSettings, loopback: bool, stop: CancellationToken) -> Self {
        Self(Arc::new(Shared {
            bucket: Bucket::new(settings.rate),
            settings,
            loopback,
            stop,
            metrics: HttpMetrics::default(),
            history: History::default(),
            platform: OnceLock::new(),
        }))
    }

    /// The database is there, and the plugins are loaded.
    pub(crate) fn attach(&self, platform: Platform) {
        self.metrics.add(&platform);
        // A process has one platform: a second call changes nothing.
        let _ = self.platform.set(platform);
    }

    /// The platform, once there is one.
    pub(crate) fn attached(&self) -> Option<&Platform> {
        self.platform.get()
    }

    /// The platform.
    ///
    /// # Errors
    /// Status 503 while there is none.
    pub(crate) fn platform(&self) -> Result<&Platform, Problem> {
        self.attached().ok_or_else(|| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, codes::STARTING, "the server is starting")
        })
    }
}
