//! Every error answer leaves as problem+json, whoever made it, and is logged once on its way out.

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

use super::{HttpLimits, Problem, RequestId, middleware::is_probe};
use crate::telemetry::error_chain;

/// So much of a plain error text is read at most; the sentences of axum are far shorter.
const MAX_PLAIN_TEXT: usize = 4096;

pub(super) async fn render_problems(
    State(limits): State<HttpLimits>,
    request: Request,
    next: Next,
) -> Response {
    let request_id = request.extensions().get::<RequestId>().cloned();
    let probe = is_probe(request.uri().path());
    let (mut parts, body) = next.run(request).await.into_parts();
    let problem = match parts.extensions.remove::<Problem>() {
        Some(problem) => problem,
        None if is_plain_error(&parts) => from_plain(parts.status, body, &limits).await,
        None => return Response::from_parts(parts, body),
    };
    log(&problem, probe);
    parts.status = problem.status;
    parts.headers.remove(CONTENT_LENGTH);
    problem.set_headers(&mut parts.headers);
    let request_id = request_id.as_ref().map(|id| id.0.as_str());
    Response::from_parts(parts, problem.body(request_id))
}

/// An error that axum, tower-http or a rejected extractor made: no body, or a sentence. What has a
/// type of its own was meant as it is.
fn is_plain_error(parts: &Parts) -> bool {
    let error = parts.status.is_client_error() || parts.status.is_server_error();
    error && parts.headers.get(CONTENT_TYPE).is_none_or(|value| value.as_bytes().starts_with(b"text/plain"))
}

#[derive(Debug, thiserror::Error)]
#[error("plain answer: {0}")]
struct PlainAnswer(String);

async fn from_plain(status: StatusCode, body: Body, limits: &HttpLimits) -> Problem {
    let bytes = to_bytes(body, MAX_PLAIN_TEXT).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let (kind, standard) = describe(status);
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let limit = limits.max_body_bytes;
            Problem::new(status, kind, format!("{standard} The limit is {limit} bytes."))
                .with("limit_bytes", limit)
        }
        StatusCode::GATEWAY_TIMEOUT => {
            let seconds = limits.request_timeout.as_secs_f64();
            Problem::new(status, kind, format!("{standard} The limit is {seconds} s."))
        }
        // What a server error says may be private; what axum says of a bad request is for the caller.
        _ if status.is_server_error() && !text.is_empty() => {
            Problem::new(status, kind, standard).with_source(PlainAnswer(text))
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Problem::new(status, kind, standard),
        _ if status.is_client_error() && !text.is_empty() => Problem::new(status, kind, text),
        _ => Problem::new(status, kind, standard),
    }
}

fn describe(status: StatusCode) -> (&'static str, &'static str) {
    match status {
        StatusCode::BAD_REQUEST => ("bad_request", "The request cannot be understood."),
        StatusCode::UNAUTHORIZED => ("unauthorized", "The request needs valid credentials."),
        StatusCode::FORBIDDEN => ("forbidden", "These credentials do not allow this."),
        StatusCode::NOT_FOUND => ("not_found", "There is nothing at this address."),
        StatusCode::METHOD_NOT_ALLOWED => {
            ("method_not_allowed", "This address takes other methods; see the header Allow.")
        }
        StatusCode::NOT_ACCEPTABLE => ("not_acceptable", "No such form of the answer exists."),
        StatusCode::REQUEST_TIMEOUT => ("request_timeout", "The request took too long to arrive."),
        StatusCode::LENGTH_REQUIRED => ("length_required", "The header Content-Length is needed."),
        StatusCode::PAYLOAD_TOO_LARGE => ("body_too_large", "The body is too large."),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ("unsupported_media_type", "This content type is not taken here.")
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            ("unprocessable", "The request is well formed, but its content is not what is needed.")
        }
        StatusCode::TOO_MANY_REQUESTS => ("overloaded", "Too much is going on; try again later."),
        StatusCode::INTERNAL_SERVER_ERROR => {
            ("internal", "Something went wrong here; the request may be tried again.")
        }
        StatusCode::SERVICE_UNAVAILABLE => ("unavailable", "Try again later."),
        StatusCode::GATEWAY_TIMEOUT => ("timeout", "The request took too long and was dropped."),
        _ if status.is_client_error() => ("client_error", "The request cannot be served."),
        _ => ("server_error", "The request could not be served; try again later."),
    }
}

/// Once for every problem, with the private source. A probe that is told "not yet" is no news.
fn log(problem: &Problem, probe: bool) {
    let Problem { kind, detail, status, source, .. } = problem;
    let status = status.as_u16();
    let error = source.as_ref().map(|source| error_chain(source.as_ref()));
    if probe {
        tracing::debug!(status, kind, detail, error, "problem");
    } else if status == 500 {
        tracing::error!(status, kind, detail, error, "problem");
    } else if status > 500 {
        tracing::warn!(status, kind, detail, error, "problem");
    } else if error.is_some() {
        tracing::info!(status, kind, detail, error, "problem");
    } else {
        tracing::debug!(status, kind, detail, "problem");
    }
}
