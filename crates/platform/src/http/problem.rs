//! [`Problem`] is an error response in the form of RFC 9457 (problem details).

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

use crate::text::{Bounded, excerpt};

/// Content type of every problem.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";

/// An error response with a private source, which only the log contains.
///
/// The body is JSON with the members `type` (`urn:problem:<kind>`), `title`, `status`, `kind`, `detail`,
/// `request_id` and those in `extensions`. The content type is `application/problem+json`. The middleware
/// ([`super::with_middleware`]) adds the request id, and logs the source once.
#[derive(Clone, Debug)]
pub struct Problem {
    /// HTTP status.
    pub status: StatusCode,
    /// Machine-readable word, such as `not_an_image`. The meaning of a word never changes.
    pub kind: &'static str,
    /// Sentence for the caller. It says what is wrong and what the caller can do.
    pub detail: String,
    /// Time after which the caller may try again. The header Retry-After contains it.
    pub retry_after: Option<Duration>,
    /// Additional members of the body, keyed by name.
    pub extensions: Map<String, Value>,
    /// Cause of the problem. Only the log contains the cause.
    pub source: Option<Arc<dyn Error + Send + Sync>>,
}

/// The body of a problem. The order of the fields is the order of the members in the JSON.
#[derive(Serialize)]
struct ProblemBody<'a> {
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

/// The `detail` of every problem with status 500. It does not depend on the cause, because the cause is
/// private.
pub(super) const INTERNAL_DETAIL: &str = "The service failed to handle the request; try again later.";

/// Maximum number of characters of `detail`. The sentences of the services are shorter.
const MAX_DETAIL_CHARS: usize = 1000;
/// Maximum number of elements of each list in the extensions.
const MAX_LIST_LENGTH: usize = 32;

const STANDARD_MEMBERS: [&str; 6] = ["type", "title", "status", "kind", "detail", "request_id"];

impl Problem {
    /// Creates a problem without a Retry-After, a source or additional members.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after: None, extensions: Map::new(), source: None }
    }

    /// Creates a problem with status 429, the kind `overloaded` and a Retry-After.
    pub fn overloaded(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", detail)
        }
    }

    /// Creates a problem with status 503 and a Retry-After. The problem means that a dependency did not
    /// respond, or that this service is not ready.
    pub fn unavailable(kind: &'static str, detail: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail) }
    }

    /// Creates a problem with status 500 and the kind `internal`. The body says nothing about `source`, which
    /// only the log contains.
    pub fn internal(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", INTERNAL_DETAIL).with_source(source)
    }

    /// Sets the cause of the problem, which only the log contains.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds a member to the body. A member with the name of a standard member is left out of the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Cuts and escapes the texts of the problem, in case one of them quotes a request without
    /// [`excerpt`].
    pub(super) fn bound_texts(&mut self) {
        self.detail = Bounded::new(&self.detail, MAX_DETAIL_CHARS).to_string();
        self.extensions.values_mut().for_each(bound_value);
    }

    /// Sets the headers Content-Type and Retry-After.
    pub(super) fn set_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
    }

    /// Returns [`Self::retry_after`] in whole seconds, at least one.
    ///
    /// The time is rounded up, because a caller that tries again too early is refused again.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        let retry_after = self.retry_after?;
        Some((retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0)).max(1))
    }

    /// Serializes the body as JSON.
    pub(super) fn to_body(&self, request_id: Option<&str>) -> Body {
        let mut extensions = self.extensions.clone();
        extensions.retain(|name, _| !STANDARD_MEMBERS.contains(&name.as_str()));
        let body = ProblemBody {
            r#type: format!("urn:problem:{}", self.kind),
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            kind: self.kind,
            detail: &self.detail,
            request_id,
            extensions,
        };
        match serde_json::to_vec(&body) {
            Ok(json) => Body::from(json),
            Err(error) => {
                tracing::error!(%error, kind = self.kind, "a problem cannot be serialized as JSON");
                Body::empty()
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        self.bound_texts();
        let mut response = Response::new(self.to_body(None));
        *response.status_mut() = self.status;
        self.set_headers(response.headers_mut());
        // The middleware reads the problem from the extensions. It replaces the body with a body that has the
        // request id, and logs the source.
        response.extensions_mut().insert(self);
        response
    }
}

/// Cuts and escapes every text in `value`, and cuts lists.
fn bound_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = excerpt(&*text).to_string(),
        Value::Array(list) => {
            list.truncate(MAX_LIST_LENGTH);
            list.iter_mut().for_each(bound_value);
        }
        Value::Object(members) => members.values_mut().for_each(bound_value),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
