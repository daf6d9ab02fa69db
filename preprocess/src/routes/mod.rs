//! HTTP routes and the state shared by their handlers.

mod predictions;
mod problem;
mod upload;

use std::sync::Arc;

use axum::{
    Json, Router,
    routing::{get, post},
};
use platform::{
    http::{BodyReceiver, Readiness, ReadyCheck, RefusalDelay, health_routes_with_check, with_middleware},
    telemetry::metrics_routes,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{app::VERSION, config::Settings, upload_service::UploadService};

/// State shared by the handlers.
#[derive(Clone)]
struct RouteState {
    settings: Arc<Settings>,
    upload_service: Arc<UploadService>,
    bodies: BodyReceiver,
    refusal_delay: RefusalDelay,
    /// Cancelled when the service begins to shut down.
    stop: CancellationToken,
}

/// Builds the router with every route of the service and its middleware.
pub(crate) fn router(
    settings: Settings,
    upload_service: Arc<UploadService>,
    bodies: BodyReceiver,
    readiness: Readiness,
    stop: CancellationToken,
) -> Router {
    let request_timeout = settings.preprocess_request_timeout;
    let ready_check = ReadyCheck::new({
        let upload_service = Arc::clone(&upload_service);
        move || {
            let upload_service = Arc::clone(&upload_service);
            async move { upload_service.check_dependencies().await.map_err(problem::dependency_problem) }
        }
    });
    let state = RouteState {
        settings: Arc::new(settings),
        upload_service,
        bodies,
        refusal_delay: RefusalDelay::default(),
        stop,
    };
    let routes = Router::new()
        .route("/", get(get_index))
        .route("/preprocess", post(upload::post_upload))
        .route("/predictions/{id}", get(predictions::get_prediction))
        .with_state(state)
        .merge(health_routes_with_check(readiness, ready_check))
        .merge(metrics_routes());
    with_middleware(routes, "preprocess", request_timeout)
}

async fn get_index() -> Json<Value> {
    Json(json!({
        "service": "preprocess",
        "version": VERSION,
        "routes": {
            "POST /preprocess": "multipart/form-data with one or more fields `file`, or one image as the body",
            "GET /predictions/{id}": "the prediction of an uploaded image; ?wait=SECONDS waits for it, ?model=NAME selects another model than the current one",
            "GET /live": "200 while the process runs",
            "GET /ready": "200 while the service accepts requests",
            "GET /metrics": "metrics in the Prometheus text format",
        },
    }))
}
