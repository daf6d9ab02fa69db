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

/// Content type of every error answer.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// An error as the client sees it, with a private source for the log.
///
/// Becomes `{"type":"urn:problem:<kind>","title","status","kind","detail","request_id",…}` with
/// content type `application/problem+json`. The request id is filled in, and the private source
/// logged once, by the middleware ([`super::layers`]).
#[derive(Clone, Debug)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Stable word for programs, such as `not_an_image`; the member `kind` of the body.
    pub kind: &'static str,
    /// What the caller can do about it.
    pub detail: String,
    /// When to come back; the header Retry-After.
    pub retry_after: Option<Duration>,
    /// Further members of the body.
    pub extensions: Map<String, Value>,
    /// What really happened; for the log only.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The body, its members in the order in which they are written.
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

const STANDARD_MEMBERS: [&str; 6] = ["type", "title", "status", "kind", "detail", "request_id"];

impl Problem {
    /// A problem with nothing but the required parts.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after: None, extensions: Map::new(), source: None }
    }

    /// 429 `overloaded` with Retry-After.
    pub fn overloaded(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail)
        }
    }

    /// 503 with Retry-After: a part that the service stands on did not answer, or it is draining.
    pub fn unavailable(kind: &'static str, detail: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail) }
    }

    /// 500 `internal`: tells the client nothing but that it was not its fault.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something went wrong here; the request may be tried again.",
        )
        .with_source(source)
    }

    /// Adds what really happened, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds a member to the body. The standard members cannot be replaced this way.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Sets the headers that belong to this problem.
    pub(super) fn set_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }

    /// Returns [`Self::retry_after`] in whole seconds, at least one. Rounded up, because a caller who comes
    /// back early is refused again.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let pause = self.retry_after?;
        Some((pause.as_secs() + u64::from(pause.subsec_nanos() > 0)).max(1))
    }

    /// The body.
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
                tracing::error!(%error, kind = self.kind, "a problem could not be written as JSON");
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
        // The middleware writes the body again, with the request id, and logs.
        response.extensions_mut().insert(self);
        response
    }
}
