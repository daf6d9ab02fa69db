//! The responses to errors: status, kind and detail of each problem.

use std::time::Duration;

use axum::http::StatusCode;
use platform::http::Problem;

use super::classify::InvalidRequest;
use crate::{engine::EngineError, error::ClassifyError, pixels::ImageError};

/// Retry-After of a busy service. Its queue moves within a second.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// Retry-After if the bucket, the results topic or another instance must recover first.
const RETRY_LATER: Duration = Duration::from_secs(5);

impl From<ClassifyError> for Problem {
    fn from(error: ClassifyError) -> Self {
        use StatusCode as S;
        let problem = match &error {
            ClassifyError::BadPath => {
                Self::new(S::UNPROCESSABLE_ENTITY, "bad_path", "gcs_path must look like gs://BUCKET/OBJECT.")
            }
            ClassifyError::WrongBucket(bucket) => Self::new(
                S::UNPROCESSABLE_ENTITY,
                "wrong_bucket",
                format!("Only objects of gs://{bucket} are classified here."),
            ),
            ClassifyError::NoSuchObject(path) => Self::new(
                S::NOT_FOUND,
                "no_such_object",
                format!("There is no {path}. Upload the image first."),
            ),
            ClassifyError::Image(ImageError::NotAnImage(_)) => Self::new(
                S::UNPROCESSABLE_ENTITY,
                "not_an_image",
                "The bytes cannot be decoded as an image. Send a complete JPEG or PNG.",
            ),
            ClassifyError::Image(ImageError::UnsupportedFormat(format)) => Self::new(
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_format",
                format!("This is a {format} image. Send a JPEG or PNG."),
            ),
            ClassifyError::Image(ImageError::TooManyPixels { pixels, limit }) => Self::new(
                S::UNPROCESSABLE_ENTITY,
                "too_large",
                format!("The image has {pixels} pixels; the limit is {limit}. Send a smaller one."),
            )
            .with("limit_pixels", *limit),
            ClassifyError::TooManyBytes { limit } => Self::new(
                S::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("The image has more than {limit} bytes. Send a smaller one."),
            )
            .with("limit_bytes", *limit),
            ClassifyError::DecodersBusy | ClassifyError::Engine(EngineError::Overloaded) => {
                Self::overloaded("Too many images are waiting. Try again in a moment.", RETRY_SOON)
            }
            ClassifyError::Engine(EngineError::Failed(_)) => Self::unavailable(
                "engine_failed",
                "The network failed to run. Try again in a moment.",
                RETRY_SOON,
            ),
            ClassifyError::Engine(EngineError::Lost(_)) => Self::unavailable(
                "engine_lost",
                "This instance has lost its GPU. Send the request again, and another instance handles it.",
                RETRY_LATER,
            ),
            ClassifyError::UnusableLogits(_) => Self::new(
                S::INTERNAL_SERVER_ERROR,
                "model_failure",
                "The model gives no usable answer for this image. Trying again does not help.",
            ),
            ClassifyError::Bucket(_) => Self::unavailable(
                "bucket_unavailable",
                "The bucket cannot be reached. Try again in a moment.",
                RETRY_LATER,
            ),
            ClassifyError::Topic(_) => Self::unavailable(
                "topic_unavailable",
                "The result cannot be published. Try again in a moment.",
                RETRY_LATER,
            ),
            ClassifyError::Starting => Self::unavailable(
                "starting",
                "The model is being loaded. Try again in a moment.",
                RETRY_SOON,
            ),
            ClassifyError::Draining | ClassifyError::Engine(EngineError::Closed) => Self::unavailable(
                "draining",
                "This instance is shutting down. Send the request again, and another instance handles it.",
                RETRY_SOON,
            ),
        };
        problem.with_source(error)
    }
}

impl From<InvalidRequest> for Problem {
    fn from(error: InvalidRequest) -> Self {
        use StatusCode as S;
        let (status, kind) = match &error {
            InvalidRequest::Query(_) => (S::BAD_REQUEST, "bad_query"),
            InvalidRequest::Json(_) => (S::BAD_REQUEST, "bad_json"),
            InvalidRequest::Multipart(_) => (S::BAD_REQUEST, "bad_multipart"),
            InvalidRequest::MediaType => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            InvalidRequest::NoFile => (S::UNPROCESSABLE_ENTITY, "no_file"),
            InvalidRequest::TooManyFiles => (S::UNPROCESSABLE_ENTITY, "too_many_files"),
            InvalidRequest::TopK => (S::UNPROCESSABLE_ENTITY, "bad_top_k"),
            InvalidRequest::Threshold => (S::UNPROCESSABLE_ENTITY, "bad_threshold"),
        };
        Self::new(status, kind, error.to_string()).with_source(error)
    }
}
