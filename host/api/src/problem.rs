//! Every refusal and failure as a problem document (RFC 9457).

use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use geoworker_machine::{ErrorInfo, RetryClass, codes};
use geoworker_store::StoreError;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// When to try again where nothing better is known.
const RETRY: Duration = Duration::from_secs(5);

/// A refusal or failure: a document and its headers.
#[derive(Debug)]
pub(crate) struct Problem {
    document: Box<ProblemDocument>,
    retry_after: Option<Duration>,
}

/// A problem document.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProblemDocument {
    /// `urn:geoworker:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// What the code means; the same for every problem of the code.
    title: String,
    /// HTTP status.
    status: u16,
    /// What is wrong with this request.
    detail: String,
    /// Stable code; `geoworker explain` knows it.
    code: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Problem {
    /// A problem of the HTTP side.
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self::of(status, ErrorInfo::permanent(code, detail))
    }

    /// Tells the client when to try again.
    pub(crate) fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    fn of(status: StatusCode, error: ErrorInfo) -> Self {
        let known = codes::find(&error.code);
        let meaning = known.map_or("The request was refused.", |known| known.meaning);
        // What a database or a plugin says of itself is for the log.
        let internal = status.is_server_error();
        let document = ProblemDocument {
            kind: format!("urn:geoworker:problem:{}", error.code),
            title: meaning.to_owned(),
            status: status.as_u16(),
            detail: if internal { meaning.to_owned() } else { error.message },
            hint: error.hint.or_else(|| known.map(|known| known.action.to_owned())),
            code: error.code,
        };
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY);
        Self { document: Box::new(document), retry_after }
    }
}

/// The status that says best what an error is.
fn status_of(error: &ErrorInfo) -> StatusCode {
    match error.code.as_str() {
        codes::JOB_TYPE_UNKNOWN | codes::JOB_NOT_FOUND | codes::TASK_NOT_FOUND => StatusCode::NOT_FOUND,
        codes::JOB_OVER | codes::JOB_RUNNING | codes::TASK_OVER | codes::TASK_NOT_FAILED => {
            StatusCode::CONFLICT
        }
        _ if error.class != RetryClass::Permanent => StatusCode::SERVICE_UNAVAILABLE,
        code if code.starts_with("PLUGIN_") || code.starts_with("DATABASE_") => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl From<ErrorInfo> for Problem {
    fn from(error: ErrorInfo) -> Self {
        let status = status_of(&error);
        if status.is_server_error() {
            tracing::warn!(code = error.code, "a request failed: {}", error.message);
        }
        Self::of(status, error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        error.info().into()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self.document)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs_f64().ceil() as u64));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Problems of every address of the job API, for the document.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes; nothing makes one")]
pub(crate) enum Problems {
    /// The request cannot be read.
    #[response(status = 400, content_type = "application/problem+json")]
    Request(ProblemDocument),
    /// The bearer token is missing or wrong.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthorized(ProblemDocument),
    /// A foreign name or web page.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(ProblemDocument),
    /// Too many requests.
    #[response(status = 429, content_type = "application/problem+json")]
    RateLimited(ProblemDocument),
    /// The server or a plugin failed.
    #[response(status = 500, content_type = "application/problem+json")]
    Failed(ProblemDocument),
    /// The server or its database is not there.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemDocument),
}

/// There is no such thing.
#[derive(IntoResponses)]
#[response(status = 404, content_type = "application/problem+json")]
#[expect(dead_code, reason = "describes; nothing makes one")]
pub(crate) struct NotFound(ProblemDocument);

/// What is asked for does not fit the state.
#[derive(IntoResponses)]
#[response(status = 409, content_type = "application/problem+json")]
#[expect(dead_code, reason = "describes; nothing makes one")]
pub(crate) struct Conflict(ProblemDocument);

/// Problems of a body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "describes; nothing makes one")]
pub(crate) enum BodyProblems {
    /// The body is larger than `GET /api/limits` names.
    #[response(status = 413, content_type = "application/problem+json")]
    TooLarge(ProblemDocument),
    /// The content type is not JSON.
    #[response(status = 415, content_type = "application/problem+json")]
    MediaType(ProblemDocument),
    /// The parameters or the inputs they name are refused.
    #[response(status = 422, content_type = "application/problem+json")]
    Refused(ProblemDocument),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_keep_their_status() {
        for (code, class, status) in [
            (codes::PARAM_INVALID, RetryClass::Permanent, 422),
            (codes::BLOB_NOT_FOUND, RetryClass::Permanent, 422),
            ("A_PLUGINS_OWN", RetryClass::Permanent, 422),
            (codes::JOB_TYPE_UNKNOWN, RetryClass::Permanent, 404),
            (codes::JOB_OVER, RetryClass::Permanent, 409),
            (codes::DATABASE_UNAVAILABLE, RetryClass::Transient, 503),
            (codes::DATABASE_UNAVAILABLE, RetryClass::Permanent, 500),
            (codes::PLUGIN_TRAP, RetryClass::Permanent, 500),
        ] {
            assert_eq!(status_of(&ErrorInfo::new(code, class, "x")).as_u16(), status, "{code}");
        }
    }

    #[test]
    fn what_a_database_says_is_not_shown() {
        let error = ErrorInfo::transient(codes::DATABASE_UNAVAILABLE, "connection to 10.0.0.7 refused");
        let problem = Problem::from(error);
        let text = serde_json::to_string(&problem.document).expect("serialises");
        assert!(!text.contains("10.0.0.7") && text.contains("DATABASE_UNAVAILABLE"), "{text}");
        assert!(problem.into_response().headers().contains_key(RETRY_AFTER));
    }
}
