//! `POST /classify`: a stored image by its path, or the image itself, raw or as multipart.

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, Multipart, Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode},
};
use bytes::Bytes;
use contract::{GcsPath, Prediction};
use platform::http::media_type_of;
use serde::{Deserialize, Serialize};

use crate::{
    classes::narrowed,
    error::ClassifyError,
    network::CLASSES,
    service::{Answer, SharedService},
};

const TAKEN: &str = "Send application/json with a gcs_path, a JPEG or PNG as image/* or application/octet-stream, or \
                     multipart/form-data with a field `file`.";

/// How the answer is cut; the JSON's members go before the query's.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Options {
    top_k: Option<usize>,
    threshold: Option<f32>,
}

#[derive(Deserialize)]
struct ByPath {
    gcs_path: String,
    #[serde(flatten)]
    options: Options,
}

/// The prediction's members, and whether it had been made before.
#[derive(Debug, Serialize)]
pub(super) struct Reply {
    #[serde(flatten)]
    prediction: Prediction,
    duplicate: bool,
}

/// What the request is about.
enum Subject {
    Stored(GcsPath),
    Sent(Bytes),
}

pub(super) async fn classify(
    State(service): State<SharedService>,
    query: Result<Query<Options>, QueryRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Reply>, ClassifyError> {
    service.admit()?;
    let Query(query) = query
        .map_err(|error| ClassifyError::refused(StatusCode::BAD_REQUEST, "bad_query", error.body_text()))?;
    let (subject, options) = read(&headers, body).await?;
    let top_k = options.top_k.or(query.top_k).unwrap_or_else(|| service.settings.top_k.get());
    let threshold = options.threshold.or(query.threshold).unwrap_or(0.0);
    check(top_k, threshold)?;

    let Answer { prediction, duplicate } = match subject {
        Subject::Stored(path) => service.classify_object(&path, top_k).await?,
        Subject::Sent(image) => service.classify_bytes(image, top_k).await?,
    };
    tracing::info!(label = prediction.label, confidence = prediction.confidence, duplicate, "classified");
    Ok(Json(Reply { prediction: narrowed(prediction, top_k, threshold), duplicate }))
}

fn check(top_k: usize, threshold: f32) -> Result<(), ClassifyError> {
    let refused = |kind, detail| Err(ClassifyError::refused(StatusCode::UNPROCESSABLE_ENTITY, kind, detail));
    if !(1..=CLASSES).contains(&top_k) {
        return refused("bad_top_k", format!("top_k must be 1 to {CLASSES}."));
    }
    if !(0.0..=1.0).contains(&threshold) {
        return refused("bad_threshold", "threshold must be 0 to 1.".to_owned());
    }
    Ok(())
}

/// Which of the three ways of asking this is, by its content type.
async fn read(headers: &HeaderMap, body: Bytes) -> Result<(Subject, Options), ClassifyError> {
    match media_type_of(headers).as_str() {
        "application/json" => by_path(&body),
        "multipart/form-data" => Ok((Subject::Sent(file_of(headers, body).await?), Options::default())),
        "application/octet-stream" => Ok((Subject::Sent(body), Options::default())),
        image if image.starts_with("image/") => Ok((Subject::Sent(body), Options::default())),
        _ => Err(ClassifyError::refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", TAKEN)),
    }
}

fn by_path(body: &[u8]) -> Result<(Subject, Options), ClassifyError> {
    let request: ByPath = serde_json::from_slice(body).map_err(|error| {
        ClassifyError::refused(
            StatusCode::BAD_REQUEST,
            "bad_json",
            format!("The body is not such a request: {error}."),
        )
    })?;
    let path = request.gcs_path.parse().map_err(|_| ClassifyError::BadPath)?;
    Ok((Subject::Stored(path), request.options))
}

/// The one field `file` of a multipart body; other fields are ignored.
async fn file_of(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ClassifyError> {
    let bad = |detail: String| ClassifyError::refused(StatusCode::BAD_REQUEST, "bad_multipart", detail);
    let mut request = Request::new(Body::from(body));
    *request.headers_mut() = headers.clone();
    let mut multipart =
        Multipart::from_request(request, &()).await.map_err(|error| bad(error.body_text()))?;
    let mut file = None;
    while let Some(field) = multipart.next_field().await.map_err(|error| bad(error.body_text()))? {
        if field.name() != Some("file") {
            continue;
        }
        if file.is_some() {
            let detail = "Send one field `file` a request.";
            return Err(ClassifyError::refused(StatusCode::UNPROCESSABLE_ENTITY, "too_many_files", detail));
        }
        file = Some(field.bytes().await.map_err(|error| bad(error.body_text()))?);
    }
    file.ok_or_else(|| {
        let detail = "The multipart body has no field `file`. Put the image there.";
        ClassifyError::refused(StatusCode::UNPROCESSABLE_ENTITY, "no_file", detail)
    })
}
