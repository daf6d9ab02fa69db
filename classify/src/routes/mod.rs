//! The routes, thin: read the request, ask the service, shape the answer.

mod classify;
mod pubsub;

use axum::{
    Json, Router,
    extract::State,
    middleware,
    routing::{get, post},
};
use platform::{
    http::{HttpLimits, SharedPushGuard, guard_pushes, health_routes, with_middleware},
    telemetry::metrics_routes,
};
use serde_json::{Value, json};

use crate::{app::VERSION, network::spec, service::SharedService};

/// All routes within the middleware stack. With `push_guard`, only what it admits gets to `/pubsub`.
pub(crate) fn router(service: SharedService, push_guard: Option<SharedPushGuard>) -> Router {
    let limits = HttpLimits {
        max_body_bytes: service.settings.max_body_bytes,
        request_timeout: service.settings.request_timeout,
    };
    let pubsub = match push_guard {
        Some(guard) => post(pubsub::pubsub).layer(middleware::from_fn_with_state(guard, guard_pushes)),
        None => post(pubsub::pubsub),
    };
    let health = health_routes(service.readiness.clone());
    let routes = Router::new()
        .route("/", get(index))
        .route("/classify", post(classify::classify))
        .route("/pubsub", pubsub)
        .with_state(service)
        .merge(health)
        .merge(metrics_routes());
    with_middleware(routes, "classify", &limits)
}

/// `GET /`: what runs here and where to send what.
async fn index(State(service): State<SharedService>) -> Json<Value> {
    Json(json!({
        "service": "classify",
        "version": VERSION,
        "model": spec::NAME,
        "backend": service.backend.name(),
        "routes": {
            "POST /classify": "{\"gcs_path\":\"gs://BUCKET/OBJECT\"}, or a JPEG or PNG as the body or as multipart field `file`; top_k and threshold as members or in the query",
            "POST /pubsub": "the announcement of an image: a push of Pub/Sub, wrapped or not, with a gcs_path or from a bucket, or a CloudEvent of Eventarc",
            "GET /live": "200 while the process runs",
            "GET /ready": "200 when images are classified, with what runs here",
            "GET /metrics": "metrics in the text format of Prometheus",
        },
    }))
}
