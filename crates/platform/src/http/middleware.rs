//! The middleware stack, in one place, its order explained.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
};
use tower_http::{catch_panic::CatchPanicLayer, limit::RequestBodyLimitLayer, timeout::TimeoutLayer};
use tracing::Instrument;
use uuid::Uuid;

use super::{Problem, render::render_problems, unread::read_the_rest};
use crate::panic;

/// Limits on every request.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Largest body in bytes; larger is 413.
    pub max_body_bytes: usize,
    /// A request that takes longer is answered 504 and dropped.
    pub request_timeout: Duration,
}

/// The request's id: from the caller's `x-request-id` where that is sane (1 to 128 of
/// `A-Z a-z 0-9 . _ -`), else made here. In the request's extensions, in the answer's header and in
/// every problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps `routes` in the stack; `service` is the prefix of its metrics (`<service>_requests_total
/// {route,status}`, `<service>_request_duration_seconds`). Merge the health and metrics routes into
/// `routes` first: what is merged later is outside the stack.
pub fn layers(routes: Router, service: &'static str, limits: &HttpLimits) -> Router {
    // A request passes from the last line to the first, its answer from the first to the last:
    routes
        // 7. Handlers read the body through a limit. axum's own of 2 MiB gives way to ours, which
        //    holds for the announced length as well as for what really arrives.
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.max_body_bytes))
        // 6. A handler that is too slow is dropped. Inside 5: dropping it may panic too.
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, limits.request_timeout))
        // 5. A panic in a handler or in the layers above becomes an ordinary 500.
        .layer(CatchPanicLayer::custom(on_panic))
        // 4. Whatever error comes out of all that is written as a problem with the request id, and
        //    logged within the span of 2.
        .layer(from_fn_with_state(limits.clone(), render_problems))
        // 3. and 2. Metrics and the access line see the status that the client sees.
        .layer(from_fn_with_state(Arc::new(Observer::new(service)), observe))
        // 1. Before all that is told of a request, the id, which everything else mentions.
        .layer(from_fn(request_id))
        // 0. An answer that did not wait for the body lets it end first.
        .layer(from_fn(read_the_rest))
}

async fn request_id(mut request: Request, next: Next) -> Response {
    let id = sane_id(request.headers()).unwrap_or_else(|| Uuid::new_v4().to_string());
    let header = HeaderValue::from_str(&id);
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    if let Ok(value) = header {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn sane_id(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    ((1..=128).contains(&id.len()) && id.bytes().all(good)).then(|| id.to_owned())
}

/// The names of a service's request metrics, built once.
struct Observer {
    requests_total: Arc<str>,
    duration_seconds: Arc<str>,
}

impl Observer {
    fn new(service: &str) -> Self {
        Self {
            requests_total: format!("{service}_requests_total").into(),
            duration_seconds: format!("{service}_request_duration_seconds").into(),
        }
    }
}

async fn observe(State(observer): State<Arc<Observer>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // The pattern, not the path: labels must not grow with what clients think up.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "unmatched".to_owned(), |matched| matched.as_str().to_owned());
    let id = request.extensions().get::<RequestId>().map_or("", |id| id.0.as_str());
    let span = tracing::info_span!("request", %method, route, request_id = id);
    async move {
        let response = next.run(request).await;
        let elapsed = started.elapsed().as_secs_f64();
        let status = response.status();
        metrics::counter!(
            Arc::clone(&observer.requests_total),
            "route" => route.clone(), "status" => status.as_str().to_owned()
        )
        .increment(1);
        metrics::histogram!(Arc::clone(&observer.duration_seconds), "route" => route).record(elapsed);
        let ms = (elapsed * 10_000.0).round() / 10.0;
        let status = status.as_u16();
        if is_probe(&path) {
            tracing::debug!(path, status, ms, "answered");
        } else {
            tracing::info!(path, status, ms, "answered");
        }
        response
    }
    .instrument(span)
    .await
}

/// Whether `path` is asked again and again by machines, so that it would drown the log.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/live" | "/ready" | "/metrics")
}

#[derive(Debug, thiserror::Error)]
#[error("the handler panicked: {0}")]
struct HandlerPanic(String);

fn on_panic(payload: Box<dyn Any + Send>) -> Response {
    Problem::internal(HandlerPanic(panic::message(&*payload).to_owned())).into_response()
}
