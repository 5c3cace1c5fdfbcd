//! Parts of requests; what cannot be read is a problem document.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use geoworker_machine::codes;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::problem::Problem;
use crate::settings::BODY_BYTES;

/// Query parameters; unknown ones are refused by name.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        read.map(|query| Self(query.0)).map_err(|rejection| unreadable(rejection.body_text()))
    }
}

/// The variable part of a path.
pub(crate) struct Path(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let read = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        read.map(|path| Self(path.0)).map_err(|rejection| unreadable(rejection.body_text()))
    }
}

/// A body that is a JSON object.
pub(crate) struct Object(pub(crate) Map<String, Value>);

impl<S: Send + Sync> FromRequest<S> for Object {
    type Rejection = Problem;
    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let read = axum::Json::<Map<String, Value>>::from_request(request, state).await;
        read.map(|json| Self(json.0)).map_err(|rejection| match rejection {
            JsonRejection::JsonSyntaxError(_) | JsonRejection::JsonDataError(_) => {
                unreadable(rejection.body_text())
            }
            other if other.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let detail = format!("the body has more than {BODY_BYTES} bytes");
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, codes::HTTP_BODY_TOO_LARGE, detail)
            }
            other => Problem::new(other.status(), codes::HTTP_REQUEST_INVALID, other.body_text()),
        })
    }
}

/// The request breaks the form that the document tells.
pub(crate) fn unreadable(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, codes::HTTP_REQUEST_INVALID, detail)
}

/// Rows of a page, between 1 and the maximum; `bounds` are the default and the maximum.
///
/// # Errors
/// Status 400 where it is out of bounds.
pub(crate) fn page_size(asked: Option<u32>, bounds: (u32, u32)) -> Result<u32, Problem> {
    let (default, most) = bounds;
    match asked {
        None => Ok(default),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(limit) => Err(unreadable(format!("limit is {limit}; it is between 1 and {most}"))),
    }
}
