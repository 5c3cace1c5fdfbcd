//! How queues lock.

use std::time::Duration;

/// Settings of queues that are rows.
#[derive(Debug, Clone, Copy)]
pub struct QueueSettings {
    /// Length of a lock. Default 60 s.
    pub lock: Duration,
    /// Deliveries after which a message is set aside. Default 10.
    pub max_deliveries: u32,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { lock: Duration::from_secs(60), max_deliveries: 10 }
    }
}
