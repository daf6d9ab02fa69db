//! [`with_middleware`] wraps routes in the middleware stack of the services.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use tower_http::{catch_panic::CatchPanicLayer, timeout::TimeoutLayer};
use tracing::Instrument;

use super::{
    Problem, RequestId, admission::refuse_unwelcome_requests, health::is_probe_path, render::render_problems,
    request_id::set_request_id, unread_body::drain_unread_body,
};
use crate::{panic::CaughtPanic, text::excerpt};

/// Wraps `routes` in the middleware stack.
///
/// The stack records the metrics `<metric_prefix>_requests_total {route,status}` and
/// `<metric_prefix>_request_duration_seconds {route}`. `routes` must include the health and metrics routes,
/// because routes that are merged into the result are outside the stack.
///
/// A handler that is not done after `request_timeout` is dropped, and the response is 504. The stack does not
/// limit the length of bodies: a [`BodyReceiver`](super::BodyReceiver) has its own limit, and axum's extractors
/// accept at most 2 MiB.
pub fn with_middleware(routes: Router, metric_prefix: &'static str, request_timeout: Duration) -> Router {
    // The layer that is added last is the outermost. A request passes the layers in the order of their
    // numbers, and its response passes them in the reverse order.
    routes
        // 7. The timeout drops the handler. This layer is inside layer 6, because dropping the handler may
        //    panic, too.
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, request_timeout))
        // 6. A panic in the handler or in layer 7 becomes a response with status 500.
        .layer(CatchPanicLayer::custom(respond_to_panic))
        // 5. A request that a page of another website sends is refused.
        .layer(from_fn(refuse_unwelcome_requests))
        // 4. An error of the handler or of layers 5 to 7 becomes a problem with the request id, and is logged
        //    within the span of layer 3.
        .layer(from_fn_with_state(request_timeout, render_problems))
        // 3. The request runs in a span. When the request is answered, metrics and a line of the log are
        //    recorded. This layer is outside layer 4, so that it records the status that the client receives.
        .layer(from_fn_with_state(Arc::new(RequestMetricNames::new(metric_prefix)), observe_request))
        // 2. The request gets its id, which the span and every problem contain.
        .layer(from_fn(set_request_id))
        // 1. This layer reads and discards the part of the request body that no handler has read.
        .layer(from_fn(drain_unread_body))
}

/// The names of the request metrics of a service, formatted once for all requests.
struct RequestMetricNames {
    requests_total: Arc<str>,
    duration_seconds: Arc<str>,
}

impl RequestMetricNames {
    fn new(prefix: &str) -> Self {
        Self {
            requests_total: format!("{prefix}_requests_total").into(),
            duration_seconds: format!("{prefix}_request_duration_seconds").into(),
        }
    }
}

/// Middleware that runs the request in a span. It counts the request, records its duration, and logs its
/// status.
async fn observe_request(
    State(names): State<Arc<RequestMetricNames>>,
    request: Request,
    next: Next,
) -> Response {
    let start = Instant::now();
    let method = excerpt(request.method()).to_string();
    let is_probe = is_probe_path(request.uri().path());
    let path = excerpt(request.uri().path()).to_string();
    // The label `route` is the pattern of the route and not the path. Otherwise clients could create any
    // number of time series.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |matched| matched.as_str().to_owned());
    let id = request.extensions().get::<RequestId>().map_or("", |id| id.0.as_str());
    let span = tracing::info_span!("request", method, route, request_id = id);
    async move {
        let response = next.run(request).await;
        let elapsed = start.elapsed().as_secs_f64();
        let status = response.status();
        metrics::counter!(
            Arc::clone(&names.requests_total),
            "route" => route.clone(), "status" => status.as_str().to_owned()
        )
        .increment(1);
        metrics::histogram!(Arc::clone(&names.duration_seconds), "route" => route).record(elapsed);
        let ms = (elapsed * 10_000.0).round() / 10.0;
        let status = status.as_u16();
        if is_probe {
            tracing::debug!(path, status, ms, "answered");
        } else {
            tracing::info!(path, status, ms, "answered");
        }
        response
    }
    .instrument(span)
    .await
}

fn respond_to_panic(payload: Box<dyn Any + Send>) -> Response {
    Problem::internal(CaughtPanic::new(&*payload)).into_response()
}
