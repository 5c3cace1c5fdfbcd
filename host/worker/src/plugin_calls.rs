//! Calls into plugins, counted for Prometheus (R24).

use std::sync::atomic::Ordering;

use geoworker_machine::codes;
use geoworker_plugins::{CallObserver, CallReport};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Upper bounds in seconds: guests think in milliseconds, handlers wait for native operations.
const BUCKETS: [f64; 7] = [0.001, 0.005, 0.025, 0.1, 1.0, 10.0, 100.0];

type Labels<const N: usize> = [(&'static str, String); N];

/// Counters of calls into plugins. The labels are bounded: files, functions of the contract, and codes of the platform.
#[derive(Debug, Clone)]
pub struct PluginCalls {
    calls: Family<Labels<3>, Counter>,
    seconds: Family<Labels<2>, Histogram, fn() -> Histogram>,
    memory: Family<Labels<1>, Gauge>,
}

impl Default for PluginCalls {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        Self {
            calls: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            memory: Family::default(),
        }
    }
}

impl PluginCalls {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "geoworker_plugin_calls",
            "Calls into plugins by file, function and outcome: ok, stopped, a code of the platform, or failed",
            self.calls.clone(),
        );
        registry.register(
            "geoworker_plugin_call_seconds",
            "Length of calls into plugins, native operations included",
            self.seconds.clone(),
        );
        registry.register(
            "geoworker_plugin_memory_high_water_bytes",
            "Most linear memory that one call of the plugin had",
            self.memory.clone(),
        );
    }
}

impl CallObserver for PluginCalls {
    fn called(&self, report: &CallReport<'_>) {
        let plugin = ("plugin", report.plugin.to_owned());
        let export = ("export", report.export.to_owned());
        let outcome = ("outcome", outcome(report.outcome).to_owned());
        self.calls.get_or_create(&[plugin.clone(), export.clone(), outcome]).inc();
        self.seconds.get_or_create(&[plugin.clone(), export]).observe(report.duration.as_secs_f64());
        let memory = i64::try_from(report.usage.memory_bytes).unwrap_or(i64::MAX);
        self.memory.get_or_create(&[plugin]).inner().fetch_max(memory, Ordering::Relaxed);
    }
}

/// A guest may make up any number of codes: all of them are one outcome.
fn outcome(name: &str) -> &str {
    match name {
        "ok" | "stopped" => name,
        code => codes::find(code).map_or("failed", |known| known.name),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use geoworker_plugins::Usage;
    use prometheus_client::encoding::prometheus_text;

    use super::*;

    #[test]
    fn codes_of_guests_are_one_outcome_and_memory_is_the_most() {
        let calls = PluginCalls::default();
        for (outcome, memory_bytes) in [("ok", 10), ("PLUGIN_TRAP", 30), ("MADE_UP_1", 20), ("MADE_UP_2", 20)]
        {
            calls.called(&CallReport {
                plugin: "hello.wasm",
                digest: "",
                export: "handle",
                type_name: "hello_greet",
                outcome,
                duration: Duration::from_millis(2),
                usage: Usage { memory_bytes, ..Usage::default() },
            });
        }
        let (mut registry, mut text) = (Registry::default(), String::new());
        calls.register(&mut registry);
        prometheus_text::encode(&mut text, &registry).expect("writes");
        for line in [
            "geoworker_plugin_calls_total{plugin=\"hello.wasm\",export=\"handle\",outcome=\"failed\"} 2",
            "geoworker_plugin_calls_total{plugin=\"hello.wasm\",export=\"handle\",outcome=\"PLUGIN_TRAP\"} 1",
            "geoworker_plugin_call_seconds_bucket{plugin=\"hello.wasm\",export=\"handle\",le=\"0.005\"} 4",
            "geoworker_plugin_memory_high_water_bytes{plugin=\"hello.wasm\"} 30",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
