//! What the HTTP side is told, and its fixed bounds.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use subtle::ConstantTimeEq as _;

/// Where nothing is set.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Bytes of a request's body.
pub(crate) const BODY_BYTES: usize = 1 << 20;
/// Connections at a time; more wait to be accepted.
pub(crate) const CONNECTIONS: usize = 256;
/// How long a client may take to send the head of a request, and a connection may be idle.
pub(crate) const HEAD_TIME: Duration = Duration::from_secs(10);
/// How long a request may take, from its head to the answer.
pub(crate) const REQUEST_TIME: Duration = Duration::from_secs(30);
/// How old a connection may grow before it is ended after its next answer: a client that does not read holds nothing.
pub(crate) const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// How long the last request of a connection may take once it is being ended.
pub(crate) const LAST_REQUEST_TIME: Duration = Duration::from_secs(5);

/// Settings of the HTTP side.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Where to listen.
    pub bind: Bind,
    /// What clients of the job API must show; none is no check.
    pub token: Option<Token>,
    /// Requests that the job API takes.
    pub rate: Rate,
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind {
    /// On 127.0.0.1:8080, or where that is taken on a free port of 127.0.0.1.
    Default,
    /// Here and nowhere else; port 0 is any free one.
    Given(SocketAddr),
}

impl Bind {
    /// The address to try first.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        match self {
            Self::Default => DEFAULT_ADDRESS,
            Self::Given(address) => address,
        }
    }
}

/// A bearer token. It is never shown.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// The text of `GEOWORKER_API_TOKEN`.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Compares in a time that tells nothing of the token but its length.
    pub(crate) fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Requests of all clients together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// In the long run. Default 50.
    pub per_second: u32,
    /// At once after a pause. Default 100.
    pub burst: u32,
}

impl Default for Rate {
    fn default() -> Self {
        Self { per_second: 50, burst: 100 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_matches_itself_alone_and_is_not_shown() {
        let token = Token::new("hunter2".into());
        assert!(token.is("hunter2"));
        for wrong in ["", "hunter", "hunter22", "Hunter2"] {
            assert!(!token.is(wrong), "{wrong}");
        }
        assert!(!format!("{token:?}").contains("hunter2"));
    }
}
