//! Queues as rows of the store's PostgreSQL: many workers on many machines, without another broker.

mod dialect;
#[path = "../rows/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the queue is written once and compiled for both databases")]
mod rows;

pub use rows::DatabaseQueue as PostgresQueue;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use geoworker_store::{PostgresCredential, PostgresDatabase, PostgresSettings, TlsMode};
    use geoworker_test_postgres::{NAME, PrivatePostgres};

    use super::*;
    use crate::settings::QueueSettings;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_postgres_queue_conforms() {
        let server = PrivatePostgres::start();
        let settings = PostgresSettings {
            host: server.host(),
            port: 5432,
            user: NAME.into(),
            credential: PostgresCredential::Password("the socket asks for none".into()),
            database: NAME.into(),
            tls: TlsMode::Disable,
            root_certificates: None,
        };
        let db = PostgresDatabase::open(&settings).await.expect("opens");
        let settings = QueueSettings { lock: Duration::from_millis(1500), max_deliveries: 3 };
        let (one, two) = (PostgresQueue::new(db.clone(), settings), PostgresQueue::new(db.clone(), settings));
        crate::conformance::run(&one, &two, settings).await;
        drop((one, two));
        db.close().await;
    }
}
