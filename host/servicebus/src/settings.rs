//! Where the broker is and how to get in.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::connection_string::{ConnectionString, ConnectionStringError, host_and_port};
use geoworker_identity::TokenSource;

/// Domain of namespaces that are given by their short name.
const DOMAIN: &str = "servicebus.windows.net";

/// Settings of a client.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Host name or address of the namespace; an IPv6 address without its brackets.
    pub host: String,
    /// Port. Default 5671 with TLS, 5672 without.
    pub port: u16,
    /// Encryption.
    pub transport: Transport,
    /// How to prove who asks.
    pub credential: Credential,
    /// The one queue that the credential is for, where the connection string names one.
    pub entity: Option<String>,
    /// Time for one operation with all its repetitions, beyond what it is told to wait. Default 30 s.
    pub operation_timeout: Duration,
    /// Largest batch to send, bytes encoded; the link may allow less. Default 1 MiB, the service's limit for batches.
    pub max_batch: usize,
}

/// Encryption of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// TLS; certificates are checked against the public roots.
    Tls {
        /// More roots, a PEM file. Default none.
        extra_roots: Option<PathBuf>,
    },
    /// None: for emulators.
    Plain,
}

/// Proof of who asks.
#[derive(Clone)]
pub enum Credential {
    /// Shared access policy.
    SharedKey {
        /// Name of the policy.
        name: String,
        /// Key of the policy.
        key: String,
    },
    /// Tokens of an identity provider.
    Tokens(Arc<dyn TokenSource>),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedKey { name, .. } => {
                f.debug_struct("SharedKey").field("name", name).finish_non_exhaustive()
            }
            Self::Tokens(source) => f.debug_tuple("Tokens").field(source).finish(),
        }
    }
}

/// Which hosts may be talked to without encryption.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PlainHosts {
    /// This machine.
    #[default]
    Loopback,
    /// Every host, e.g. an emulator in a neighbouring container.
    Any,
}

/// Settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The connection string cannot be read.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// The namespace is not a host name.
    #[error("the Service Bus namespace is not a host name")]
    Namespace,
    /// `UseDevelopmentEmulator=true` for a host that is not this machine.
    #[error("{0} is not this machine: unencrypted AMQP to it must be allowed explicitly")]
    PlainHost(String),
}

impl Settings {
    /// Settings of a connection string. Only `UseDevelopmentEmulator=true` switches encryption off, and only for
    /// `plain_hosts`.
    ///
    /// # Errors
    ///
    /// The string cannot be read, or asks for plain AMQP to a host that is not allowed.
    pub fn from_connection_string(text: &str, plain_hosts: PlainHosts) -> Result<Self, SettingsError> {
        let parsed: ConnectionString = text.parse()?;
        if parsed.emulator && plain_hosts == PlainHosts::Loopback && !is_loopback(&parsed.host) {
            return Err(SettingsError::PlainHost(parsed.host));
        }
        let transport = if parsed.emulator { Transport::Plain } else { Transport::Tls { extra_roots: None } };
        let credential = Credential::SharedKey { name: parsed.key_name, key: parsed.key };
        Ok(Self { entity: parsed.entity, ..Self::new(parsed.host, parsed.port, transport, credential) })
    }

    /// Settings of a namespace, by its short name or its full host name, with an optional port; always encrypted.
    ///
    /// # Errors
    ///
    /// The namespace is not a host name.
    pub fn from_namespace(namespace: &str, tokens: Arc<dyn TokenSource>) -> Result<Self, SettingsError> {
        let (host, port) = host_and_port(namespace.trim()).ok_or(SettingsError::Namespace)?;
        let full = host.contains(['.', ':']) || is_loopback(&host);
        let host = if full { host } else { format!("{host}.{DOMAIN}") };
        Ok(Self::new(host, port, Transport::Tls { extra_roots: None }, Credential::Tokens(tokens)))
    }

    fn new(host: String, port: Option<u16>, transport: Transport, credential: Credential) -> Self {
        let usual = if transport == Transport::Plain { 5672 } else { 5671 };
        Self {
            host,
            port: port.unwrap_or(usual),
            transport,
            credential,
            entity: None,
            operation_timeout: Duration::from_secs(30),
            max_batch: 1024 * 1024,
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use geoworker_identity::{IdentityError, Token};

    fn emulator(host: &str, hosts: PlainHosts) -> Result<Settings, SettingsError> {
        let text = format!(
            "Endpoint=sb://{host};SharedAccessKeyName=n;SharedAccessKey=secret;UseDevelopmentEmulator=true"
        );
        Settings::from_connection_string(&text, hosts)
    }

    #[test]
    fn plain_amqp_stays_on_this_machine_unless_allowed() {
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            let settings = emulator(host, PlainHosts::Loopback).expect("reads");
            assert_eq!((settings.transport, settings.port), (Transport::Plain, 5672));
        }
        let refused = emulator("emulator:5700", PlainHosts::Loopback).expect_err("refused");
        assert_eq!(refused, SettingsError::PlainHost("emulator".into()));
        let allowed = emulator("emulator:5700", PlainHosts::Any).expect("reads");
        assert_eq!((allowed.transport, allowed.port), (Transport::Plain, 5700));
    }

    #[test]
    fn without_the_emulator_the_connection_is_encrypted() {
        let text = "Endpoint=sb://localhost/;SharedAccessKeyName=n;SharedAccessKey=secret";
        let settings = Settings::from_connection_string(text, PlainHosts::Any).expect("reads");
        assert_eq!((&settings.transport, settings.port), (&Transport::Tls { extra_roots: None }, 5671));
        assert!(!format!("{settings:?}").contains("secret"));
    }

    #[derive(Debug)]
    struct NoTokens;

    #[async_trait::async_trait]
    impl TokenSource for NoTokens {
        async fn token(&self, _: &str) -> Result<Token, IdentityError> {
            Err(IdentityError::Refused("none".into()))
        }
    }

    #[test]
    fn a_namespace_is_a_short_or_a_full_name() {
        let read = |name| Settings::from_namespace(name, Arc::new(NoTokens)).map(|settings| settings.host);
        assert_eq!(read("Example").expect("reads"), "example.servicebus.windows.net");
        assert_eq!(read("bus.example.org").expect("reads"), "bus.example.org");
        assert_eq!(read("sb://example").expect_err("refused"), SettingsError::Namespace);
    }
}
