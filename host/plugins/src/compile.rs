//! Compiling off the runtime's threads: once for each content at a time, and no more at a time than there are cores.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::available_parallelism;

use geoworker_machine::{ErrorInfo, codes};
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::component::Component;

use crate::cache::ArtefactCache;
use crate::engine::PluginEngine;

/// What everybody gets who waits for the same content.
type Flight = OnceCell<Result<Component, ErrorInfo>>;

/// The compilations of an engine.
pub(crate) struct Compiler {
    flights: Mutex<HashMap<String, Weak<Flight>>>,
    cores: Semaphore,
}

impl Default for Compiler {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, std::num::NonZero::get);
        Self { flights: Mutex::default(), cores: Semaphore::new(cores) }
    }
}

impl Compiler {
    /// The compiled form of a component, from the cache or by compiling.
    ///
    /// # Errors
    /// `PLUGIN_COMPILE`, `PLUGIN_NOT_PRECOMPILED`.
    pub(crate) async fn load_or_compile(
        &self,
        engine: &PluginEngine,
        cache: &ArtefactCache,
        digest: &str,
        bytes: Vec<u8>,
    ) -> Result<Component, ErrorInfo> {
        let flight = self.flight(digest);
        let compiled = flight.get_or_init(|| async {
            // The semaphore is never closed.
            let _core = self.cores.acquire().await;
            let (engine, cache, digest) = (engine.clone(), cache.clone(), digest.to_owned());
            let work = move || cache.load_or_compile(&engine, &digest, &bytes);
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
                let message = format!("the compiler failed: {error}");
                Err(ErrorInfo::permanent(codes::PLUGIN_COMPILE, message))
            })
        });
        compiled.await.clone()
    }

    fn flight(&self, digest: &str) -> Arc<Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(digest).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::default();
        flights.insert(digest.to_owned(), Arc::downgrade(&flight));
        flight
    }
}
