//! RFC 9457 problem details.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// Content type of every problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// An error response with a private source for the log.
///
/// The body is `{"type":"urn:problem:<kind>","title","status","kind","detail","request_id",…}` with
/// content type `application/problem+json`. The middleware ([`super::with_middleware`]) adds the request
/// id and logs the source once.
#[derive(Clone, Debug)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable word for programs, such as `not_an_image`.
    pub kind: &'static str,
    /// Sentence for the caller: the reason and the remedy.
    pub detail: String,
    /// Time after which the caller may retry; the header Retry-After.
    pub retry_after: Option<Duration>,
    /// Additional members of the body.
    pub extensions: Map<String, Value>,
    /// Cause of the problem; only the log contains it.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The body. The order of the fields is the order of its members.
#[derive(Serialize)]
struct Members<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    kind: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(flatten)]
    extensions: Map<String, Value>,
}

/// Sentence of every 500. It is the same for all, because the cause is private.
pub(super) const INTERNAL_DETAIL: &str = "Something went wrong here; the request may be tried again.";

const STANDARD_MEMBERS: [&str; 6] = ["type", "title", "status", "kind", "detail", "request_id"];

impl Problem {
    /// Creates a problem with the required members only.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after: None, extensions: Map::new(), source: None }
    }

    /// Creates a 429 `overloaded` with Retry-After.
    pub fn overloaded(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail)
        }
    }

    /// Creates a 503 with Retry-After: a dependency did not respond, or this service is not ready.
    pub fn unavailable(kind: &'static str, detail: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail) }
    }

    /// Creates a 500 `internal`, whose body has no details. `source` goes to the log.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", INTERNAL_DETAIL).with_source(source)
    }

    /// Sets the cause, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds a member to the body. A standard member cannot be replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Sets Content-Type and Retry-After.
    pub(super) fn set_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }

    /// Returns [`Self::retry_after`] in whole seconds, at least one.
    ///
    /// Rounded up, because a caller who retries too early is refused again.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let retry_after = self.retry_after?;
        Some((retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)).max(1))
    }

    /// Serializes the body.
    pub(super) fn body(&self, request_id: Option<&str>) -> Body {
        let mut extensions = self.extensions.clone();
        extensions.retain(|name, _| !STANDARD_MEMBERS.contains(&name.as_str()));
        let members = Members {
            r#type: format!("urn:problem:{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            kind: self.kind,
            detail: &self.detail,
            request_id,
            extensions,
        };
        match serde_json::to_vec(&members) {
            Ok(body) => Body::from(body),
            Err(error) => {
                tracing::error!(%error, kind = self.kind, "a problem cannot be serialized as JSON");
                Body::empty()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(self.body(None));
        *response.status_mut() = self.status;
        self.set_headers(response.headers_mut());
        // For the middleware, which replaces the body by one with the request id and logs the source.
        response.extensions_mut().insert(self);
        response
    }
}
