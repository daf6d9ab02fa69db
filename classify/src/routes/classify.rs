//! The route `POST /classify`. A request contains the path of an image in the bucket, or the image itself.

use std::borrow::Cow;

use axum::{
    Json,
    body::Body,
    extract::{FromRequest, Multipart, Query, Request, State, rejection::QueryRejection},
    http::HeaderMap,
};
use bytes::Bytes;
use contract::{GcsPath, Prediction};
use platform::{
    http::{Problem, media_type_of},
    text::excerpt,
};
use serde::{Deserialize, Serialize, de::Error};

use crate::{
    error::ClassifyError,
    model::{CLASSES, labels},
    service::{Answer, SharedService},
};

/// Reason why a request is invalid. The text is the detail in the error response.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidRequest {
    #[error("{}", excerpt(.0))]
    Query(String),
    #[error("The body is not a valid request: {}.", excerpt(.0))]
    Json(serde_json::Error),
    #[error("The JSON has more than {limit} bytes. Send only the members that are documented.")]
    JsonTooLarge { limit: usize },
    #[error("{}", excerpt(.0))]
    Multipart(String),
    #[error(
        "Send application/json with a gcs_path, a JPEG or PNG as image/* or application/octet-stream, or \
         multipart/form-data with a field `file`."
    )]
    MediaType,
    #[error("The multipart body has no field `file`. Send the image in that field.")]
    NoFile,
    #[error("Send one field `file` per request.")]
    TooManyFiles,
    #[error("top_k must be 1 to {max}.", max = CLASSES)]
    TopK,
    #[error("threshold must be 0 to 1.")]
    Threshold,
}

/// Options for the list of classes in the response. Members of the JSON body take precedence over the query.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(super) struct Options {
    top_k: Option<usize>,
    threshold: Option<f32>,
}

/// The JSON body of a request for an image in the bucket. Unknown members are skipped.
///
/// The options are not flattened, because serde would then build every unknown member first.
#[derive(Deserialize)]
struct ClassifyRequest<'a> {
    #[serde(borrow)]
    gcs_path: Cow<'a, str>,
    top_k: Option<usize>,
    threshold: Option<f32>,
}

/// The JSON body of the response: the members of the prediction, and `duplicate`.
#[derive(Debug, Serialize)]
pub(super) struct ClassifyResponse {
    #[serde(flatten)]
    prediction: Prediction,
    /// True if the prediction comes from a record that was stored earlier.
    duplicate: bool,
}

/// The image to classify: its path in the bucket, or the bytes in the body of the request.
enum ImageSource {
    Stored(GcsPath),
    Body(Bytes),
}

/// Classifies the image of a request and builds the response.
pub(super) async fn handle_classify(
    State(service): State<SharedService>,
    query: Result<Query<Options>, QueryRejection>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<ClassifyResponse>, Problem> {
    let Query(query) = query.map_err(|error| InvalidRequest::Query(error.body_text()))?;
    let (source, options) = parse_request(&service, &headers, body).await?;
    let top_k = options.top_k.or(query.top_k).unwrap_or_else(|| service.settings.top_k.get());
    let threshold = options.threshold.or(query.threshold).unwrap_or(0.0);
    check_options(top_k, threshold)?;

    let Answer { prediction, duplicate } = match source {
        ImageSource::Stored(path) => service.classify_object(&path, top_k).await?,
        ImageSource::Body(image) => service.classify_bytes(image, top_k).await?,
    };
    tracing::info!(label = prediction.label, confidence = prediction.confidence, duplicate, "classified");
    Ok(Json(ClassifyResponse { prediction: labels::shorten(prediction, top_k, threshold), duplicate }))
}

fn check_options(top_k: usize, threshold: f32) -> Result<(), InvalidRequest> {
    if !(1..=CLASSES).contains(&top_k) {
        return Err(InvalidRequest::TopK);
    }
    if !(0.0..=1.0).contains(&threshold) {
        return Err(InvalidRequest::Threshold);
    }
    Ok(())
}

/// Parses a request in the format that its content type names.
async fn parse_request(
    service: &SharedService,
    headers: &HeaderMap,
    body: Bytes,
) -> Result<(ImageSource, Options), Problem> {
    let image = match media_type_of(headers).as_str() {
        "application/json" => {
            let limit = service.settings.max_json_bytes;
            if body.len() > limit {
                return Err(InvalidRequest::JsonTooLarge { limit }.into());
            }
            return service.json_permits.run_parser(body.len(), None, move || parse_json(&body)).await;
        }
        "multipart/form-data" => read_multipart(headers, body).await?,
        "application/octet-stream" => body,
        image if image.starts_with("image/") => body,
        _ => return Err(InvalidRequest::MediaType.into()),
    };
    Ok((ImageSource::Body(image), Options::default()))
}

fn parse_json(body: &[u8]) -> Result<(ImageSource, Options), Problem> {
    // serde would also parse an array into the struct.
    if body.trim_ascii_start().starts_with(b"[") {
        return Err(InvalidRequest::Json(serde_json::Error::custom("an array is not an object")).into());
    }
    let request: ClassifyRequest<'_> = serde_json::from_slice(body).map_err(InvalidRequest::Json)?;
    let ClassifyRequest { gcs_path, top_k, threshold } = request;
    let path = gcs_path.parse().map_err(|_| ClassifyError::BadPath)?;
    Ok((ImageSource::Stored(path), Options { top_k, threshold }))
}

/// Reads the field `file` of a multipart body.
///
/// The body must have exactly one field of this name. Other fields are ignored.
async fn read_multipart(headers: &HeaderMap, body: Bytes) -> Result<Bytes, InvalidRequest> {
    let mut request = Request::new(Body::from(body));
    *request.headers_mut() = headers.clone();
    let mut multipart = Multipart::from_request(request, &())
        .await
        .map_err(|error| InvalidRequest::Multipart(error.body_text()))?;
    let mut file = None;
    while let Some(field) =
        multipart.next_field().await.map_err(|error| InvalidRequest::Multipart(error.body_text()))?
    {
        if field.name() != Some("file") {
            continue;
        }
        if file.is_some() {
            return Err(InvalidRequest::TooManyFiles);
        }
        file = Some(field.bytes().await.map_err(|error| InvalidRequest::Multipart(error.body_text()))?);
    }
    file.ok_or(InvalidRequest::NoFile)
}
