//! Problem responses: for every [`ServiceError`], and for requests that a route refuses before it calls the
//! service.

use std::{fmt::Display, sync::Arc, time::Duration};

use axum::http::StatusCode;
use platform::{
    bucket::BucketError, cpu::CpuError, http::Problem, memory_budget::MemoryBudgetError, topic::TopicError,
};
use serde_json::{Value, json};

use crate::{
    error::ServiceError,
    image::{Format, ImageError},
};

/// Value of the header Retry-After while the bucket or the topic is unavailable.
const OUTAGE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Value of the header Retry-After while the instance is overloaded or stopping.
const OVERLOAD_RETRY_AFTER: Duration = Duration::from_secs(1);

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let kind = error.kind();
        match error {
            ServiceError::EmptyUpload => unprocessable(kind, "The body is empty. Send an image in it."),
            ServiceError::Image(error) => image_problem(error),
            ServiceError::Cpu(CpuError::Overloaded) => overloaded(),
            ServiceError::Memory(error) => memory_problem(error),
            ServiceError::Bucket(BucketError::Unavailable(source)) => {
                let detail = "The bucket does not respond. Send the same request again; the steps that are already done are not repeated.";
                let problem = Self::unavailable(kind, detail, OUTAGE_RETRY_AFTER);
                Self { source: Some(Arc::from(source)), ..problem }
            }
            error @ ServiceError::DamagedPrediction(_) => {
                let detail = "The stored prediction is damaged. Its operator must delete it; upload the image again after that.";
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, kind, detail).with_source(error)
            }
            ServiceError::Topic(TopicError::Full { retry_after }) => {
                let detail = "Too many images wait to be classified. Send the image again later.";
                Self::overloaded(detail, retry_after)
            }
            ServiceError::Topic(source @ TopicError::Unavailable(_)) => {
                let detail = "The image is stored, but it is not announced to classify yet. Send the same request again to announce it.";
                Self::unavailable(kind, detail, OUTAGE_RETRY_AFTER).with_source(source)
            }
            ServiceError::Cpu(error @ CpuError::Panicked) => Self::internal(error),
            ServiceError::Bucket(error) => Self::internal(error),
            ServiceError::Internal(error) => Self::internal(error),
        }
    }
}

/// Returns the problem for `/ready` while the bucket or the topic is unusable.
pub(super) fn dependency_problem(error: ServiceError) -> Problem {
    let (kind, detail) = match &error {
        ServiceError::Topic(_) => ("topic_unavailable", "The topic accepts no announcements."),
        _ => ("bucket_unavailable", "The bucket stores no images."),
    };
    Problem::unavailable(kind, detail, OUTAGE_RETRY_AFTER).with_source(error)
}

fn image_problem(error: ImageError) -> Problem {
    let kind = error.kind();
    match error {
        ImageError::NotAnImage => unprocessable(
            kind,
            format!("This is not an image. Send one of: {}.", accepted_formats().join(", ")),
        ),
        ImageError::UnsupportedFormat { format_name } => {
            unsupported_format(kind, format!("{format_name} is not accepted."))
        }
        ImageError::UnsupportedFeature { format, source } => {
            unsupported_format(kind, format!("This kind of {format} cannot be read.")).with_source(source)
        }
        ImageError::TooManyPixels { width, height, limit } => {
            let pixel_count = u64::from(width) * u64::from(height);
            let detail = format!(
                "The image has {width}×{height} = {pixel_count} pixels; at most {limit} are accepted. Make it smaller."
            );
            unprocessable(kind, detail).with("limit", limit).with("width", width).with("height", height)
        }
        ImageError::TooManyCodedPixels { pixel_count, limit } => {
            let detail = format!(
                "The parts of the image have {pixel_count} pixels together; at most {limit} are accepted. Make it smaller."
            );
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, kind, detail).with("limit", limit)
        }
        ImageError::SideTooLong { width, height, limit } => {
            let detail = format!(
                "The image is {width}×{height}; a side may have at most {limit} pixels. Make it smaller."
            );
            unprocessable(kind, detail).with("limit", limit).with("width", width).with("height", height)
        }
        ImageError::TooManyScans { limit } => {
            let detail = format!(
                "The JPEG has more than {limit} scans. Save it again as a baseline JPEG or with fewer scans."
            );
            unprocessable(kind, detail).with("limit", limit)
        }
        ImageError::ExceedsMemoryLimit { bytes, limit } => {
            let detail = format!(
                "Processing this image needs up to {bytes} bytes of memory; the limit is {limit}. Make it smaller, or save it as a baseline JPEG."
            );
            unprocessable(kind, detail).with("limit", limit)
        }
        ImageError::DecoderExceedsEstimate => {
            let detail = "Decoding this image needs too much memory. Save it with 8 bits per channel and without metadata.";
            unprocessable(kind, detail)
        }
        ImageError::Corrupt { format, source } => {
            let detail =
                format!("The {format} is damaged or incomplete. Send the whole file, or save it again.");
            unprocessable(kind, detail).with_source(source)
        }
        error @ (ImageError::Resize(_) | ImageError::Encode(_)) => Problem::internal(error),
    }
}

fn unprocessable(kind: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, kind, detail)
}

/// Returns the problem for an unsupported file. Its detail begins with the sentence `reason`.
fn unsupported_format(kind: &'static str, reason: String) -> Problem {
    let detail = format!("{reason} Convert it to one of: {}.", accepted_formats().join(", "));
    let accepted: Value = json!(accepted_formats());
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind, detail).with("accepted", accepted)
}

fn accepted_formats() -> Vec<&'static str> {
    Format::ALL.iter().copied().map(Format::name).collect()
}

fn overloaded() -> Problem {
    Problem::overloaded("Too many images are waiting. Try again soon.", OVERLOAD_RETRY_AFTER)
}

/// Returns the problem for a failed reservation of memory for processing.
///
/// [`MemoryBudgetError::ExceedsBudget`] becomes an internal error, because only a bug can cause it: the limit
/// on processing memory is at most as large as the memory budget, and an upload above the limit is refused
/// earlier, with another problem.
fn memory_problem(error: MemoryBudgetError) -> Problem {
    match error {
        MemoryBudgetError::Overloaded | MemoryBudgetError::TimedOut => overloaded().with_source(error),
        MemoryBudgetError::ExceedsBudget => Problem::internal(error),
    }
}

/// Returns the problem for a request that arrives while the service stops.
pub(super) fn draining() -> Problem {
    Problem::unavailable(
        "draining",
        "This instance is stopping. Send the request again.",
        OVERLOAD_RETRY_AFTER,
    )
}

/// Returns the problem for a body whose content type is not accepted.
pub(super) fn unsupported_media_type() -> Problem {
    let detail = "Send multipart/form-data with the image in the field `file`, or the image itself as image/* or application/octet-stream.";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

/// Returns the problem for a form without a file.
pub(super) fn no_file() -> Problem {
    unprocessable("no_file", "The form has no field `file`. Send the image in a field of that name.")
}

/// Returns the problem for a path without a valid id.
pub(super) fn bad_id() -> Problem {
    unprocessable("bad_id", "An id has 32 lowercase hexadecimal digits, as returned by POST /preprocess.")
}

/// Returns the problem for a parameter `wait` that is not a number of seconds.
pub(super) fn bad_wait() -> Problem {
    let detail = "`wait` is a number of seconds, such as 10 or 2.5.";
    Problem::new(StatusCode::BAD_REQUEST, "bad_wait", detail)
}

/// Returns the problem for a parameter `model` that is not the name of a model.
pub(super) fn bad_model() -> Problem {
    let detail = "`model` is NAME or NAME-CHECKSUM8, such as mobilenetv2 or mobilenetv2-c0c3f76d: the name of a model (at most 64 letters, digits, `.`, `_` and `-`; other characters of a name are written as `_`) and the first 8 digits of its SHA-256, which a prediction has as `model` and `model_sha256`.";
    Problem::new(StatusCode::BAD_REQUEST, "bad_model", detail)
}

/// Returns the problem for a model that has not classified the image and is not going to.
pub(super) fn no_prediction_of_model(model: &impl Display) -> Problem {
    let detail = format!(
        "The image has no prediction of the model {model}. Only the current model and the first model of the image are found by their names alone; give any other model as NAME-CHECKSUM8, or leave out `model` for the current model."
    );
    Problem::new(StatusCode::NOT_FOUND, "no_prediction_of_model", detail)
}

/// Returns the problem for an id to which no image belongs.
pub(super) fn no_such_image() -> Problem {
    let detail = "No image has this id. Upload it with POST /preprocess first.";
    Problem::new(StatusCode::NOT_FOUND, "no_such_image", detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_error_has_its_status_kind_and_retry_after() {
        let corrupt = || ImageError::Corrupt { format: Format::Png, source: "cut off".into() };
        let unsupported = || ImageError::UnsupportedFormat { format_name: "SVG".to_owned() };
        let unavailable = || BucketError::Unavailable("no route".into());
        let cases: Vec<(ServiceError, u16, &str, Option<Duration>)> = vec![
            (ServiceError::EmptyUpload, 422, "empty_body", None),
            (corrupt().into(), 422, "corrupt_image", None),
            (unsupported().into(), 415, "unsupported_format", None),
            (ImageError::Encode("bug".into()).into(), 500, "internal", None),
            (CpuError::Overloaded.into(), 429, "overloaded", Some(OVERLOAD_RETRY_AFTER)),
            (CpuError::Panicked.into(), 500, "internal", None),
            (MemoryBudgetError::Overloaded.into(), 429, "overloaded", Some(OVERLOAD_RETRY_AFTER)),
            (MemoryBudgetError::TimedOut.into(), 429, "overloaded", Some(OVERLOAD_RETRY_AFTER)),
            (MemoryBudgetError::ExceedsBudget.into(), 500, "internal", None),
            (unavailable().into(), 503, "bucket_unavailable", Some(OUTAGE_RETRY_AFTER)),
            (BucketError::NotFound("a".to_owned()).into(), 500, "internal", None),
            (ServiceError::DamagedPrediction("a".to_owned()), 500, "damaged_prediction", None),
            (
                TopicError::Unavailable("no route".into()).into(),
                503,
                "topic_unavailable",
                Some(OUTAGE_RETRY_AFTER),
            ),
            (
                TopicError::Full { retry_after: Duration::from_secs(7) }.into(),
                429,
                "overloaded",
                Some(Duration::from_secs(7)),
            ),
            (ServiceError::internal("bug"), 500, "internal", None),
        ];
        for (error, status, kind, retry_after) in cases {
            let text = format!("{error:?}");
            assert_eq!(error.kind(), kind, "{text}");
            let problem = Problem::from(error);
            assert_eq!(
                (problem.status.as_u16(), problem.kind, problem.retry_after),
                (status, kind, retry_after),
                "{text}"
            );
        }
    }

    #[test]
    fn source_of_an_unavailable_bucket_goes_to_the_log_and_not_to_the_caller() {
        let problem = Problem::from(ServiceError::from(BucketError::Unavailable("no route".into())));
        assert_eq!(problem.source.unwrap().to_string(), "no route");
        assert!(!problem.detail.contains("no route"));
    }
}
