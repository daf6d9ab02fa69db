//! Refuses requests cheaply while the queue is full, so that the requests in the queue get the CPU time.

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use platform::http::{Problem, RefusalDelay, media_type_of};

use crate::service::SharedService;

/// Middleware that delays a response with status 429.
pub(super) async fn delay_refusal(
    State(delay): State<RefusalDelay>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    wait_if_refused(&delay, response.status()).await;
    response
}

/// Middleware that refuses a request to classify the image in its body, if the queue is full or the service is
/// not ready. Every response with status 429 is delayed.
///
/// The body of a refused request is drained after the delay, unless the client waits for permission to send it.
/// JSON is let through, because the prediction of the image that it names may be recorded already.
pub(super) async fn refuse_before_body(
    State(service): State<SharedService>,
    request: Request,
    next: Next,
) -> Response {
    let is_json = media_type_of(request.headers()) == "application/json";
    let check = if is_json { service.check_ready() } else { service.check_room_for_request() };
    let Err(error) = check else {
        return delay_refusal(State(service.refusal_delay.clone()), request, next).await;
    };
    let response = Problem::from(error).into_response();
    wait_if_refused(&service.refusal_delay, response.status()).await;
    drain_body(&service, request).await;
    response
}

/// Refuses a request for labels, because the model has none.
pub(super) async fn refuse_classify(State(service): State<SharedService>, request: Request) -> Problem {
    drain_body(&service, request).await;
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_labels",
        "The model of this service computes embeddings and has no labels. Send the image to POST /embed.",
    )
}

/// Refuses a request for an embedding, because the model predicts labels.
pub(super) async fn refuse_embed(State(service): State<SharedService>, request: Request) -> Problem {
    drain_body(&service, request).await;
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_embedding",
        "The model of this service predicts labels and computes no embeddings. Send the image to POST /classify.",
    )
}

/// Drains the body of a refused request, unless the client waits for permission to send it.
async fn drain_body(service: &SharedService, request: Request) {
    if !request.headers().contains_key(header::EXPECT) {
        service.bodies.discard(request).await;
    }
}

async fn wait_if_refused(delay: &RefusalDelay, status: StatusCode) {
    if status == StatusCode::TOO_MANY_REQUESTS {
        delay.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::{Router, body::Body, middleware::from_fn_with_state, routing::post};
    use tokio::time::Instant;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_response_with_429_is_delayed() {
        for (status, delay) in [
            (StatusCode::OK, Duration::ZERO),
            (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO),
            (StatusCode::TOO_MANY_REQUESTS, Duration::from_millis(100)),
        ] {
            let app = Router::new()
                .route("/", post(status))
                .layer(from_fn_with_state(RefusalDelay::default(), delay_refusal));
            let start = Instant::now();
            let response = app.oneshot(Request::post("/").body(Body::empty()).unwrap()).await.unwrap();
            assert_eq!((response.status(), start.elapsed()), (status, delay));
        }
    }
}
