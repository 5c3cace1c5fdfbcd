//! Addresses and the document about them: both come from the same list, so that neither has what the other lacks.

use std::sync::LazyLock;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::{Json, Router};
use geoworker_machine::codes;
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::problem::{Problem, ProblemDocument, Problems};
use crate::settings::BODY_BYTES;
use crate::state::Api;
use crate::{guard, jobs, probes, tasks, types};

/// What the document says beside the addresses.
#[derive(OpenApi)]
#[openapi(
    info(title = "geoworker", description = "Jobs over rasters. Times are milliseconds since 1970 UTC; problems are RFC 9457 documents."),
    components(schemas(ProblemDocument)),
    modifiers(&Bearer),
    security(("bearer" = []), ())
)]
struct Head;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The value of GEOWORKER_API_TOKEN, where the server has one"))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

static DOCUMENT: LazyLock<Document> = LazyLock::new(|| {
    OpenApiRouter::with_openapi(Head::openapi()).merge(probe_routes()).merge(job_routes()).into_openapi()
});

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "types",
    responses((status = 200, description = "OpenAPI 3.1.", body = Value), Problems))]
pub(crate) async fn document() -> Json<&'static Document> {
    Json(&*DOCUMENT)
}

fn probe_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(probes::livez))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::health))
        .routes(routes!(probes::metrics))
}

fn job_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(jobs::submit))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::show))
        .routes(routes!(jobs::tasks))
        .routes(routes!(jobs::events))
        .routes(routes!(jobs::cancel))
        .routes(routes!(jobs::retry))
        .routes(routes!(jobs::rerun))
        .routes(routes!(tasks::show))
        .routes(routes!(tasks::cancel))
        .routes(routes!(tasks::retry))
        .routes(routes!(types::job_types))
        .routes(routes!(types::job_type))
        .routes(routes!(types::task_types))
        .routes(routes!(types::limits))
        .routes(routes!(types::workers))
        .routes(routes!(document))
}

/// The service: probes, and the job API where the mode has it.
pub(crate) fn router(api: &Api, with_jobs: bool) -> Router {
    let (mut router, _) = probe_routes().split_for_parts();
    if with_jobs {
        let (jobs, _) = job_routes().split_for_parts();
        let jobs = jobs.layer(DefaultBodyLimit::max(BODY_BYTES));
        router = router.merge(jobs.layer(from_fn_with_state(api.clone(), guard::admit)));
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(api.clone(), guard::observe))
        .with_state(api.clone())
}

async fn unknown(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}", uri.path().escape_debug());
    Problem::new(StatusCode::NOT_FOUND, codes::HTTP_ROUTE_UNKNOWN, detail)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path().escape_debug());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, codes::HTTP_METHOD, detail)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tokio_util::sync::CancellationToken;
    use tower::ServiceExt as _;

    use super::*;
    use crate::settings::{Bind, HttpSettings, Rate};

    async fn status(with_jobs: bool, method: &str, path: &str) -> StatusCode {
        let settings = HttpSettings { bind: Bind::Default, token: None, rate: Rate::default() };
        let api = Api::new(settings, true, CancellationToken::new());
        let request = Request::builder().method(method).uri(path).header("host", "localhost");
        let request = request.header("content-type", "application/json").body(Body::from("{}"));
        router(&api, with_jobs).oneshot(request.expect("is valid")).await.expect("answers").status()
    }

    /// Without a database the job API says so, and probes answer.
    #[tokio::test]
    async fn every_documented_address_is_served() {
        let document = serde_json::to_value(&*DOCUMENT).expect("serialises");
        let paths = document["paths"].as_object().expect("has paths");
        let mut served = 0;
        for (path, methods) in paths {
            for method in methods.as_object().expect("has methods").keys() {
                let path = path.replace("{id}", "f").replace("{name}", "x").replace("{job_type}", "x");
                let expected = match path.as_str() {
                    "/livez" | "/health" | "/metrics" | "/api/openapi.json" => StatusCode::OK,
                    _ => StatusCode::SERVICE_UNAVAILABLE,
                };
                assert_eq!(status(true, &method.to_uppercase(), &path).await, expected, "{method} {path}");
                served += 1;
            }
        }
        assert_eq!(served, 21);
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference).is_some(), "{reference} leads nowhere");
        }
    }

    #[tokio::test]
    async fn modes_without_the_job_api_serve_probes_alone() {
        assert_eq!(status(false, "GET", "/livez").await, StatusCode::OK);
        assert_eq!(status(false, "GET", "/api/jobs").await, StatusCode::NOT_FOUND);
        assert_eq!(status(true, "PUT", "/api/jobs").await, StatusCode::METHOD_NOT_ALLOWED);
    }
}
