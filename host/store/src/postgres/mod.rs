//! PostgreSQL: one database, shared by any number of workers on any number of machines.

mod credential;
mod database;
mod dialect;
mod settings;
#[path = "../sql/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the statements are written once and compiled for both databases")]
mod sql;

pub use database::PostgresDatabase;
pub use settings::{PostgresCredential, PostgresSettings, TOKEN_SCOPE, TlsMode};
pub use sql::DatabaseStore as PostgresStore;

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, SystemTime};

    use geoworker_identity::{IdentityError, Token, TokenSource};
    use geoworker_test_postgres::{NAME, PrivatePostgres};

    use super::*;
    use crate::StoreError;
    use crate::conformance::{self, PostgresClock};

    fn settings(server: &PrivatePostgres) -> PostgresSettings {
        settings_of(&server.host())
    }

    fn settings_of(host: &str) -> PostgresSettings {
        PostgresSettings {
            host: host.into(),
            port: 5432,
            user: NAME.into(),
            credential: PostgresCredential::Password("the socket asks for none".into()),
            database: NAME.into(),
            tls: TlsMode::Disable,
            root_certificates: None,
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres_conforms() {
        let server = PrivatePostgres::start();
        let db = PostgresDatabase::open(&settings(&server)).await.expect("opens");
        let store = PostgresStore::new(db.clone());
        conformance::run_decisions(&store, &PostgresClock(db.clone())).await;
        conformance::run(&store, &PostgresClock(db.clone())).await;
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

    /// Tokens that hold for a while; the text may change.
    #[derive(Debug)]
    struct Tokens {
        secret: Mutex<String>,
        life: Duration,
    }

    #[async_trait::async_trait]
    impl TokenSource for Tokens {
        async fn token(&self, scope: &str) -> Result<Token, IdentityError> {
            assert_eq!(scope, TOKEN_SCOPE);
            let secret = self.secret.lock().expect("is whole").clone();
            Ok(Token { secret, expires_at: SystemTime::now() + self.life })
        }
    }

    /// R5: without a password the role shows tokens; a new connection shows the one that holds now.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn tokens_stand_for_passwords_and_are_renewed() {
        let server = PrivatePostgres::start();
        let admin = PostgresDatabase::open(&settings(&server)).await.expect("opens");
        let run = async |statement: &'static str| {
            let mut connection = admin.read().await.expect("connects");
            sqlx::raw_sql(statement).execute(&mut *connection).await.expect("runs");
        };
        run("CREATE ROLE worker LOGIN SUPERUSER PASSWORD 'first'").await;
        server.ask_for_passwords("worker");
        run("SELECT pg_reload_conf()").await;
        let tokens = Arc::new(Tokens { secret: Mutex::new("first".into()), life: Duration::from_secs(3600) });
        let with_token = PostgresSettings {
            user: "worker".into(),
            credential: PostgresCredential::Token(tokens.clone()),
            ..settings(&server)
        };
        let db = PostgresDatabase::open(&with_token).await.expect("opens");
        *tokens.secret.lock().expect("is whole") = "second".into();
        let wrong = PostgresDatabase::open(&with_token).await;
        assert!(matches!(wrong, Err(StoreError::Denied(_))), "the server does look at it");
        run("ALTER ROLE worker PASSWORD 'second'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker'").await;
        // The next connection shows the old token and is refused; that is what has it renewed.
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        while let Err(error) = db.read().await {
            assert!(tokio::time::Instant::now() < end, "no new token was shown: {error}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        db.close().await;
        admin.close().await;
    }

    #[test]
    fn tls_modes_have_the_names_of_postgres_and_secrets_are_not_shown() {
        for mode in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
            assert_eq!(mode.parse::<TlsMode>().expect("is a mode").as_str(), mode);
        }
        assert!("verify".parse::<TlsMode>().is_err());
        let shown = format!("{:?}", PostgresSettings { tls: TlsMode::VerifyFull, ..settings_of("db") });
        assert_eq!(shown, "postgres@db:5432/postgres (password, TLS verify-full)");
    }
}
