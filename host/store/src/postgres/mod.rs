//! PostgreSQL: one database, shared by any number of workers on any number of machines.

mod database;
mod dialect;
#[path = "../sql/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the statements are written once and compiled for both databases")]
mod sql;

pub use database::{PostgresDatabase, PostgresSettings};
pub use sql::DatabaseStore as PostgresStore;

#[cfg(test)]
mod tests {
    use geoworker_test_postgres::{NAME, PrivatePostgres};

    use super::*;
    use crate::StoreError;
    use crate::conformance::{self, PostgresClock};

    fn settings(server: &PrivatePostgres) -> PostgresSettings {
        PostgresSettings {
            host: server.host(),
            port: 5432,
            user: NAME.into(),
            password: None,
            database: NAME.into(),
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres_conforms() {
        let server = PrivatePostgres::start();
        let db = PostgresDatabase::open(&settings(&server)).await.expect("opens");
        conformance::run(&PostgresStore::new(db.clone()), &PostgresClock(db.clone())).await;
        db.close().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn two_openers_share_one_database() {
        let server = PrivatePostgres::start();
        let settings = settings(&server);
        let (one, two) = tokio::join!(PostgresDatabase::open(&settings), PostgresDatabase::open(&settings));
        let (one, two) = (one.expect("opens"), two.expect("opens"));
        conformance::two_openers(&PostgresStore::new(one.clone()), &PostgresStore::new(two.clone())).await;
        one.close().await;
        two.close().await;
    }

    /// A crash of the server costs the statements that were under way, and nothing else.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_crashed_server_is_found_again() {
        let server = PrivatePostgres::start();
        let db = PostgresDatabase::open(&settings(&server)).await.expect("opens");
        let store = PostgresStore::new(db.clone());
        assert!(crate::Store::jobs(&store, "", 1).await.expect("answers").is_empty());
        server.crash();
        let mut tries = 0;
        while let Err(error) = crate::Store::jobs(&store, "", 1).await {
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
            tries += 1;
            assert!(tries < 20, "the database is not found again");
        }
        let missing = PostgresSettings { database: "missing".into(), ..settings(&server) };
        assert!(PostgresDatabase::open(&missing).await.is_err());
        db.close().await;
    }
}
