//! [`drain_unread_body`] drains the part of a request body that no handler has read. To drain means to read
//! and discard.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderValue, Version, header},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt;

/// Maximum number of bytes that are drained from a request body.
const MAX_DRAINED_BYTES: usize = 1 << 20;
/// Maximum time for draining a request body.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Middleware that drains the part of a request body that the handler has not read.
///
/// A connection with unread bytes cannot be reused. If the server closed the connection while the client is
/// still sending, the client might never receive the response.
///
/// Draining stops after [`MAX_DRAINED_BYTES`] or [`DRAIN_TIMEOUT`]. A body is not drained at all if the
/// client waits for permission to send it (`Expect: 100-continue`). If the end of the body was not reached,
/// the response has the header `Connection: close`, unless the connection uses HTTP/2.
pub(super) async fn drain_unread_body(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let is_http_1 = request.version() < Version::HTTP_2;
    let awaits_continue = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let body = SharedBody(Arc::new(Mutex::new(body)));
    let request = Request::from_parts(parts, Body::new(body.clone()));

    let mut response = next.run(request).await;
    let reached_end = body.lock().is_end_stream()
        || (!awaits_continue && tokio::time::timeout(DRAIN_TIMEOUT, drain(body)).await.unwrap_or(false));
    if !reached_end && is_http_1 {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads and discards the rest of `body`, up to [`MAX_DRAINED_BYTES`]. Returns true if the end was reached.
async fn drain(mut body: SharedBody) -> bool {
    let mut remaining = MAX_DRAINED_BYTES;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        match remaining.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => remaining = rest,
            None => return false,
        }
    }
    true
}

/// A request body that the handler and this middleware share. The middleware reads the bytes that the handler
/// has not read.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<Body>>);

impl SharedBody {
    fn lock(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.lock()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.lock().is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.lock().size_hint()
    }
}
