//! The route `POST /classify`. A request contains the path of an image in the bucket, or the image itself.

use std::borrow::Cow;

use axum::{
    Json,
    extract::{Query, Request, State, rejection::QueryRejection},
};
use contract::{GcsPath, Prediction};
use platform::{
    http::{BodyError, FormFiles, Problem, media_type_of},
    memory_budget::ReservedBytes,
    text::excerpt,
};
use serde::{Deserialize, Serialize, de::Error};

use super::count_body_error;
use crate::{
    error::ClassifyError,
    model::{Head, labels},
    service::{Answer, Service, SharedService},
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
    #[error(
        "Send application/json with a gcs_path, a JPEG or PNG as image/* or application/octet-stream, or \
         multipart/form-data with a field `file`."
    )]
    MediaType,
    #[error("The multipart body has no field `file`. Send the image in that field.")]
    NoFile,
    #[error("top_k must be 1 to {class_count}.")]
    TopK { class_count: usize },
    #[error("threshold must be 0 to 1.")]
    Threshold,
}

/// Name of the form field that contains an image.
const FILE_FIELD: &str = "file";

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
pub(super) enum ImageSource {
    Stored(GcsPath),
    Body(ReservedBytes),
}

/// Classifies the image of a request and builds the response.
pub(super) async fn handle_classify(
    State(service): State<SharedService>,
    query: Result<Query<Options>, QueryRejection>,
    request: Request,
) -> Result<Json<ClassifyResponse>, Problem> {
    let Query(query) = query.map_err(|error| InvalidRequest::Query(error.body_text()))?;
    let (source, options) = read_request(&service, request).await?;
    let top_k = options.top_k.or(query.top_k).unwrap_or_else(|| service.settings.top_k.get());
    let threshold = options.threshold.or(query.threshold).unwrap_or_else(|| service.head.min_confidence());
    check_options(&service.head, top_k, threshold)?;

    let Answer { result: prediction, duplicate } = match source {
        ImageSource::Stored(path) => service.classify_object(&path, top_k, threshold).await?,
        ImageSource::Body(image) => service.classify_bytes(image, top_k).await?,
    };
    tracing::info!(label = prediction.label, confidence = prediction.confidence, duplicate, "classified");
    Ok(Json(ClassifyResponse { prediction: labels::shorten(prediction, top_k, threshold), duplicate }))
}

fn check_options(head: &Head, top_k: usize, threshold: f32) -> Result<(), InvalidRequest> {
    let class_count = head.class_count();
    if !(1..=class_count).contains(&top_k) {
        return Err(InvalidRequest::TopK { class_count });
    }
    if !(0.0..=1.0).contains(&threshold) {
        return Err(InvalidRequest::Threshold);
    }
    Ok(())
}

/// Reads a request in the format that its content type names.
pub(super) async fn read_request(
    service: &Service,
    request: Request,
) -> Result<(ImageSource, Options), Problem> {
    let bodies = &service.bodies;
    let image = match media_type_of(request.headers()).as_str() {
        "application/json" => return read_json(service, request).await,
        "multipart/form-data" => {
            let form = bodies.receive_form(request, FILE_FIELD, 1).await.inspect_err(count_body_error)?;
            let FormFiles { mut files, reservation } = form;
            let file = files.pop().ok_or(InvalidRequest::NoFile)?;
            ReservedBytes { bytes: file.bytes, reservation }
        }
        media_type if media_type == "application/octet-stream" || media_type.starts_with("image/") => {
            bodies.receive(request).await.inspect_err(count_body_error)?
        }
        _ => return Err(InvalidRequest::MediaType.into()),
    };
    Ok((ImageSource::Body(image), Options::default()))
}

async fn read_json(service: &Service, request: Request) -> Result<(ImageSource, Options), Problem> {
    let limit = service.settings.max_json_bytes;
    let body = match service.bodies.receive_up_to(request, limit).await.inspect_err(count_body_error) {
        Ok(body) => body,
        Err(BodyError::TooLarge { .. }) => return Err(InvalidRequest::JsonTooLarge { limit }.into()),
        Err(error) => return Err(error.into()),
    };
    service.json_permits.run_parser(body.bytes.len(), move || parse_json(&body.bytes)).await
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
