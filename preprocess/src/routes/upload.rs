//! `POST /preprocess`: one image as the body, or a form with one or more.

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, Multipart, Request, State, multipart::MultipartError},
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use metrics::counter;
use platform::http::Problem;
use serde_json::{Value, json};

use super::Shared;
use crate::{error, ingest::Stored, trace_context::TraceParent};

/// Name of the form's field that has an image.
const FIELD: &str = "file";

/// How an upload is sent, by its content type.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Raw,
    Form,
    Other,
}

/// One file of a form.
struct File {
    name: Option<String>,
    bytes: Bytes,
}

/// One image: 200 with what was stored. Several: a list in their order with an outcome each, 200 if
/// all are stored, else 207.
pub(super) async fn upload(State(shared): State<Shared>, request: Request) -> Result<Response, Problem> {
    if shared.stop.is_cancelled() {
        counter!("preprocess_shed_total", "reason" => "draining").increment(1);
        return Err(error::draining());
    }
    let trace = TraceParent::of(request.headers());
    let limit = shared.settings.max_body_bytes;
    match kind(request.headers()) {
        Kind::Other => Err(error::unsupported_media_type()),
        Kind::Raw => {
            let upload = whole_body(request, limit).await?;
            Ok(Json(shared.ingest.take(upload, &trace).await?).into_response())
        }
        Kind::Form => {
            let mut files = files(request, shared.settings.max_files.get(), limit).await?;
            match (files.pop(), files.is_empty()) {
                (None, _) => Err(error::no_file()),
                (Some(only), true) => Ok(Json(shared.ingest.take(only.bytes, &trace).await?).into_response()),
                (Some(last), false) => {
                    files.push(last);
                    Ok(take_all(&shared, files, &trace).await)
                }
            }
        }
    }
}

/// Content types are compared as HTTP says: without their parameters and whatever the case.
fn kind(headers: &HeaderMap) -> Kind {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "multipart/form-data" => Kind::Form,
        "application/octet-stream" => Kind::Raw,
        image if image.starts_with("image/") => Kind::Raw,
        _ => Kind::Other,
    }
}

async fn whole_body(request: Request, limit: usize) -> Result<Bytes, Problem> {
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => error::body_too_large(limit),
        _ => error::bad_body().with_source(rejection),
    })
}

/// The files of a form; its other fields are ignored.
async fn files(request: Request<Body>, max_files: usize, limit: usize) -> Result<Vec<File>, Problem> {
    let problem = |error: MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => error::body_too_large(limit),
        _ => error::bad_multipart().with_source(error),
    };
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|rejection| error::bad_multipart().with_source(rejection))?;
    let mut files = Vec::new();
    while let Some(field) = form.next_field().await.map_err(problem)? {
        if field.name() != Some(FIELD) {
            continue;
        }
        if files.len() == max_files {
            return Err(error::too_many_files(max_files));
        }
        let name = field.file_name().map(str::to_owned);
        files.push(File { name, bytes: field.bytes().await.map_err(problem)? });
    }
    Ok(files)
}

/// Takes as many files at once as there are threads: more would only crowd out other requests.
async fn take_all(shared: &Shared, files: Vec<File>, trace: &TraceParent) -> Response {
    let outcomes: Vec<(StatusCode, Value)> = stream::iter(files)
        .map(|file| async move { outcome(file.name, shared.ingest.take(file.bytes, trace).await) })
        .buffered(shared.settings.threads.get())
        .collect()
        .await;
    let all_stored = outcomes.iter().all(|(status, _)| *status == StatusCode::OK);
    let status = if all_stored { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    let list: Vec<Value> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
    (status, Json(list)).into_response()
}

/// One file's entry in the list.
fn outcome(name: Option<String>, result: Result<Stored, Problem>) -> (StatusCode, Value) {
    let (status, rest) = match result {
        Ok(stored) => (StatusCode::OK, json!(stored)),
        Err(problem) => (problem.status, json!({ "error": public(&problem) })),
    };
    let mut entry = json!({ "file": name, "status": status.as_u16() });
    if let (Value::Object(entry), Value::Object(rest)) = (&mut entry, rest) {
        entry.extend(rest);
    }
    (status, entry)
}

/// What a problem tells its caller when it is one of several outcomes. The middleware never sees it,
/// so what really happened is logged here.
fn public(problem: &Problem) -> Value {
    if problem.status.is_server_error() {
        tracing::error!(kind = problem.kind, source = ?problem.source, "a file of several failed");
    } else {
        tracing::debug!(kind = problem.kind, source = ?problem.source, "a file of several was refused");
    }
    let mut error = problem.extensions.clone();
    error.insert("kind".to_owned(), problem.kind.into());
    error.insert("detail".to_owned(), problem.detail.clone().into());
    if let Some(pause) = problem.retry_after {
        error.insert("retry_after".to_owned(), pause.as_secs().max(1).into());
    }
    Value::Object(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for (value, expected) in [
            ("image/jpeg", Kind::Raw),
            ("IMAGE/PNG; q=1", Kind::Raw),
            ("application/octet-stream", Kind::Raw),
            ("multipart/form-data; boundary=x", Kind::Form),
            ("Multipart/Form-Data", Kind::Form),
            ("application/x-www-form-urlencoded", Kind::Other),
            ("text/plain; image/png", Kind::Other),
            ("", Kind::Other),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(kind(&headers), expected, "{value:?}");
        }
        assert_eq!(kind(&HeaderMap::new()), Kind::Other);
    }
}
