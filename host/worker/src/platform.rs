//! What all parts of a process share.

use std::sync::Arc;

use geoworker_blobs::Zones;
use geoworker_plugins::Registry;
use geoworker_queue::Queue;
use geoworker_store::Store;
use tokio::sync::Notify;

use crate::admission::Admission;
use crate::scratch::ScratchRoot;
use crate::settings::WorkerSettings;
use crate::truth::Truth;

/// Truth, transport, blobs, plugins and settings. Clones share everything.
#[derive(Clone)]
pub struct Platform {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The transport.
    pub queue: Arc<dyn Queue>,
    /// The blobs.
    pub zones: Arc<dyn Zones>,
    /// The plugins.
    pub registry: Arc<Registry>,
    /// What this process was told.
    pub settings: Arc<WorkerSettings>,
    pub(crate) outbox_written: Arc<Notify>,
    pub(crate) truth: Arc<Truth>,
    pub(crate) scratch: Arc<ScratchRoot>,
    /// What the native operations of this process share.
    pub(crate) admission: Arc<Admission>,
}

impl Platform {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        queue: Arc<dyn Queue>,
        zones: Arc<dyn Zones>,
        registry: Arc<Registry>,
        settings: WorkerSettings,
    ) -> Self {
        let settings = Arc::new(settings);
        let (outbox_written, truth, scratch) = (Arc::default(), Arc::default(), Arc::default());
        let admission = Arc::new(Admission::new(settings.memory_bytes));
        Self { store, queue, zones, registry, settings, outbox_written, truth, scratch, admission }
    }

    pub(crate) fn jobs_queue(&self) -> &str {
        &self.settings.router.queues.jobs
    }
}
