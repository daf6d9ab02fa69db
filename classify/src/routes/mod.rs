//! The HTTP routes. A route reads the request, calls the service and builds the response.

mod classify;
mod embed;
mod problem;
mod pubsub;
mod refusal;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    middleware,
    routing::{get, post},
};
use metrics::counter;
use platform::{
    http::{BodyError, PUSH_PATH, SharedPushGuard, guard_pushes, health_routes, with_middleware},
    telemetry::metrics_routes,
};
use serde_json::{Value, json};

use crate::{VERSION, announcements::AnnouncementHandler, service::SharedService};

/// Builds the router of all routes, with the middleware. `push_guard`, if given, authenticates pushes.
pub(crate) fn router(
    service: SharedService,
    announcements: Arc<AnnouncementHandler>,
    push_guard: Option<SharedPushGuard>,
) -> Router {
    let request_timeout = service.settings.request_timeout;
    let pubsub = match push_guard {
        Some(guard) => post(pubsub::handle_push).layer(middleware::from_fn_with_state(guard, guard_pushes)),
        None => post(pubsub::handle_push),
    };
    let check_room = middleware::from_fn_with_state(Arc::clone(&service), refusal::refuse_before_body);
    let (classify, embed) = if service.head.is_embedding() {
        (post(refusal::refuse_classify), post(embed::handle_embed).layer(check_room))
    } else {
        (post(classify::handle_classify).layer(check_room), post(refusal::refuse_embed))
    };
    let pubsub =
        pubsub.layer(middleware::from_fn_with_state(service.refusal_delay.clone(), refusal::delay_refusal));
    let health = health_routes(service.readiness.clone());
    let routes = Router::new()
        .route("/", get(index))
        .route("/classify", classify)
        .route("/embed", embed)
        .with_state(service)
        .merge(Router::new().route(PUSH_PATH, pubsub).with_state(announcements))
        .merge(health)
        .merge(metrics_routes());
    with_middleware(routes, "classify", request_timeout)
}

/// Increments `classify_shed_total` if a body was refused for lack of memory, or because it was too slow.
fn count_body_error(error: &BodyError) {
    let reason = match error {
        BodyError::Memory(_) => "memory",
        BodyError::TooSlow { .. } | BodyError::TimedOut { .. } => "slow_uploads",
        _ => return,
    };
    counter!("classify_shed_total", "reason" => reason).increment(1);
}

/// Handles `GET /`. The response contains the model, the backend and the routes of this service.
async fn index(State(service): State<SharedService>) -> Json<Value> {
    let image =
        "{\"gcs_path\":\"gs://BUCKET/OBJECT\"}, or a JPEG or PNG as the body or as multipart field `file`";
    let (image_route, description) = if service.head.is_embedding() {
        ("POST /embed", image.to_owned())
    } else {
        ("POST /classify", format!("{image}; top_k and threshold as members or in the query"))
    };
    Json(json!({
        "service": "classify",
        "version": VERSION,
        "model": service.records.model().name(),
        "backend": service.backend.borrow().name(),
        "routes": {
            image_route: description,
            "POST /pubsub": "the announcement of an image: a Pub/Sub push (wrapped or unwrapped) of a message with a gcs_path or of a bucket's notification, or a CloudEvent of Eventarc",
            "GET /live": "200 while the process runs",
            "GET /ready": "200 when the service is ready, with model and backend",
            "GET /metrics": "metrics in the Prometheus text format",
        },
    }))
}
