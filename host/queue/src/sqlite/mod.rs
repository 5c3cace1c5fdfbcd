//! The embedded queue: rows in the store's SQLite file.

mod dialect;
#[path = "../rows/mod.rs"]
mod rows;

pub use rows::DatabaseQueue as EmbeddedQueue;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use geoworker_store::SqliteDatabase;

    use super::*;
    use crate::settings::QueueSettings;

    #[tokio::test]
    async fn the_embedded_queue_conforms() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = SqliteDatabase::open(&folder.path().join("t.db")).await.expect("opens");
        let settings = QueueSettings { lock: Duration::from_millis(1500), max_deliveries: 3 };
        let (one, two) = (EmbeddedQueue::new(db.clone(), settings), EmbeddedQueue::new(db, settings));
        crate::conformance::run(&one, &two, settings).await;
    }
}
