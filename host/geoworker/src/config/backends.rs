//! Where truth, transport and blobs are. Everything has an embedded default; each is replaced on its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use geoworker_blobs::Account;
use geoworker_identity::{AzureIdentity, TokenSource};
use geoworker_machine::AppMode;
use geoworker_servicebus::{PlainHosts, Settings as ServiceBusSettings};
use geoworker_store::{PostgresCredential, PostgresSettings, TlsMode};
use serde_json::{Value, json};

use super::Reader;

/// Zones of every process.
pub(crate) const ZONES: [&str; 2] = ["bronze", "silver"];
/// What PostgreSQL needs at least.
const POSTGRES: [&str; 3] = ["POSTGRES_HOST", "POSTGRES_USER", "POSTGRES_DATABASE"];

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Backends {
    pub(crate) database: Database,
    pub(crate) transport: Transport,
    pub(crate) blobs: Blobs,
}

/// Where the truth is.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    /// A SQLite file in the data directory, for one server.
    Sqlite,
    /// A PostgreSQL database, for any number of workers.
    Postgres(PostgresSettings),
}

/// Where the messages are.
#[derive(Debug, Clone)]
pub(crate) enum Transport {
    /// Rows of the database.
    Database,
    /// Azure Service Bus.
    ServiceBus(ServiceBusSettings),
}

/// Where the zones are.
#[derive(Debug, Clone)]
pub(crate) enum Blobs {
    /// Folders of the data directory.
    Folders,
    /// A storage account for each.
    Azure(BTreeMap<String, Account>),
}

impl Backends {
    /// What needs nothing but a data directory.
    pub(crate) fn embedded() -> Self {
        Self { database: Database::Sqlite, transport: Transport::Database, blobs: Blobs::Folders }
    }

    pub(crate) fn to_json(&self) -> Value {
        let database = match &self.database {
            Database::Sqlite => "sqlite".to_owned(),
            Database::Postgres(settings) => format!("postgres {settings:?}"),
        };
        let queue = match &self.transport {
            Transport::Database => database.clone(),
            Transport::ServiceBus(settings) => format!("service bus {}:{}", settings.host, settings.port),
        };
        let blobs = match &self.blobs {
            Blobs::Folders => json!("folders"),
            Blobs::Azure(accounts) => {
                accounts.iter().map(|(zone, account)| (zone.clone(), json!(account.host()))).collect()
            }
        };
        json!({"database": database, "queue": queue, "blobs": blobs})
    }
}

impl Reader<'_> {
    /// Every mode but standalone shares a database with others; standalone may.
    pub(super) fn backends(&mut self, mode: AppMode) -> Backends {
        let database = self.database(mode);
        let transport = self.transport();
        if matches!((&database, &transport), (Database::Sqlite, Transport::ServiceBus(_))) {
            let message =
                "Service Bus carries hints about rows in a database that all processes share: it needs";
            self.problems.push(format!("{message} {}", POSTGRES.join(", ")));
        }
        Backends { database, transport, blobs: self.blobs() }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.source.get(name)
    }

    fn database(&mut self, mode: AppMode) -> Database {
        let asked = POSTGRES.iter().any(|name| self.text(name).is_some());
        if mode == AppMode::Standalone && !asked {
            return Database::Sqlite;
        }
        let missing: Vec<&str> = POSTGRES.into_iter().filter(|name| self.text(name).is_none()).collect();
        if !missing.is_empty() {
            let who = if asked { "PostgreSQL".to_owned() } else { format!("APP_MODE={mode}") };
            self.problems.push(format!("{who} needs {}", missing.join(", ")));
        }
        let host = self.text("POSTGRES_HOST").unwrap_or_default();
        let local = host.starts_with('/');
        let credential = match self.text("POSTGRES_PASSWORD") {
            Some(password) => PostgresCredential::Password(password),
            // The socket's server knows who asks.
            None if local || host.is_empty() => PostgresCredential::Password(String::new()),
            None => match self.identity("POSTGRES_PASSWORD is not set") {
                Some(identity) => PostgresCredential::Token(identity),
                None => PostgresCredential::Password(String::new()),
            },
        };
        let tls = self.tls(&host, &credential);
        Database::Postgres(PostgresSettings {
            host,
            port: self.number("POSTGRES_PORT", 5432),
            user: self.text("POSTGRES_USER").unwrap_or_default(),
            credential,
            database: self.text("POSTGRES_DATABASE").unwrap_or_default(),
            tls,
            root_certificates: self.text("POSTGRES_SSLROOTCERT").map(PathBuf::from),
        })
    }

    fn tls(&mut self, host: &str, credential: &PostgresCredential) -> TlsMode {
        let token = matches!(credential, PostgresCredential::Token(_));
        let usual = match host {
            _ if token => TlsMode::VerifyFull,
            "localhost" | "127.0.0.1" | "::1" => TlsMode::Prefer,
            _ => TlsMode::Require,
        };
        let Some(text) = self.text("POSTGRES_SSLMODE") else { return usual };
        match text.parse::<TlsMode>() {
            Ok(mode) if token && !mode.proves_the_server() => self.problems.push(format!(
                "POSTGRES_SSLMODE is {text}, and without POSTGRES_PASSWORD a token is shown in its place: use verify-ca \
                 or verify-full, or anybody could be the server that gets it"
            )),
            Ok(mode) => return mode,
            Err(error) => self.problems.push(format!("POSTGRES_SSLMODE: {error}")),
        }
        usual
    }

    fn transport(&mut self) -> Transport {
        let string = self.text("ServiceBusConnection");
        let namespace = self.text("SERVICE_BUS_NAMESPACE");
        let settings = match (string, namespace) {
            (None, None) => return Transport::Database,
            (Some(_), Some(_)) => {
                self.problems
                    .push("ServiceBusConnection and SERVICE_BUS_NAMESPACE are both set: use one".into());
                return Transport::Database;
            }
            (Some(string), None) => {
                let plain =
                    if self.flag("SERVICE_BUS_ALLOW_PLAIN") { PlainHosts::Any } else { PlainHosts::Loopback };
                ServiceBusSettings::from_connection_string(&string, plain)
                    .map_err(|error| format!("ServiceBusConnection: {error}"))
            }
            (None, Some(namespace)) => {
                let Some(identity) = self.identity("SERVICE_BUS_NAMESPACE is set") else {
                    return Transport::Database;
                };
                ServiceBusSettings::from_namespace(&namespace, identity)
                    .map_err(|error| format!("SERVICE_BUS_NAMESPACE: {error}"))
            }
        };
        match settings {
            Ok(settings) if settings.entity.is_some() => {
                let problem =
                    "ServiceBusConnection names one queue (EntityPath), and there are four: leave it out";
                self.problems.push(problem.into());
                Transport::Database
            }
            Ok(settings) => Transport::ServiceBus(settings),
            Err(problem) => {
                self.problems.push(problem);
                Transport::Database
            }
        }
    }

    fn blobs(&mut self) -> Blobs {
        let mut accounts = BTreeMap::new();
        let mut missing = Vec::new();
        for zone in ZONES {
            let upper = zone.to_uppercase();
            let (name, string) = (format!("{upper}_STORAGE_ACCOUNT"), format!("{upper}_STORAGE_CONNECTION"));
            let account = match (self.text(&name), self.text(&string)) {
                (None, None) => {
                    missing.push(format!("{name} or {string}"));
                    continue;
                }
                (Some(_), Some(_)) => {
                    self.problems.push(format!("{name} and {string} are both set: use one"));
                    continue;
                }
                (Some(account), None) => {
                    let Some(identity) = self.identity(&format!("{name} is set")) else { continue };
                    Account::with_identity(&account, identity).map_err(|error| format!("{name}: {error}"))
                }
                (None, Some(text)) => {
                    Account::from_connection_string(&text).map_err(|error| format!("{string}: {error}"))
                }
            };
            match account {
                Ok(account) => drop(accounts.insert(zone.to_owned(), account)),
                Err(problem) => self.problems.push(problem),
            }
        }
        if accounts.is_empty() {
            return Blobs::Folders;
        }
        if !missing.is_empty() {
            self.problems.push(format!("every zone needs a storage account: set {}", missing.join(", ")));
        }
        Blobs::Azure(accounts)
    }

    /// The identity of this process, made when it is needed first.
    fn identity(&mut self, because: &str) -> Option<Arc<dyn TokenSource>> {
        if let Some(identity) = &self.identity {
            return Some(Arc::clone(identity));
        }
        let source = self.source;
        match AzureIdentity::from_environment(&|name| source.get(name)) {
            Ok(identity) => {
                let identity: Arc<dyn TokenSource> = Arc::new(identity);
                self.identity = Some(Arc::clone(&identity));
                Some(identity)
            }
            Err(error) => {
                self.problems.push(format!("{because}, so that an identity is needed: {error}"));
                None
            }
        }
    }

    fn flag(&mut self, name: &str) -> bool {
        match self.text(name).as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(other) => {
                self.problems.push(format!("{name} is '{}', not true or false", other.escape_debug()));
                false
            }
        }
    }
}
