//! Converts errors to problems, which are error responses with a status, a kind and a detail.

use std::time::Duration;

use axum::http::StatusCode;
use platform::{http::Problem, memory_budget::MemoryBudgetError, text::excerpt};

use super::classify::InvalidRequest;
use crate::{engine::EngineError, error::ClassifyError, pixels::ImageError};

/// Retry-After for short failures, such as a full queue. A full queue usually has room again within a second.
const RETRY_SOON: Duration = Duration::from_secs(1);
/// Retry-After for long failures, such as an unreachable bucket or a lost engine.
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
                format!("There is no {}. Upload the image first.", excerpt(path)),
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
            ClassifyError::Image(ImageError::TooMuchMemory { bytes, limit }) => Self::new(
                S::UNPROCESSABLE_ENTITY,
                "too_large",
                format!(
                    "Decoding this image needs up to {bytes} bytes of memory; the limit is {limit}. Make it \
                     smaller, or save it as a baseline JPEG."
                ),
            )
            .with("limit_memory_bytes", *limit),
            ClassifyError::TooManyBytes { limit } => Self::new(
                S::PAYLOAD_TOO_LARGE,
                "too_large",
                format!("The image has more than {limit} bytes. Send a smaller one."),
            )
            .with("limit_bytes", *limit),
            ClassifyError::QueueFull(_)
            | ClassifyError::Memory(MemoryBudgetError::Overloaded | MemoryBudgetError::TimedOut)
            | ClassifyError::Engine(EngineError::Overloaded) => {
                Self::overloaded("Too many images are waiting. Try again in a moment.", RETRY_SOON)
            }
            // Only a bug can cause this error, because every reservation is at most as large as its limit.
            ClassifyError::Memory(MemoryBudgetError::ExceedsBudget) => return Self::internal(error),
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
            ClassifyError::UnusableOutputs(_) | ClassifyError::Engine(EngineError::FailedAlone(_)) => {
                Self::new(
                    S::INTERNAL_SERVER_ERROR,
                    "model_failure",
                    "The model gives no usable answer for this image. Trying again does not help.",
                )
            }
            ClassifyError::DamagedImage(_) => Self::unavailable(
                "damaged_image",
                "The stored image is damaged. Upload it again.",
                RETRY_LATER,
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
            ClassifyError::Starting => {
                Self::unavailable("starting", "The model is being loaded. Try again in a moment.", RETRY_SOON)
            }
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
            InvalidRequest::JsonTooLarge { .. } => (S::PAYLOAD_TOO_LARGE, "body_too_large"),
            InvalidRequest::MediaType => (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type"),
            InvalidRequest::NoFile => (S::UNPROCESSABLE_ENTITY, "no_file"),
            InvalidRequest::TopK { .. } => (S::UNPROCESSABLE_ENTITY, "bad_top_k"),
            InvalidRequest::Threshold => (S::UNPROCESSABLE_ENTITY, "bad_threshold"),
        };
        Self::new(status, kind, error.to_string()).with_source(error)
    }
}

#[cfg(test)]
mod tests {
    use contract::GcsPath;
    use platform::{bucket::BucketError, topic::TopicError};

    use super::*;
    use crate::{
        announcements::{DeadReason, Outcome},
        model::labels::UnusableOutputs,
        queue_permits::QueueFull,
    };

    /// Returns every error with its expected problem and outcome.
    ///
    /// Each entry consists of the error, the status, kind and Retry-After (in seconds) of its problem, and
    /// the outcome of an event that fails with the error.
    fn classify_errors() -> Vec<(ClassifyError, u16, &'static str, Option<u64>, Outcome)> {
        use ClassifyError as E;
        use Outcome as O;
        let dead = O::Dead;
        let text = || "reason".to_owned();
        vec![
            (E::BadPath, 422, "bad_path", None, dead(DeadReason::BadPath)),
            (E::WrongBucket(text()), 422, "wrong_bucket", None, dead(DeadReason::WrongBucket)),
            (
                E::NoSuchObject(GcsPath::new("b", "o").unwrap()),
                404,
                "no_such_object",
                None,
                dead(DeadReason::NoSuchObject),
            ),
            (
                E::Image(ImageError::NotAnImage("corrupt".into())),
                422,
                "not_an_image",
                None,
                dead(DeadReason::NotAnImage),
            ),
            (
                E::Image(ImageError::UnsupportedFormat("gif")),
                415,
                "unsupported_format",
                None,
                dead(DeadReason::UnsupportedFormat),
            ),
            (
                E::Image(ImageError::TooManyPixels { pixels: 2, limit: 1 }),
                422,
                "too_large",
                None,
                dead(DeadReason::TooLarge),
            ),
            (
                E::Image(ImageError::TooMuchMemory { bytes: 2, limit: 1 }),
                422,
                "too_large",
                None,
                dead(DeadReason::TooLarge),
            ),
            (E::Memory(MemoryBudgetError::Overloaded), 429, "overloaded", Some(1), O::Overloaded),
            (E::Memory(MemoryBudgetError::TimedOut), 429, "overloaded", Some(1), O::Overloaded),
            (E::Memory(MemoryBudgetError::ExceedsBudget), 500, "internal", None, O::Transient),
            (E::TooManyBytes { limit: 1 }, 413, "too_large", None, dead(DeadReason::TooLarge)),
            (E::QueueFull(QueueFull), 429, "overloaded", Some(1), O::Overloaded),
            (E::Engine(EngineError::Overloaded), 429, "overloaded", Some(1), O::Overloaded),
            (E::Engine(EngineError::Closed), 503, "draining", Some(1), O::Draining),
            (E::Engine(EngineError::Failed(text())), 503, "engine_failed", Some(1), O::Transient),
            (E::Engine(EngineError::FailedAlone(text())), 500, "model_failure", None, O::ModelFailure),
            (E::Engine(EngineError::Lost(text())), 503, "engine_lost", Some(5), O::Transient),
            (E::UnusableOutputs(UnusableOutputs::NotFinite), 500, "model_failure", None, O::ModelFailure),
            (E::from(BucketError::Damaged("o".to_owned())), 503, "damaged_image", Some(5), O::Transient),
            (
                E::Bucket(BucketError::Unavailable("down".into())),
                503,
                "bucket_unavailable",
                Some(5),
                O::Transient,
            ),
            (
                E::Topic(TopicError::Unavailable("down".into())),
                503,
                "topic_unavailable",
                Some(5),
                O::Transient,
            ),
            (E::Starting, 503, "starting", Some(1), O::NotReady),
            (E::Draining, 503, "draining", Some(1), O::Draining),
        ]
    }

    #[test]
    fn every_error_has_the_expected_problem_and_outcome() {
        for (error, status, kind, retry_after, outcome) in classify_errors() {
            assert_eq!(Outcome::of_classify_error(&error), outcome, "{error:?}");
            let description = format!("{error:?}");
            let problem = Problem::from(error);
            assert_eq!((problem.status.as_u16(), problem.kind), (status, kind), "{description}");
            assert_eq!(problem.retry_after_seconds(), retry_after, "{description}");
        }
    }

    #[test]
    fn event_is_refused_exactly_if_the_status_of_its_problem_causes_redelivery() {
        for (error, status, ..) in classify_errors() {
            let is_refused = !Outcome::of_classify_error(&error).handling().is_acknowledged();
            assert_eq!(is_refused, status == 429 || status >= 500, "{error:?}");
        }
    }
}
