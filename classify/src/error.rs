//! Why an image is not classified, and what the caller is told.

use std::time::Duration;

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use contract::GcsPath;
use platform::{
    bucket::BucketError,
    cpu::CpuError,
    http::Problem,
    topic::{TopicError, push::PushError},
};

use crate::{engine::EngineError, outcome::Dead, pixels::ImageError};

/// When a refused caller may come back: the queue of a busy service moves within a second.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// When to come back if something else must recover first.
const RETRY_LATER: Duration = Duration::from_secs(5);

/// Why a request has no prediction.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClassifyError {
    #[error("{0}")]
    BadRequest(Refusal),
    #[error(transparent)]
    BadPush(#[from] PushError),
    #[error("gcs_path is not gs://BUCKET/OBJECT")]
    BadPath,
    #[error("only objects of gs://{0} are classified here")]
    WrongBucket(String),
    #[error("no such object: {0}")]
    NoSuchObject(GcsPath),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("the image is larger than {limit} bytes")]
    TooManyBytes { limit: usize },
    /// Found out earlier, and written down where the prediction would be.
    #[error("{message}")]
    Recorded { dead: Dead, message: String },
    #[error("the decoding queue is full")]
    DecodersBusy,
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the bucket did not do its part")]
    Bucket(#[source] BucketError),
    #[error("the results topic did not do its part")]
    Topic(#[source] TopicError),
    #[error("the service is starting")]
    Starting,
    #[error("the service is draining")]
    Draining,
}

/// A request that is not well-formed: status, kind and detail of the problem.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
}

impl ClassifyError {
    pub(crate) fn refused(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self::BadRequest(Refusal { status, kind, detail: detail.into() })
    }

    /// What the caller is told; the error itself goes along for the log.
    pub(crate) fn into_problem(self) -> Problem {
        use StatusCode as S;
        let problem = match &self {
            Self::BadRequest(refusal) => Problem::new(refusal.status, refusal.kind, refusal.detail.clone()),
            Self::BadPush(error @ PushError::BadJson(_)) => {
                Problem::new(S::BAD_REQUEST, "bad_json", error.to_string())
            }
            Self::BadPush(error @ PushError::BadBase64(_)) => {
                Problem::new(S::BAD_REQUEST, "bad_base64", error.to_string())
            }
            Self::BadPath => Problem::new(
                S::UNPROCESSABLE_ENTITY,
                "bad_path",
                "gcs_path must look like gs://BUCKET/OBJECT.",
            ),
            Self::WrongBucket(ours) => Problem::new(
                S::UNPROCESSABLE_ENTITY,
                "wrong_bucket",
                format!("Only objects of gs://{ours} are classified here."),
            ),
            Self::NoSuchObject(path) => Problem::new(
                S::NOT_FOUND,
                "no_such_object",
                format!("There is no {path}. Upload the image first."),
            ),
            Self::Image(error) => image_problem(error),
            Self::TooManyBytes { limit } => Problem::new(
                S::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("The image has more than {limit} bytes. Send a smaller one."),
            )
            .with("limit_bytes", *limit),
            Self::Recorded { dead, message } => {
                Problem::new(S::UNPROCESSABLE_ENTITY, dead.reason(), message.clone())
            }
            Self::DecodersBusy | Self::Engine(EngineError::Overloaded) => {
                Problem::overloaded("Too many images are waiting. Try again in a moment.", RETRY_SOON)
            }
            Self::Engine(EngineError::Failed(_)) => Problem::unavailable(
                "engine_failed",
                "The network did not run this time. Try again in a moment.",
                RETRY_SOON,
            ),
            Self::Engine(EngineError::Lost(_)) => Problem::unavailable(
                "engine_lost",
                "What this instance runs the network on is lost. Send the request again; another one takes it.",
                RETRY_LATER,
            ),
            Self::Engine(EngineError::Unsound(_)) => Problem::new(
                S::INTERNAL_SERVER_ERROR,
                "model_failure",
                "The model gives no usable answer for this image. Trying again does not help.",
            ),
            Self::Bucket(_) => Problem::unavailable(
                "bucket_unavailable",
                "The bucket cannot be reached. Try again in a moment.",
                RETRY_LATER,
            ),
            Self::Topic(_) => Problem::unavailable(
                "topic_unavailable",
                "The result cannot be published. Try again in a moment.",
                RETRY_LATER,
            ),
            Self::Starting => Problem::unavailable(
                "starting",
                "The model is being loaded. Try again in a moment.",
                RETRY_SOON,
            ),
            Self::Draining | Self::Engine(EngineError::Closed) => Problem::unavailable(
                "draining",
                "This instance is shutting down. Send the request again; another one takes it.",
                RETRY_SOON,
            ),
        };
        problem.with_source(self)
    }
}

fn image_problem(error: &ImageError) -> Problem {
    match error {
        ImageError::NotAnImage(_) => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "not_an_image",
            "The bytes cannot be read as an image. Send a whole JPEG or PNG.",
        ),
        ImageError::UnsupportedFormat(format) => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_format",
            format!("This is a {format} image. Send a JPEG or PNG."),
        ),
        ImageError::TooManyPixels { pixels, limit } => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too_large",
            format!("The image has {pixels} pixels; at most {limit} are taken. Send a smaller one."),
        )
        .with("limit_pixels", *limit),
    }
}

impl From<CpuError> for ClassifyError {
    fn from(error: CpuError) -> Self {
        match error {
            CpuError::Overloaded => Self::DecodersBusy,
            // The same bytes make the decoder panic again: as good as no image.
            CpuError::Panicked => Self::Image(ImageError::NotAnImage(error.into())),
        }
    }
}

impl From<BucketError> for ClassifyError {
    fn from(error: BucketError) -> Self {
        match error {
            // No later attempt finds room for such a name.
            BucketError::BadName { .. } => Self::BadPath,
            other => Self::Bucket(other),
        }
    }
}

impl IntoResponse for ClassifyError {
    fn into_response(self) -> Response {
        self.into_problem().into_response()
    }
}
