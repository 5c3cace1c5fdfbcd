//! `/livez`, `/readyz`, `/health`, `/metrics` (R24): every mode serves them, and nobody has to show a token.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;

use crate::health::{self, Condition, Health};
use crate::state::Api;

/// Whether the process lives: each receive loop turned within what it promised.
#[utoipa::path(get, path = "/livez", tag = "probes", security(()), responses(
    (status = 200, description = "It lives.", body = Health),
    (status = 503, description = "A loop hangs: restart the process.", body = Health)))]
pub(crate) async fn livez(State(api): State<Api>) -> impl IntoResponse {
    answer(health::live(&api))
}

/// Whether the process can claim and run a task.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()), responses(
    (status = 200, description = "It can.", body = Health),
    (status = 503, description = "It cannot: starting, stopping, or without database, queue or plugins.", body = Health)))]
pub(crate) async fn readyz(State(api): State<Api>) -> impl IntoResponse {
    answer(health::all(&api))
}

/// Every component with its state. The status is 200 whatever they are.
#[utoipa::path(get, path = "/health", tag = "probes", security(()),
    responses((status = 200, description = "The components.", body = Health)))]
pub(crate) async fn health(State(api): State<Api>) -> impl IntoResponse {
    ([(CACHE_CONTROL, "no-store")], Json(health::all(&api)))
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "probes", security(()),
    responses((status = 200, description = "Prometheus text.", body = String, content_type = "text/plain")))]
pub(crate) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let text = api.metrics.text(api.attached()).await;
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn answer(health: Health) -> impl IntoResponse {
    let failing = health.status == Condition::Failing;
    let status = if failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, [(CACHE_CONTROL, "no-store")], Json(health))
}
