//! What all parts of a process share.

use std::sync::Arc;

use geoworker_blobs::Zones;
use geoworker_plugins::{Plugins, Registry};
use geoworker_queue::Queue;
use geoworker_store::Store;
use tokio::sync::Notify;

use crate::admission::Admission;
use crate::decisions::Recorder;
use crate::metrics::Metrics;
use crate::missing::Missing;
use crate::plugin_calls::PluginCalls;
use crate::pulse::Pulse;
use crate::scratch::ScratchRoot;
use crate::settings::WorkerSettings;
use crate::storage::Storage;
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
    pub plugins: Plugins,
    /// What this process was told.
    pub settings: Arc<WorkerSettings>,
    /// Whether the receive loops turn.
    pub pulse: Arc<Pulse>,
    /// What this process counts.
    pub metrics: Arc<Metrics>,
    pub(crate) outbox_written: Arc<Notify>,
    pub(crate) missing: Arc<Missing>,
    pub(crate) truth: Arc<Truth>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) scratch: Arc<ScratchRoot>,
    /// What the native operations of this process share.
    pub(crate) admission: Arc<Admission>,
    /// Where decisions of plugins are recorded; none records nothing.
    pub(crate) decisions: Option<Arc<Recorder>>,
}

impl Platform {
    /// Puts the parts together.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        queue: Arc<dyn Queue>,
        zones: Arc<dyn Zones>,
        plugins: Plugins,
        settings: WorkerSettings,
    ) -> Self {
        let settings = Arc::new(settings);
        let (outbox_written, truth, scratch) = (Arc::default(), Arc::default(), Arc::default());
        let (storage, missing) = (Arc::default(), Arc::default());
        let admission = Arc::new(Admission::new(settings.memory_bytes));
        let (pulse, metrics) = (Arc::default(), Arc::default());
        Self {
            store,
            queue,
            zones,
            plugins,
            settings,
            pulse,
            metrics,
            outbox_written,
            missing,
            truth,
            storage,
            scratch,
            admission,
            decisions: None,
        }
    }

    /// Shows what the plugins' engine counts among the metrics. Before [`Self::recording`], which counts there too.
    #[must_use]
    pub fn counting(self, calls: PluginCalls) -> Self {
        Self { metrics: Arc::new(Metrics::with_calls(calls)), ..self }
    }

    /// The generation of plugins that serves now. Whoever needs several answers that fit each other takes it once.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.plugins.current()
    }

    /// Whether the database answered last; where it did not, no work is taken (R18).
    #[must_use]
    pub fn database_answers(&self) -> bool {
        self.truth.is_there()
    }

    /// Whether the blob storage answers; where it does not, no work is taken (R18).
    #[must_use]
    pub fn storage_answers(&self) -> bool {
        self.storage.is_there()
    }

    /// Tasks that run in this process.
    #[must_use]
    pub fn busy(&self) -> u32 {
        self.truth.busy()
    }

    pub(crate) fn jobs_queue(&self) -> &str {
        &self.settings.router.queues.jobs
    }
}
