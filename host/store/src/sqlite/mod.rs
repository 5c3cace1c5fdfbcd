//! SQLite, the embedded default: one file, shared by a server and any number of command lines.

mod database;
mod dialect;
#[path = "../sql/mod.rs"]
mod sql;

pub use database::SqliteDatabase;
pub use sql::DatabaseStore as SqliteStore;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_conforms() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = SqliteDatabase::open(&folder.path().join("t.db")).await.expect("opens");
        crate::conformance::run(&SqliteStore::new(db.clone()), &crate::conformance::SqliteClock(db)).await;
    }

    #[tokio::test]
    async fn sqlite_keeps_decisions() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = SqliteDatabase::open(&folder.path().join("t.db")).await.expect("opens");
        let clock = crate::conformance::SqliteClock(db.clone());
        crate::conformance::run_decisions(&SqliteStore::new(db), &clock).await;
    }

    /// Two processes may share one file: two databases opened on it are as good as two processes.
    #[tokio::test]
    async fn two_openers_share_one_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.db");
        let (one, two) = tokio::join!(SqliteDatabase::open(&path), SqliteDatabase::open(&path));
        let one = SqliteStore::new(one.expect("opens"));
        let two = SqliteStore::new(two.expect("opens"));
        crate::conformance::two_openers(&one, &two).await;
    }
}
