//! A [`RequestId`] identifies a request in the log and in the response.

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};
use uuid::Uuid;

/// The id of a request. The log, the response header `x-request-id` and every problem contain the id.
///
/// If the request has a header `x-request-id` with 1 to 128 of the characters `A-Z a-z 0-9 . _ -`, the id is
/// the value of the header. Otherwise the id is a random UUID. Handlers find the id in the extensions of the
/// request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Middleware that adds a [`RequestId`] to the request, and the header `x-request-id` to the response.
pub(super) async fn set_request_id(mut request: Request, next: Next) -> Response {
    let id = id_from_headers(request.headers()).unwrap_or_else(|| Uuid::new_v4().to_string());
    let header = HeaderValue::from_str(&id);
    request.extensions_mut().insert(RequestId(id));
    let mut response = next.run(request).await;
    if let Ok(value) = header {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}

/// Returns the id in the header `x-request-id`, if there is a valid one.
fn id_from_headers(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(X_REQUEST_ID)?.to_str().ok()?;
    let is_allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    ((1..=128).contains(&id.len()) && id.bytes().all(is_allowed)).then(|| id.to_owned())
}
