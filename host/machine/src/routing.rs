//! Which queue a task goes to, and why (R9).

use serde::{Deserialize, Serialize};

/// Size in MB above which a task is long-running, where nothing else is configured.
pub const DEFAULT_SIZE_THRESHOLD_MB: u64 = 1200;
/// Job parameter that forces all tasks of a job onto the long-running queue.
pub const ROUTE_FLAG: &str = "_route_to_docker";

/// Names of the queues (R4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueNames {
    /// Job and stage_complete messages.
    pub jobs: String,
    /// Short raster tasks.
    pub raster: String,
    /// Short vector tasks.
    pub vector: String,
    /// Tasks of any length.
    pub long: String,
}

impl Default for QueueNames {
    fn default() -> Self {
        Self {
            jobs: "geospatial-jobs".into(),
            raster: "raster-tasks".into(),
            vector: "vector-tasks".into(),
            long: "long-running-tasks".into(),
        }
    }
}

/// Where a task goes and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Name of the queue.
    pub queue: String,
    /// One line, stored with the task.
    pub reason: String,
}

/// What the operator decides about routing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Router {
    /// Names of the queues.
    pub queues: QueueNames,
    /// Task types that always go to the long-running queue.
    pub long_running_types: Vec<String>,
    /// Inputs above this many bytes make a task long-running.
    pub size_threshold_bytes: u64,
}

/// What is known about the task to route.
#[derive(Debug, Clone, Copy)]
pub struct RouteFacts<'a> {
    /// The task's type.
    pub task_type: &'a str,
    /// `raster` or `vector`, as the type describes itself.
    pub class: &'a str,
    /// The job carries [`ROUTE_FLAG`].
    pub flagged: bool,
    /// Bytes of all inputs.
    pub input_bytes: u64,
    /// The plugin's own decision: `short`, `long` or empty.
    pub plugin_target: &'a str,
    /// The plugin's reason.
    pub plugin_reason: &'a str,
}

impl Router {
    /// The first rule that matches decides.
    #[must_use]
    pub fn route(&self, facts: &RouteFacts<'_>) -> Route {
        let long = |reason: String| Route { queue: self.queues.long.clone(), reason };
        if self.long_running_types.iter().any(|name| name == facts.task_type) {
            return long(format!("operator: {} is listed as long-running", facts.task_type));
        }
        if facts.flagged {
            return long(format!("job: {ROUTE_FLAG} is set"));
        }
        if self.size_threshold_bytes > 0 && facts.input_bytes > self.size_threshold_bytes {
            let megabytes = |bytes: u64| bytes as f64 / 1e6;
            return long(format!(
                "size: {:.1} MB of input is above the threshold of {:.1} MB",
                megabytes(facts.input_bytes),
                megabytes(self.size_threshold_bytes)
            ));
        }
        match facts.plugin_target {
            "long" => long(format!("plugin: {}", facts.plugin_reason)),
            "short" => self.by_class(facts.class, format!("plugin: {}", facts.plugin_reason)),
            _ => self.by_class(facts.class, format!("class: {}", facts.class)),
        }
    }

    fn by_class(&self, class: &str, reason: String) -> Route {
        let queue = if class == "vector" { &self.queues.vector } else { &self.queues.raster };
        Route { queue: queue.clone(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: RouteFacts<'static> = RouteFacts {
        task_type: "create_cog",
        class: "raster",
        flagged: false,
        input_bytes: 0,
        plugin_target: "",
        plugin_reason: "because",
    };

    fn router() -> Router {
        Router {
            size_threshold_bytes: 100,
            long_running_types: vec!["fathom_band_stack".into()],
            ..Router::default()
        }
    }

    /// R9: rules in order, each with its reason.
    #[test]
    fn the_first_matching_rule_decides() {
        let router = router();
        let listed = RouteFacts { task_type: "fathom_band_stack", flagged: true, ..FACTS };
        assert!(router.route(&listed).reason.starts_with("operator:"));
        let flagged = RouteFacts { flagged: true, input_bytes: 101, ..FACTS };
        assert!(router.route(&flagged).reason.starts_with("job:"));
        let large = RouteFacts { input_bytes: 101, plugin_target: "short", ..FACTS };
        assert!(router.route(&large).reason.starts_with("size:"));
        let plugin = RouteFacts { input_bytes: 100, plugin_target: "long", ..FACTS };
        assert_eq!(router.route(&plugin).reason, "plugin: because");
        assert_eq!(router.route(&plugin).queue, "long-running-tasks");
        assert_eq!(router.route(&FACTS).queue, "raster-tasks");
        let vector = RouteFacts { class: "vector", ..FACTS };
        assert_eq!(router.route(&vector).queue, "vector-tasks");
    }
}
