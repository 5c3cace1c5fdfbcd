//! What a process counts, for Prometheus (R24).

use geoworker_store::records::{Fenced, Outcome};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::plugin_calls::PluginCalls;

/// Label names and values.
type Labels<const N: usize> = [(&'static str, String); N];

/// Counters of this process since its start.
#[derive(Debug, Default)]
pub struct Metrics {
    attempts: Family<Labels<2>, Counter>,
    operations: Family<Labels<2>, Counter>,
    leases_lost: Counter,
    pub(crate) decisions_dropped: Counter,
    plugin_calls: PluginCalls,
}

impl Metrics {
    /// Counters, with those that the plugins' engine counts in.
    pub(crate) fn with_calls(plugin_calls: PluginCalls) -> Self {
        Self { plugin_calls, ..Self::default() }
    }

    /// Makes the counters part of a registry, which adds `_total` to their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "geoworker_attempts_ended",
            "Attempts of tasks that ended here, by task type and outcome",
            self.attempts.clone(),
        );
        registry.register(
            "geoworker_operations",
            "Operations that handlers asked for, by operation and outcome; raster ones are native processes",
            self.operations.clone(),
        );
        registry.register(
            "geoworker_leases_lost",
            "Attempts abandoned because their lease was lost",
            self.leases_lost.clone(),
        );
        registry.register(
            "geoworker_decisions_dropped",
            "Decisions of plugins that were not recorded: no room, or the database did not take them",
            self.decisions_dropped.clone(),
        );
        self.plugin_calls.register(registry);
    }

    /// An attempt ended; `written` tells whether the database took its outcome.
    pub(crate) fn attempt_ended(&self, task_type: &str, outcome: &Outcome, written: Option<Fenced>) {
        let outcome = match outcome {
            _ if written != Some(Fenced::Accepted) => "not_accepted",
            Outcome::Completed(_) => "completed",
            Outcome::Failed(_) => "failed",
            Outcome::Retry { .. } => "retried",
            Outcome::GiveBack(_) => "given_back",
            Outcome::Deferred { .. } => "deferred",
            Outcome::Cancelled => "cancelled",
        };
        let labels = [("task_type", task_type.to_owned()), ("outcome", outcome.to_owned())];
        self.attempts.get_or_create(&labels).inc();
    }

    /// An operation of a handler ended.
    pub(crate) fn operation_ended(&self, operation: &str, succeeded: bool) {
        let outcome = if succeeded { "succeeded" } else { "failed" };
        let labels = [("operation", operation.to_owned()), ("outcome", outcome.to_owned())];
        self.operations.get_or_create(&labels).inc();
    }

    /// An attempt lost its lease.
    pub(crate) fn lease_lost(&self) {
        self.leases_lost.inc();
    }
}
