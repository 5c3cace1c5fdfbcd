//! Settings of HTTP: `GEOWORKER_HTTP`, `GEOWORKER_API_TOKEN`, `GEOWORKER_HTTP_RATE`.

use std::net::SocketAddr;

use geoworker_api::{Bind, HttpSettings, Rate, Token};
use geoworker_machine::AppMode;
use serde_json::{Value, json};

use crate::config::Source;

const ADDRESS: &str = "GEOWORKER_HTTP";
const TOKEN: &str = "GEOWORKER_API_TOKEN";
const RATE: &str = "GEOWORKER_HTTP_RATE";
/// Where nothing listens.
const OFF: &str = "off";

/// Reads them; none where nothing is to listen. What is wrong goes to `problems`.
pub(crate) fn read(mode: AppMode, source: &dyn Source, problems: &mut Vec<String>) -> Option<HttpSettings> {
    let bind = match source.get(ADDRESS) {
        None => Bind::Default,
        Some(text) if text.trim().eq_ignore_ascii_case(OFF) => return None,
        Some(text) => match address(text.trim()) {
            Some(address) => Bind::Given(address),
            None => {
                problems.push(format!("{ADDRESS} is '{text}', not ADDRESS:PORT, :PORT or {OFF}"));
                Bind::Default
            }
        },
    };
    let token = source.get(TOKEN).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if token.is_none() && mode.properties().http && !bind.address().ip().is_loopback() {
        problems
            .push(format!("{ADDRESS}={} is not loopback: the job API needs {TOKEN} there", bind.address()));
    }
    let rate = match source.get(RATE) {
        None => Rate::default(),
        Some(text) => rate(text.trim()).unwrap_or_else(|| {
            problems.push(format!("{RATE} is '{text}', not REQUESTS or REQUESTS/BURST, each at least 1"));
            Rate::default()
        }),
    };
    Some(HttpSettings { bind, token: token.map(Token::new), rate })
}

/// `:PORT` and `localhost:PORT` are loopback.
fn address(text: &str) -> Option<SocketAddr> {
    let port = text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':'));
    match port {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

/// Without a burst it is twice the rate.
fn rate(text: &str) -> Option<Rate> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number > 0);
    match text.split_once('/') {
        Some((per_second, burst)) => Some(Rate { per_second: number(per_second)?, burst: number(burst)? }),
        None => number(text).map(|per_second| Rate { per_second, burst: per_second.saturating_mul(2) }),
    }
}

/// For `config show`: the token is redacted.
pub(crate) fn to_json(http: Option<&HttpSettings>) -> Value {
    let Some(http) = http else { return json!(OFF) };
    json!({
        "address": http.bind.address().to_string(),
        "free_port_where_taken": http.bind == Bind::Default,
        TOKEN: http.token.as_ref().map(|_| "(set, redacted)"),
        "requests_per_second": http.rate.per_second,
        "requests_burst": http.rate.burst,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn with(mode: AppMode, variables: &[(&'static str, &'static str)]) -> (Option<HttpSettings>, String) {
        let source: HashMap<&str, &str> = variables.iter().copied().collect();
        let mut problems = Vec::new();
        let http = read(mode, &source, &mut problems);
        (http, problems.join("; "))
    }

    #[test]
    fn addresses_are_read() {
        for (text, expected) in
            [(":0", "127.0.0.1:0"), ("localhost:9", "127.0.0.1:9"), ("[::1]:8080", "[::1]:8080")]
        {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Some(expected));
        }
        for wrong in ["8080", "example.org:80", ":x", "127.0.0.1"] {
            assert!(!with(AppMode::Standalone, &[(ADDRESS, wrong)]).1.is_empty(), "{wrong}");
        }
        assert!(with(AppMode::Standalone, &[(ADDRESS, "OFF")]).0.is_none());
    }

    #[test]
    fn beyond_loopback_the_job_api_needs_a_token() {
        let open = [(ADDRESS, "0.0.0.0:8080")];
        let (_, problem) = with(AppMode::Standalone, &open);
        assert!(problem.contains(TOKEN) && problem.contains("0.0.0.0:8080"), "{problem}");
        assert_eq!(with(AppMode::WorkerDocker, &open).1, "", "probes need none");
        let (http, problem) = with(AppMode::Standalone, &[open[0], (TOKEN, "hunter2")]);
        assert_eq!(problem, "");
        let shown = to_json(http.as_ref()).to_string();
        assert!(shown.contains("redacted") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn rates_are_read() {
        assert_eq!(rate("10"), Some(Rate { per_second: 10, burst: 20 }));
        assert_eq!(rate("10/1"), Some(Rate { per_second: 10, burst: 1 }));
        for wrong in ["0", "x", "1/0", "-1", "1/2/3"] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }
}
