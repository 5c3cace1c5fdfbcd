//! The engine: configuration and the clock that interrupts guests.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use geoworker_machine::{ErrorInfo, codes};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Engine};

use crate::bindings;
use crate::compile::Compiler;
use crate::guest::GuestState;
use crate::usage::{CallObserver, Observer};

/// How often guests are looked at. A CPU limit is exact to this.
pub(crate) const TICK: Duration = Duration::from_millis(5);
/// Stack of a guest.
const WASM_STACK: usize = 512 * 1024;

/// Compiles and runs guests. Clones share everything.
#[derive(Clone)]
pub struct PluginEngine {
    engine: Engine,
    linker: Arc<Linker<GuestState>>,
    observer: Observer,
    metered: bool,
    compiler: Arc<Compiler>,
    compilations: Arc<AtomicU64>,
}

impl PluginEngine {
    /// An engine with its ticker thread, which ends with the engine.
    ///
    /// # Errors
    /// Where this processor cannot be compiled for.
    pub fn new() -> wasmtime::Result<Self> {
        let engine = Self::build(false)?;
        start_ticker(&engine.engine);
        Ok(engine)
    }

    /// As [`Self::new`], and counts instructions: for budgets of tests, at the price of slower guests.
    ///
    /// # Errors
    /// Where this processor cannot be compiled for.
    pub fn metered() -> wasmtime::Result<Self> {
        let engine = Self::build(true)?;
        start_ticker(&engine.engine);
        Ok(engine)
    }

    /// An engine whose clock stands: guests are neither interrupted nor limited in CPU time, so that a simulation with
    /// trusted guests repeats itself exactly.
    ///
    /// # Errors
    /// Where this processor cannot be compiled for.
    pub fn without_clock() -> wasmtime::Result<Self> {
        Self::build(false)
    }

    /// This engine, with somebody who is told of every call into plugins that it loads from now on.
    #[must_use]
    pub fn observed_by(self, observer: Arc<dyn CallObserver>) -> Self {
        Self { observer: Some(observer), ..self }
    }

    fn build(metered: bool) -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config.wasm_component_model(true).epoch_interruption(true).max_wasm_stack(WASM_STACK);
        config.consume_fuel(metered);
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        bindings::Plugin::add_to_linker::<_, HasSelf<GuestState>>(&mut linker, |state| state)?;
        let (compiler, compilations) = (Arc::default(), Arc::default());
        Ok(Self { engine, linker: Arc::new(linker), observer: None, metered, compiler, compilations })
    }

    /// Components that were compiled here; those that came out of a cache do not count.
    #[must_use]
    pub fn compilations(&self) -> u64 {
        self.compilations.load(Ordering::Relaxed)
    }

    /// Compiles a component on this thread.
    ///
    /// # Errors
    /// `PLUGIN_COMPILE`.
    pub(crate) fn compile(&self, bytes: &[u8]) -> Result<Component, ErrorInfo> {
        self.compilations.fetch_add(1, Ordering::Relaxed);
        Component::new(&self.engine, bytes).map_err(|error| {
            let message = format!("the component does not compile: {}", error.root_cause());
            ErrorInfo::permanent(codes::PLUGIN_COMPILE, message)
        })
    }

    /// The one way to a compiled component.
    pub(crate) fn compiler(&self) -> &Compiler {
        &self.compiler
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn observer(&self) -> Option<&dyn CallObserver> {
        self.observer.as_deref()
    }

    /// Whether stores of this engine must be given fuel.
    pub(crate) fn is_metered(&self) -> bool {
        self.metered
    }

    pub(crate) fn linker(&self) -> &Linker<GuestState> {
        &self.linker
    }

    /// Changes whenever a compiled artefact of another engine would not fit.
    pub(crate) fn compatibility(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.engine.precompile_compatibility_hash().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

impl std::fmt::Debug for PluginEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginEngine").finish_non_exhaustive()
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own that does nothing but sleep and tick")]
fn start_ticker(engine: &Engine) {
    let weak = engine.weak();
    std::thread::spawn(move || {
        while let Some(engine) = weak.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    });
}
