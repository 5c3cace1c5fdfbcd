//! Where a PostgreSQL database is, and how to get in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use geoworker_identity::TokenSource;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// A statement that waits longer for a lock fails and is tried again.
const LOCK_TIMEOUT: &str = "10s";
/// Every statement that runs often has its index. The tables of messages fill and empty faster than their statistics are
/// taken, and a planner that was told of an empty table would read all of it.
const INDEXES: [(&str, &str); 3] =
    [("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("enable_hashjoin", "off")];

/// Where the database is.
#[derive(Clone)]
pub struct PostgresSettings {
    /// Host name, or the folder of a Unix socket.
    pub host: String,
    /// Default 5432.
    pub port: u16,
    /// Role.
    pub user: String,
    /// What the role shows.
    pub credential: PostgresCredential,
    /// Database.
    pub database: String,
    /// Encryption; none on a Unix socket.
    pub tls: TlsMode,
    /// Certificates (PEM) to trust instead of the system's.
    pub root_certificates: Option<PathBuf>,
}

/// What a role shows at every new connection.
#[derive(Clone)]
pub enum PostgresCredential {
    /// A password.
    Password(String),
    /// A token for [`TOKEN_SCOPE`] in place of the password, renewed ahead of its end.
    Token(Arc<dyn TokenSource>),
}

/// Scope of tokens for Azure Database for PostgreSQL.
pub const TOKEN_SCOPE: &str = "https://ossrdbms-aad.database.windows.net/.default";

/// How connections are encrypted, as `sslmode` of PostgreSQL's own clients names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Not.
    Disable,
    /// Where the server offers it.
    Prefer,
    /// Always; anybody may be the server.
    Require,
    /// Always; the server's certificate is checked.
    VerifyCa,
    /// Always; the server's certificate and its host name are checked.
    VerifyFull,
}

/// All modes with their names.
const MODES: [(TlsMode, &str, PgSslMode); 5] = [
    (TlsMode::Disable, "disable", PgSslMode::Disable),
    (TlsMode::Prefer, "prefer", PgSslMode::Prefer),
    (TlsMode::Require, "require", PgSslMode::Require),
    (TlsMode::VerifyCa, "verify-ca", PgSslMode::VerifyCa),
    (TlsMode::VerifyFull, "verify-full", PgSslMode::VerifyFull),
];

impl TlsMode {
    /// Whether whoever answers has proved to be the server, as a token demands: it is shown in clear.
    #[must_use]
    pub fn proves_the_server(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }

    /// The name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        MODES.iter().find(|(mode, ..)| *mode == self).map_or("", |(_, name, _)| name)
    }

    fn option(self) -> PgSslMode {
        MODES.iter().find(|(mode, ..)| *mode == self).map_or(PgSslMode::VerifyFull, |(.., option)| *option)
    }
}

/// A mode that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is no TLS mode; they are disable, prefer, require, verify-ca and verify-full")]
pub struct UnknownTlsMode(String);

impl FromStr for TlsMode {
    type Err = UnknownTlsMode;
    fn from_str(text: &str) -> Result<Self, UnknownTlsMode> {
        let found = MODES.iter().find(|(_, name, _)| *name == text);
        found.map(|(mode, ..)| *mode).ok_or_else(|| UnknownTlsMode(text.escape_debug().to_string()))
    }
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, user, database, tls, .. } = self;
        let shown = match self.credential {
            PostgresCredential::Password(_) => "password",
            PostgresCredential::Token(_) => "token",
        };
        write!(f, "{user}@{host}:{port}/{database} ({shown}")?;
        if self.is_local() { write!(f, ")") } else { write!(f, ", TLS {})", tls.as_str()) }
    }
}

impl PostgresSettings {
    /// The host is the folder of a Unix socket.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.host.starts_with('/')
    }

    /// All but the credential.
    pub(super) fn options(&self) -> PgConnectOptions {
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .application_name("geoworker")
            .options([("lock_timeout", LOCK_TIMEOUT)])
            .options(INDEXES);
        if self.is_local() {
            return options.socket(&self.host).ssl_mode(PgSslMode::Disable);
        }
        if let Some(file) = &self.root_certificates {
            options = options.ssl_root_cert(file);
        }
        options.ssl_mode(self.tls.option())
    }
}
