//! What to do with a body that an answer did not wait for.

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

/// At most so much of it is read,
const MAX_BYTES: usize = 1 << 20;
/// and for so long.
const MAX_TIME: Duration = Duration::from_secs(1);

/// Reads what a handler left of the request's body, as far as that is cheap, before the answer goes out.
///
/// A connection with unread bytes cannot be used again, and closing it may take the answer with it on its
/// way to a client that is still sending. Where too much is left, or the client waits to be asked for it
/// (`Expect: 100-continue`), the answer says that the connection ends.
pub(super) async fn read_the_rest(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let closable = request.version() < Version::HTTP_2;
    let waits = request.headers().contains_key(header::EXPECT);
    let (parts, body) = request.into_parts();
    let rest = Shared(Arc::new(Mutex::new(body)));
    let request = Request::from_parts(parts, Body::new(rest.clone()));

    let mut response = next.run(request).await;
    let ended = rest.lock().is_end_stream()
        || (!waits && tokio::time::timeout(MAX_TIME, drained(rest)).await.unwrap_or(false));
    if !ended && closable {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Reads `body` and forgets it; whether its end came within the limit.
async fn drained(mut body: Shared) -> bool {
    let mut left = MAX_BYTES;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => return false,
        }
    }
    true
}

/// A body that the handler reads, and whoever is left afterwards.
#[derive(Clone)]
struct Shared(Arc<Mutex<Body>>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Shared {
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
