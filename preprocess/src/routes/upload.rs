//! `POST /preprocess`: one image as the body, or a form with one or more.

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
use platform::http::{Problem, media_type_of};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Shared;
use crate::{
    error,
    ingest::{Stored, Upload},
    trace_context::TraceParent,
};

/// Name of the form's field that has an image.
const FIELD: &str = "file";

/// How long an upload for which there is no place waits for its refusal, unread. Callers who come back at
/// once would otherwise have the machine read what it refuses: with ten of them for each place only three fifths of
/// the pictures were made that are made without them.
const REFUSAL_PAUSE: Duration = Duration::from_millis(100);

/// How an upload is sent, by its content type.
#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Raw,
    Form,
    Other,
}

/// One file of a request.
struct File {
    name: Option<String>,
    upload: Upload,
}

/// One image: 200 with what was stored. Several: a list in their order with an outcome each, 200 if
/// all are stored, else 207.
pub(super) async fn upload(State(shared): State<Shared>, request: Request) -> Result<Response, Problem> {
    if shared.stop.is_cancelled() {
        counter!("preprocess_shed_total", "reason" => "draining").increment(1);
        return Err(error::draining());
    }
    let trace = TraceParent::of(request.headers());
    let mut files = receive(&shared, request).await?;
    match (files.pop(), files.is_empty()) {
        (None, _) => Err(error::no_file()),
        (Some(only), true) => Ok(Json(shared.ingest.take(only.upload, &trace).await?).into_response()),
        (Some(last), false) => {
            files.push(last);
            Ok(take_all(&shared, files, &trace).await)
        }
    }
}

/// Receives the files of a request, once there is memory for the whole body.
async fn receive(shared: &Shared, request: Request) -> Result<Vec<File>, Problem> {
    let settings = &shared.settings;
    let kind = match kind(request.headers()) {
        Kind::Other => return Err(error::unsupported_media_type()),
        kind => kind,
    };
    if let Err(problem) = shared.ingest.has_place() {
        tokio::time::sleep(REFUSAL_PAUSE).await;
        discard(request, settings.upload_timeout).await;
        return Err(problem);
    }
    let announced = announced(request.headers(), settings.max_body_bytes);
    let mut room = shared.uploads.reserve(announced as u64).await.map_err(|error| {
        counter!("preprocess_shed_total", "reason" => "uploads").increment(1);
        error::memory_problem(error)
    })?;
    let receiving = async {
        match kind {
            Kind::Form => form(request, settings.max_files.get(), settings.max_body_bytes, announced).await,
            _ => Ok(vec![(None, whole_body(request, settings.max_body_bytes, announced).await?)]),
        }
    };
    let files = timeout(settings.upload_timeout, receiving)
        .await
        .map_err(|_| error::upload_timeout(settings.upload_timeout))??;
    room.shrink_to(files.iter().map(|(_, bytes)| bytes.len() as u64).sum());
    let room = Arc::new(room);
    let file = |(name, bytes)| File { name, upload: Upload { bytes, room: Arc::clone(&room) } };
    Ok(files.into_iter().map(file).collect())
}

/// Reads the body of a request that is refused, and keeps none of it: a client that still sends when the
/// connection is closed may never see the answer. Costs little beside what is let in.
async fn discard(request: Request, limit: Duration) {
    let mut body = request.into_body().into_data_stream();
    let reading = async { while let Some(Ok(_)) = body.next().await {} };
    // The answer is the same whether it came to an end.
    let _ = timeout(limit, reading).await;
}

/// Bytes that the body has at most: as many as its header says, else as many as are allowed.
fn announced(headers: &HeaderMap, limit: usize) -> usize {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or(limit).min(limit)
}

fn kind(headers: &HeaderMap) -> Kind {
    match media_type_of(headers).as_str() {
        "multipart/form-data" => Kind::Form,
        "application/octet-stream" => Kind::Raw,
        image if image.starts_with("image/") => Kind::Raw,
        _ => Kind::Other,
    }
}

/// The body in one piece, which is made as large as it may become at once: growing it would take twice
/// the memory for a moment, and what is not written to takes none.
async fn whole_body(request: Request, limit: usize, announced: usize) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::with_capacity(announced);
    let mut body = request.into_body().into_data_stream();
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| match is_too_large(&error) {
            true => error::body_too_large(limit),
            false => error::bad_body().with_source(error),
        })?;
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

/// Whether it is the limit on the body that was met.
fn is_too_large(error: &axum::Error) -> bool {
    std::iter::successors(Some(error as &dyn Error), |&error| error.source())
        .any(|error| error.is::<http_body_util::LengthLimitError>())
}

/// Names and bytes of the files of a form; its other fields are ignored.
async fn form(
    request: Request<Body>,
    max_files: usize,
    limit: usize,
    announced: usize,
) -> Result<Vec<(Option<String>, Bytes)>, Problem> {
    let problem = |error: MultipartError| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => error::body_too_large(limit),
        _ => error::bad_multipart().with_source(error),
    };
    let mut form = Multipart::from_request(request, &())
        .await
        .map_err(|rejection| error::bad_multipart().with_source(rejection))?;
    let mut files = Vec::new();
    let mut left = announced;
    while let Some(mut field) = form.next_field().await.map_err(problem)? {
        if field.name() != Some(FIELD) {
            continue;
        }
        if files.len() == max_files {
            return Err(error::too_many_files(max_files));
        }
        let name = field.file_name().map(str::to_owned);
        // As for a whole body.
        let mut bytes = BytesMut::with_capacity(left);
        while let Some(piece) = field.chunk().await.map_err(problem)? {
            bytes.extend_from_slice(&piece);
        }
        left = left.saturating_sub(bytes.len());
        files.push((name, bytes.freeze()));
    }
    Ok(files)
}

/// Takes as many files at once as there are threads: more would only crowd out other requests.
async fn take_all(shared: &Shared, files: Vec<File>, trace: &TraceParent) -> Response {
    let outcomes: Vec<(StatusCode, Value)> = stream::iter(files)
        .map(|file| async move { outcome(file.name, shared.ingest.take(file.upload, trace).await) })
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
