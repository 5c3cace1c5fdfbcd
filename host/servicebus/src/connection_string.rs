//! Connection strings: `Endpoint=sb://host[:port]/;SharedAccessKeyName=..;SharedAccessKey=..`.

use std::fmt;
use std::str::FromStr;

/// A parsed connection string.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    /// Host name or address, lower-case; an IPv6 address without its brackets.
    pub host: String,
    /// Port, where the endpoint names one.
    pub port: Option<u16>,
    /// Name of the access policy.
    pub key_name: String,
    /// Key of the access policy.
    pub key: String,
    /// `EntityPath`: the one queue that the key is for.
    pub entity: Option<String>,
    /// `UseDevelopmentEmulator=true`: plain AMQP.
    pub emulator: bool,
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionString")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("key_name", &self.key_name)
            .field("entity", &self.entity)
            .field("emulator", &self.emulator)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a connection string. Never holds a part of it that could be secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionStringError {
    /// A part is missing or empty.
    #[error("the connection string has no {0}")]
    Missing(&'static str),
    /// A part is there twice.
    #[error("the connection string has more than one {0}")]
    Repeated(&'static str),
    /// A part has no `=`, or a name that is not known. Counted from 1.
    #[error("part {0} of the connection string is not known")]
    Unknown(usize),
    /// A part that is there cannot be understood.
    #[error("the connection string has a wrong {0}")]
    Wrong(&'static str),
}

const ENDPOINT: &str = "Endpoint";
const KEY_NAME: &str = "SharedAccessKeyName";
const KEY: &str = "SharedAccessKey";
const ENTITY: &str = "EntityPath";
const EMULATOR: &str = "UseDevelopmentEmulator";
const NAMES: [&str; 5] = [ENDPOINT, KEY_NAME, KEY, ENTITY, EMULATOR];

impl FromStr for ConnectionString {
    type Err = ConnectionStringError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let values = split(text)?;
        let value = |name: &'static str| {
            let index = NAMES.iter().position(|known| *known == name)?;
            values[index].filter(|value| !value.is_empty())
        };
        let required = |name| value(name).ok_or(ConnectionStringError::Missing(name));
        let (host, port) = endpoint(required(ENDPOINT)?)?;
        let emulator = match value(EMULATOR) {
            None => false,
            Some(flag) if flag.eq_ignore_ascii_case("true") => true,
            Some(flag) if flag.eq_ignore_ascii_case("false") => false,
            Some(_) => return Err(ConnectionStringError::Wrong(EMULATOR)),
        };
        Ok(Self {
            host,
            port,
            key_name: required(KEY_NAME)?.to_owned(),
            key: required(KEY)?.to_owned(),
            entity: value(ENTITY).map(str::to_owned),
            emulator,
        })
    }
}

/// The values in the order of [`NAMES`]. Names are compared without case; values may hold `=`.
fn split(text: &str) -> Result<[Option<&str>; NAMES.len()], ConnectionStringError> {
    let mut values = [None; NAMES.len()];
    let parts = text.split(';').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty());
    for (index, part) in parts {
        let unknown = ConnectionStringError::Unknown(index + 1);
        let (name, value) = part.split_once('=').ok_or(unknown.clone())?;
        let known = NAMES.iter().position(|known| known.eq_ignore_ascii_case(name.trim())).ok_or(unknown)?;
        if values[known].replace(value.trim()).is_some() {
            return Err(ConnectionStringError::Repeated(NAMES[known]));
        }
    }
    Ok(values)
}

/// Host and port of `sb://host[:port]/`.
fn endpoint(text: &str) -> Result<(String, Option<u16>), ConnectionStringError> {
    let wrong = ConnectionStringError::Wrong(ENDPOINT);
    let (scheme, rest) = text.split_once("://").ok_or(wrong.clone())?;
    if !["sb", "amqp", "amqps"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
        return Err(wrong);
    }
    host_and_port(rest.strip_suffix('/').unwrap_or(rest)).ok_or(wrong)
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(crate) fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (name(host)?, Some(port)),
            None => (name(text)?, None),
        },
    };
    let port = match port {
        Some(port) => Some(port.parse().ok().filter(|port| *port > 0)?),
        None => None,
    };
    Some((host.to_ascii_lowercase(), port))
}

fn name(host: &str) -> Option<&str> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (!host.is_empty() && host.chars().all(good)).then_some(host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<ConnectionString, ConnectionStringError> {
        text.parse()
    }

    #[test]
    fn a_connection_string_of_the_portal_is_read() {
        let read = parse(
            "Endpoint=sb://Example.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=a+b/c=;EntityPath=tasks",
        )
        .expect("parses");
        let wanted = ConnectionString {
            host: "example.servicebus.windows.net".into(),
            port: None,
            key_name: "Root".into(),
            key: "a+b/c=".into(),
            entity: Some("tasks".into()),
            emulator: false,
        };
        assert_eq!(read, wanted);
    }

    #[test]
    fn an_emulator_may_have_a_port_and_an_ipv6_address() {
        let tail = "SharedAccessKeyName=n;SharedAccessKey=k;UseDevelopmentEmulator=true;";
        let read = parse(&format!("Endpoint=sb://localhost:5700;{tail}")).expect("parses");
        assert_eq!((read.host.as_str(), read.port, read.emulator), ("localhost", Some(5700), true));
        let read = parse(&format!("Endpoint=sb://[::1]:5700/;{tail}")).expect("parses");
        assert_eq!((read.host.as_str(), read.port), ("::1", Some(5700)));
    }

    #[test]
    fn what_is_missing_is_named() {
        use ConnectionStringError::{Missing, Repeated, Unknown, Wrong};
        let cases = [
            ("", Missing("Endpoint")),
            ("Endpoint=sb://h/;SharedAccessKey=k", Missing("SharedAccessKeyName")),
            ("Endpoint=sb://h/;SharedAccessKeyName=n;SharedAccessKey=", Missing("SharedAccessKey")),
            ("Endpoint=sb://h/;Endpoint=sb://h/", Repeated("Endpoint")),
            ("Endpoint=sb://h/;k3y", Unknown(2)),
            ("Endpoint=https://h/", Wrong("Endpoint")),
            ("Endpoint=sb://h:0/", Wrong("Endpoint")),
            ("Endpoint=sb:///", Wrong("Endpoint")),
            ("Endpoint=sb://h/;UseDevelopmentEmulator=yes", Wrong("UseDevelopmentEmulator")),
        ];
        for (text, error) in cases {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_part_comes_back(
            host in "[a-z][a-z0-9-]{0,20}(\\.[a-z0-9]{1,9}){0,3}",
            port in prop::option::of(1u16..),
            key_name in "[A-Za-z0-9_-]{1,20}",
            key in "[A-Za-z0-9+/]{1,60}={0,2}",
            entity in prop::option::of("[a-z0-9/_-]{1,20}"),
            emulator: bool,
            order in Just(vec![0, 1, 2, 3, 4]).prop_shuffle(),
        ) {
            let authority = port.map_or(host.clone(), |port| format!("{host}:{port}"));
            let parts = [
                format!("Endpoint=sb://{authority}/"),
                format!("SharedAccessKeyName={key_name}"),
                format!("sharedaccesskey={key}"),
                entity.as_ref().map(|entity| format!("EntityPath={entity}")).unwrap_or_default(),
                format!("UseDevelopmentEmulator={emulator}"),
            ];
            let text: Vec<&str> = order.into_iter().map(|index: usize| parts[index].as_str()).collect();
            let read = parse(&text.join(";")).expect("parses");
            prop_assert_eq!(read, ConnectionString { host, port, key_name, key, entity, emulator });
        }

        #[test]
        fn no_text_panics_or_leaks(text in "\\PC{0,80}") {
            let secret = "s3cretKey0123456789";
            let text = format!("{text};SharedAccessKey={secret}");
            let shown = match parse(&text) {
                Ok(read) => format!("{read:?}"),
                Err(error) => format!("{error} {error:?}"),
            };
            prop_assert!(!shown.contains(secret));
        }
    }
}
