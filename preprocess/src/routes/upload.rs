//! The route `POST /preprocess`, whose body is one image, or a form with one or more images.

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, Multipart, Request, State, multipart::MultipartError},
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use metrics::counter;
use platform::{
    http::{Problem, media_type_of},
    text::excerpt,
};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{RouteState, problem};
use crate::{
    error::ServiceError,
    trace_context::TraceParent,
    upload_service::{StoredImage, Upload},
};

/// Name of the form field that contains an image.
const FILE_FIELD: &str = "file";

/// Delay before an upload is refused for lack of a CPU permit. The body is not read during the delay.
///
/// The delay slows down callers that retry at once. Without the delay, ten such callers per CPU permit
/// reduced the throughput by 40 %, because reading the bodies of their retries took much CPU time.
const REFUSAL_DELAY: Duration = Duration::from_millis(100);

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

/// Reserves memory for the whole body, then receives the files.
async fn receive_files(state: &RouteState, request: Request) -> Result<Vec<UploadedFile>, Problem> {
    let settings = &state.settings;
    let kind = match detect_body_kind(request.headers()) {
        BodyKind::Unsupported => return Err(problem::unsupported_media_type()),
        kind => kind,
    };
    if let Err(error) = state.upload_service.check_capacity() {
        tokio::time::sleep(REFUSAL_DELAY).await;
        drain_body(request, settings.preprocess_upload_timeout).await;
        return Err(error.into());
    }
    let max_length = max_body_length(request.headers(), settings.preprocess_max_body_bytes);
    let mut reservation = state.upload_memory.reserve(max_length as u64).await.map_err(|error| {
        counter!("preprocess_shed_total", "reason" => "uploads").increment(1);
        problem::memory_problem(error)
    })?;
    let receiving = async {
        match kind {
            BodyKind::Form => {
                read_form(
                    request,
                    settings.preprocess_max_files.get(),
                    settings.preprocess_max_body_bytes,
                    max_length,
                )
                .await
            }
            _ => Ok(vec![(None, read_body(request, settings.preprocess_max_body_bytes, max_length).await?)]),
        }
    };
    let files = timeout(settings.preprocess_upload_timeout, receiving)
        .await
        .map_err(|_| problem::upload_timeout(settings.preprocess_upload_timeout))??;
    reservation.shrink_to(files.iter().map(|(_, bytes)| bytes.len() as u64).sum());
    let reservation = Arc::new(reservation);
    let to_file = |(name, bytes)| UploadedFile {
        name,
        upload: Upload { bytes, reservation: Arc::clone(&reservation) },
    };
    Ok(files.into_iter().map(to_file).collect())
}

/// Reads and discards the body of a refused request.
///
/// A client that is still sending when the connection is closed may never see the response. Reading one body
/// takes little time, and [`REFUSAL_DELAY`] limits how often a client repeats a refused request.
async fn drain_body(request: Request, upload_timeout: Duration) {
    let mut body = request.into_body().into_data_stream();
    let reading = async { while let Some(Ok(_)) = body.next().await {} };
    // The outcome is ignored, because the request is refused in any case.
    let _ = timeout(upload_timeout, reading).await;
}

/// Returns the Content-Length, but at most `limit`. Returns `limit` if the header is missing or invalid.
fn max_body_length(headers: &HeaderMap, limit: usize) -> usize {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or(limit).min(limit)
}

fn detect_body_kind(headers: &HeaderMap) -> BodyKind {
    match media_type_of(headers).as_str() {
        "multipart/form-data" => BodyKind::Form,
        "application/octet-stream" => BodyKind::Raw,
        image if image.starts_with("image/") => BodyKind::Raw,
        _ => BodyKind::Unsupported,
    }
}

/// Reads the whole body, which has at most `max_length` bytes, into one buffer. If the body is longer, the
/// error states the limit of the configuration, `configured_limit`.
///
/// The buffer is allocated at its maximum length, so that it never grows. While a buffer grows, the old and
/// the new buffer exist at the same time. Pages that are never written to use no memory.
async fn read_body(request: Request, configured_limit: usize, max_length: usize) -> Result<Bytes, Problem> {
    let mut bytes = BytesMut::with_capacity(max_length);
    let mut body = request.into_body().into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| match is_too_large(&error) {
            true => problem::body_too_large(configured_limit),
            false => problem::incomplete_body().with_source(error),
        })?;
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

/// Returns true if the error means that the body exceeds its length limit.
fn is_too_large(error: &axum::Error) -> bool {
    std::iter::successors(Some(error as &dyn Error), |&error| error.source())
        .any(|error| error.is::<http_body_util::LengthLimitError>())
}

/// Reads the names and bytes of the files of a form. Other fields are ignored.
///
/// `configured_limit` and `max_length` have the same meaning as in [`read_body`].
async fn read_form(
    request: Request<Body>,
    max_files: usize,
    configured_limit: usize,
    max_length: usize,
) -> Result<Vec<(Option<String>, Bytes)>, Problem> {
    let form_problem = |error: MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => problem::body_too_large(configured_limit),
        _ => problem::bad_multipart().with_source(error),
    };
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|rejection| problem::bad_multipart().with_source(rejection))?;
    let mut files = Vec::new();
    let mut length_left = max_length;
    while let Some(mut field) = form.next_field().await.map_err(form_problem)? {
        if field.name() != Some(FILE_FIELD) {
            continue;
        }
        if files.len() == max_files {
            return Err(problem::too_many_files(max_files));
        }
        let name = field.file_name().map(str::to_owned);
        // The buffer is allocated at its maximum length, as in `read_body`.
        let mut bytes = BytesMut::with_capacity(length_left);
        while let Some(chunk) = field.chunk().await.map_err(form_problem)? {
            bytes.extend_from_slice(&chunk);
        }
        length_left = length_left.saturating_sub(bytes.len());
        files.push((name, bytes.freeze()));
    }
    Ok(files)
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
