//! [`render_problems`] turns plain error responses into problems, and logs every problem once.
//!
//! A plain error response is an error response whose content type is absent or text/plain. axum, its
//! extractors and tower-http send such responses.

use std::time::Duration;

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
        response::Parts,
    },
    middleware::Next,
    response::Response,
};

use super::{Problem, RequestId, health::is_probe_path, problem::INTERNAL_DETAIL};
use crate::{panic::is_caused_by_panic, telemetry::error_chain, text::excerpt};

/// Maximum number of bytes that are read from the body of a plain error response. axum's error texts are far
/// shorter.
const MAX_PLAIN_ERROR_BYTES: usize = 4096;

/// Middleware that adds the request id to problems, and turns plain error responses into problems.
///
/// The problem of a request that took too long names `request_timeout`.
pub(super) async fn render_problems(
    State(request_timeout): State<Duration>,
    request: Request,
    next: Next,
) -> Response {
    let request_id = request.extensions().get::<RequestId>().cloned();
    let is_probe = is_probe_path(request.uri().path());
    let (mut parts, body) = next.run(request).await.into_parts();
    let problem = match parts.extensions.remove::<Problem>() {
        Some(problem) => problem,
        None if is_plain_error(&parts) => problem_from_plain_error(parts.status, body, request_timeout).await,
        None => return Response::from_parts(parts, body),
    };
    log_problem(&problem, is_probe);
    parts.status = problem.status;
    parts.headers.remove(CONTENT_LENGTH);
    problem.set_headers(&mut parts.headers);
    let request_id = request_id.as_ref().map(|id| id.0.as_str());
    Response::from_parts(parts, problem.to_body(request_id))
}

/// Returns true if the response is a plain error response.
///
/// An error with any other content type comes from a handler and is sent unchanged.
fn is_plain_error(parts: &Parts) -> bool {
    let is_error = parts.status.is_client_error() || parts.status.is_server_error();
    is_error
        && parts.headers.get(CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

#[derive(Debug, thiserror::Error)]
#[error("plain error response: {0}")]
struct PlainError(String);

async fn problem_from_plain_error(status: StatusCode, body: Body, request_timeout: Duration) -> Problem {
    let bytes = to_bytes(body, MAX_PLAIN_ERROR_BYTES).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let (kind, detail) = kind_and_detail(status);
    match status {
        StatusCode::GATEWAY_TIMEOUT => {
            let seconds = request_timeout.as_secs_f64();
            Problem::new(status, kind, format!("{detail} The limit is {seconds} s."))
        }
        // The text of a server error may be private, so only the log contains it.
        _ if status.is_server_error() && !text.is_empty() => {
            Problem::new(status, kind, detail).with_source(PlainError(text))
        }
        // The text of these two errors is not sent, because it would add nothing to the detail.
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Problem::new(status, kind, detail),
        // The text of any other client error is sent, because it tells the caller what is wrong.
        _ if status.is_client_error() && !text.is_empty() => {
            Problem::new(status, kind, excerpt(text).to_string())
        }
        _ => Problem::new(status, kind, detail),
    }
}

/// Returns the kind and the detail of the problem for `status`.
fn kind_and_detail(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::BAD_REQUEST => ("bad_request", "The request cannot be understood."),
        StatusCode::UNAUTHORIZED => ("unauthorized", "The request needs valid credentials."),
        StatusCode::FORBIDDEN => ("forbidden", "These credentials do not permit this request."),
        StatusCode::NOT_FOUND => ("not_found", "There is nothing at this address."),
        StatusCode::METHOD_NOT_ALLOWED => {
            ("method_not_allowed", "This address does not accept this method; see the header Allow.")
        }
        StatusCode::NOT_ACCEPTABLE => {
            ("not_acceptable", "The response is not available in the requested form.")
        }
        StatusCode::REQUEST_TIMEOUT => ("request_timeout", "The request took too long to arrive."),
        StatusCode::LENGTH_REQUIRED => ("length_required", "The header Content-Length is needed."),
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "The body is too large."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("unsupported_media_type", "This content type is not accepted here.")
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            ("unprocessable", "The request is well formed, but its content is invalid.")
        }
        StatusCode::TOO_MANY_REQUESTS => ("overloaded", "The service is overloaded; try again later."),
        StatusCode::INTERNAL_SERVER_ERROR => ("internal", INTERNAL_DETAIL),
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "Try again later."),
        StatusCode::GATEWAY_TIMEOUT => ("timeout", "The request took too long to handle and was dropped."),
        _ if status.is_client_error() => ("client_error", "The request cannot be served."),
        _ => ("server_error", "The request could not be served; try again later."),
    }
}

/// Logs `problem` with its source. A problem in the response to a monitoring probe is logged at level debug,
/// because such a problem is expected while a service starts or drains.
fn log_problem(problem: &Problem, is_probe: bool) {
    let Problem { kind, detail, status, source, .. } = problem;
    let status = status.as_u16();
    // The panic hook has logged a panic as an error.
    let is_logged_panic = source.as_ref().is_some_and(|source| is_caused_by_panic(source.as_ref()));
    let error = source.as_ref().map(|source| error_chain(source.as_ref()));
    if is_probe {
        tracing::debug!(status, kind, detail, error, "problem");
    } else if status == 500 && !is_logged_panic {
        tracing::error!(status, kind, detail, error, "problem");
    } else if status >= 500 {
        tracing::warn!(status, kind, detail, error, "problem");
    } else if error.is_some() {
        tracing::info!(status, kind, detail, error, "problem");
    } else {
        tracing::debug!(status, kind, detail, "problem");
    }
}
