//! The routes, and what their handlers share.

mod predictions;
mod upload;

use std::sync::Arc;

use axum::{
    Json, Router,
    routing::{get, post},
};
use platform::{
    http::{Readiness, health_routes, with_middleware},
    memory_budget::MemoryBudget,
    telemetry::metrics_routes,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{app::VERSION, config::Settings, ingest::Ingest};

/// What the handlers share.
#[derive(Clone)]
struct Shared {
    settings: Arc<Settings>,
    ingest: Arc<Ingest>,
    /// Memory for uploads.
    uploads: MemoryBudget,
    /// Cancelled when the service begins to drain.
    stop: CancellationToken,
}

/// Every route of the service, in its middleware.
pub(crate) fn router(
    settings: Settings,
    ingest: Arc<Ingest>,
    uploads: MemoryBudget,
    readiness: Readiness,
    stop: CancellationToken,
) -> Router {
    let limits = settings.http_limits();
    let shared = Shared { settings: Arc::new(settings), ingest, uploads, stop };
    let routes = Router::new()
        .route("/", get(index))
        .route("/preprocess", post(upload::upload))
        .route("/predictions/{id}", get(predictions::prediction))
        .with_state(shared)
        .merge(health_routes(readiness))
        .merge(metrics_routes());
    with_middleware(routes, "preprocess", &limits)
}

async fn index() -> Json<Value> {
    Json(json!({
        "service": "preprocess",
        "version": VERSION,
        "routes": {
            "POST /preprocess": "multipart/form-data with one or more fields `file`, or one image as the body",
            "GET /predictions/{id}": "the prediction of an uploaded image; ?wait=SECONDS waits for it",
            "GET /live": "whether the process runs",
            "GET /ready": "whether it takes work",
            "GET /metrics": "metrics in the text format of Prometheus",
        },
    }))
}
