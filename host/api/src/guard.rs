//! Who may ask the job API, how often, and for how long.

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use geoworker_machine::codes;

use crate::problem::Problem;
use crate::settings::REQUEST_TIME;
use crate::state::Api;

/// Names of this machine for itself.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Lets a request to the job API pass, or answers it.
pub(crate) async fn admit(State(api): State<Api>, request: Request, next: Next) -> Response {
    match check(&api, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Who it is comes before how often: strangers take nothing of the rate.
fn check(api: &Api, headers: &HeaderMap) -> Result<(), Problem> {
    match &api.settings.token {
        Some(token) if !bearer(headers).is_some_and(|shown| token.is(shown)) => {
            let detail = "this server wants the header `Authorization: Bearer TOKEN`";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, codes::HTTP_UNAUTHORIZED, detail));
        }
        Some(_) => {}
        None => local(api, headers)?,
    }
    api.bucket.take().map_err(|wait| {
        let rate = api.settings.rate;
        let detail = format!("at most {} requests a second, {} at once", rate.per_second, rate.burst);
        Problem::new(StatusCode::TOO_MANY_REQUESTS, codes::HTTP_RATE_LIMITED, detail).retry_after(wait)
    })
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, AUTHORIZATION)?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Without a token, being local is the only proof there is. A web page in this machine's browser is not: neither one that
/// had its own name point here, nor one that sends from elsewhere.
fn local(api: &Api, headers: &HeaderMap) -> Result<(), Problem> {
    let refused = |detail: &str| Problem::new(StatusCode::FORBIDDEN, codes::HTTP_FORBIDDEN, detail);
    if !api.loopback {
        return Err(refused("this server is not on loopback and has no token"));
    }
    if !text(headers, HOST).is_some_and(is_local) {
        return Err(refused("the header `Host` is not localhost, 127.0.0.1 or [::1]"));
    }
    let foreign = headers.contains_key(ORIGIN)
        && !text(headers, ORIGIN)
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, host)| is_local(host));
    if foreign {
        return Err(refused("the header `Origin` is not this server's"));
    }
    Ok(())
}

fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    LOCAL_NAMES.iter().any(|local| name.eq_ignore_ascii_case(local))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Methods that are told apart in the figures.
const METHODS: [Method; 5] = [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS, Method::DELETE];

/// Bounds the time of every request and counts it.
pub(crate) async fn observe(State(api): State<Api>, request: Request, next: Next) -> Response {
    // A method can be any word: strangers must not make up labels.
    let known = METHODS.iter().find(|method| *method == request.method());
    let method = known.map_or("other", Method::as_str);
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let answer = tokio::time::timeout(REQUEST_TIME, next.run(request)).await;
    let answer = answer.unwrap_or_else(|_| {
        let detail = format!("the request took longer than {} s", REQUEST_TIME.as_secs());
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, codes::HTTP_TIMEOUT, detail).into_response()
    });
    api.metrics.answered(method, route.as_deref().unwrap_or("other"), answer.status());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for local in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
            assert!(is_local(local), "{local}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example:8080",
            "127.0.0.1.evil.example",
            "10.0.0.1:8080",
            "x@localhost",
        ] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }
}
