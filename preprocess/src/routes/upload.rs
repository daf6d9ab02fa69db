//! The route `POST /preprocess`, whose body is one image, or a form with one or more images.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use metrics::counter;
use platform::{
    http::{BodyError, FormFile, FormFiles, Problem, media_type_of},
    memory_budget::ReservedBytes,
    text::excerpt,
};
use serde_json::{Value, json};

use super::{RouteState, problem};
use crate::{
    error::ServiceError,
    trace_context::TraceParent,
    upload_service::{StoredImage, Upload},
};

/// Name of the form field that contains an image.
const FILE_FIELD: &str = "file";

/// Kind of a request body, according to its content type.
#[derive(Debug, PartialEq, Eq)]
enum BodyKind {
    /// The body is the image.
    Raw,
    /// The body is a form.
    Form,
    /// The content type is not accepted.
    Unsupported,
}

/// One file of a request.
struct UploadedFile {
    /// File name in the form, if the form states one.
    name: Option<String>,
    upload: Upload,
}

/// Processes the uploaded images.
///
/// For a single image, the response is 200 with the stored image, or a problem. For several images, the
/// response is a list with one entry per image, in the order of the form. The status is 200 if all images are
/// stored, and 207 otherwise.
pub(super) async fn post_upload(
    State(state): State<RouteState>,
    request: Request,
) -> Result<Response, Problem> {
    if state.stop.is_cancelled() {
        counter!("preprocess_shed_total", "reason" => "draining").increment(1);
        return Err(problem::draining());
    }
    let trace = TraceParent::from_headers_or_new(request.headers());
    let mut files = receive_files(&state, request).await?;
    match (files.pop(), files.is_empty()) {
        (None, _) => Err(problem::no_file()),
        (Some(file), true) => {
            Ok(Json(state.upload_service.process(file.upload, &trace).await?).into_response())
        }
        (Some(last), false) => {
            files.push(last);
            Ok(process_all(&state, files, &trace).await)
        }
    }
}

/// Receives the files of a request.
async fn receive_files(state: &RouteState, request: Request) -> Result<Vec<UploadedFile>, Problem> {
    let kind = match detect_body_kind(request.headers()) {
        BodyKind::Unsupported => return Err(problem::unsupported_media_type()),
        kind => kind,
    };
    let bodies = &state.bodies;
    if let Err(error) = state.upload_service.check_capacity() {
        // The body is not read during the delay.
        state.refusal_delay.wait().await;
        bodies.discard(request).await;
        return Err(error.into());
    }
    let received = match kind {
        BodyKind::Form => {
            bodies.receive_form(request, FILE_FIELD, state.settings.preprocess_max_files.get()).await
        }
        _ => bodies.receive(request).await.map(|ReservedBytes { bytes, reservation }| FormFiles {
            files: vec![FormFile { name: None, bytes }],
            reservation,
        }),
    };
    let FormFiles { files, reservation } = received.inspect_err(count_body_error)?;
    let reservation = Arc::new(reservation);
    let to_file = |FormFile { name, bytes }| UploadedFile {
        name,
        upload: Upload { bytes, reservation: Arc::clone(&reservation) },
    };
    Ok(files.into_iter().map(to_file).collect())
}

/// Increments `preprocess_shed_total` if a body was refused for lack of memory, or because it was too slow.
fn count_body_error(error: &BodyError) {
    let reason = match error {
        BodyError::Memory(_) => "uploads",
        BodyError::TooSlow { .. } | BodyError::TimedOut { .. } => "slow_uploads",
        _ => return,
    };
    counter!("preprocess_shed_total", "reason" => reason).increment(1);
}

fn detect_body_kind(headers: &HeaderMap) -> BodyKind {
    match media_type_of(headers).as_str() {
        "multipart/form-data" => BodyKind::Form,
        "application/octet-stream" => BodyKind::Raw,
        image if image.starts_with("image/") => BodyKind::Raw,
        _ => BodyKind::Unsupported,
    }
}

/// Processes several files and responds with a list of the outcomes.
///
/// Processes at most one file per CPU thread at the same time. More would only delay other requests.
async fn process_all(state: &RouteState, files: Vec<UploadedFile>, trace: &TraceParent) -> Response {
    let service = &state.upload_service;
    let entries: Vec<(StatusCode, Value)> = stream::iter(files)
        .map(|file| async move { describe_outcome(file.name, service.process(file.upload, trace).await) })
        .buffered(state.settings.preprocess_threads.get())
        .collect()
        .await;
    let all_stored = entries.iter().all(|(status, _)| *status == StatusCode::OK);
    let status = if all_stored { StatusCode::OK } else { StatusCode::MULTI_STATUS };
    let list: Vec<Value> = entries.into_iter().map(|(_, entry)| entry).collect();
    (status, Json(list)).into_response()
}

/// Returns the status for one file, and the entry for this file in the list.
fn describe_outcome(name: Option<String>, result: Result<StoredImage, ServiceError>) -> (StatusCode, Value) {
    let (status, members) = match result {
        Ok(stored) => (StatusCode::OK, json!(stored)),
        Err(error) => {
            let problem = Problem::from(error);
            (problem.status, json!({ "error": log_and_describe(&problem) }))
        }
    };
    let name = name.map(|name| excerpt(name).to_string());
    let mut entry = json!({ "file": name, "status": status.as_u16() });
    if let (Value::Object(entry), Value::Object(members)) = (&mut entry, members) {
        entry.extend(members);
    }
    (status, entry)
}

/// Logs a problem with its private source and returns its public members.
///
/// The middleware logs the problem of a whole request. It does not see the problem of one of several files.
fn log_and_describe(problem: &Problem) -> Value {
    if problem.status.is_server_error() {
        tracing::error!(kind = problem.kind, source = ?problem.source, "processing one of several files failed");
    } else {
        tracing::debug!(kind = problem.kind, source = ?problem.source, "one of several files was refused");
    }
    let mut error = problem.extensions.clone();
    error.insert("kind".to_owned(), problem.kind.into());
    error.insert("detail".to_owned(), problem.detail.clone().into());
    if let Some(seconds) = problem.retry_after_seconds() {
        error.insert("retry_after".to_owned(), seconds.into());
    }
    Value::Object(error)
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn body_kind_depends_on_the_media_type_alone() {
        for (value, expected) in [
            ("image/jpeg", BodyKind::Raw),
            ("IMAGE/PNG; q=1", BodyKind::Raw),
            ("application/octet-stream", BodyKind::Raw),
            ("multipart/form-data; boundary=x", BodyKind::Form),
            ("Multipart/Form-Data", BodyKind::Form),
            ("application/x-www-form-urlencoded", BodyKind::Unsupported),
            ("text/plain; image/png", BodyKind::Unsupported),
            ("", BodyKind::Unsupported),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, value.parse().unwrap())]);
            assert_eq!(detect_body_kind(&headers), expected, "{value:?}");
        }
        assert_eq!(detect_body_kind(&HeaderMap::new()), BodyKind::Unsupported);
    }
}
