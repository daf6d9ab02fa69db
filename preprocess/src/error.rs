//! What a caller is told when something is wrong: every problem this service has of its own.

use std::{sync::Arc, time::Duration};

use axum::http::StatusCode;
use platform::{
    bucket::BucketError, cpu::CpuError, http::Problem, memory_budget::MemoryBudgetError, topic::TopicError,
};
use serde_json::{Value, json};

use crate::image::{Format, ImageError};

/// When to come back after the bucket or the topic did not answer.
const OUTAGE: Duration = Duration::from_secs(5);

/// When to come back after an overload, or to an instance that is stopping.
pub(crate) const SOON: Duration = Duration::from_secs(1);

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        let kind = error.kind();
        match error {
            ImageError::NotAnImage => {
                unprocessable(kind, format!("This is not an image. Send one of: {}.", accepted()))
            }
            ImageError::UnsupportedFormat { found } => {
                let detail = format!("{found} is not accepted. Convert it to one of: {}.", accepted());
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind, detail).with("accepted", accepted_list())
            }
            ImageError::UnsupportedFeature { format, source } => {
                let detail =
                    format!("This kind of {format} cannot be read. Convert it to one of: {}.", accepted());
                Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, kind, detail)
                    .with("accepted", accepted_list())
                    .with_source(source)
            }
            ImageError::TooManyPixels { width, height, limit } => {
                let pixels = u64::from(width) * u64::from(height);
                let detail = format!(
                    "The image has {width}×{height} = {pixels} pixels; at most {limit} are accepted. Make it smaller."
                );
                unprocessable(kind, detail).with("limit", limit).with("width", width).with("height", height)
            }
            ImageError::SideTooLong { width, height, limit } => {
                let detail = format!(
                    "The image is {width}×{height}; a side may have at most {limit} pixels. Make it smaller."
                );
                unprocessable(kind, detail).with("limit", limit).with("width", width).with("height", height)
            }
            ImageError::TooManyScans { limit } => {
                let detail = format!(
                    "The JPEG has more than {limit} scans. Save it anew, as a baseline or ordinary progressive JPEG."
                );
                unprocessable(kind, detail).with("limit", limit)
            }
            ImageError::TooCostly { bytes, limit } => {
                let detail = format!(
                    "Reading this image takes up to {bytes} bytes of memory; at most {limit} are granted. Make it smaller, or save it as a baseline JPEG."
                );
                unprocessable(kind, detail).with("limit", limit)
            }
            ImageError::TooMuchMemory => {
                let detail = "Reading this image takes too much memory. Save it with 8 bits a channel and without extras.";
                unprocessable(kind, detail)
            }
            ImageError::Corrupt { format, source } => {
                let detail =
                    format!("The {format} is damaged or incomplete. Send the whole file, or save it anew.");
                unprocessable(kind, detail).with_source(source)
            }
            error @ (ImageError::Resize(_) | ImageError::Buffer(_) | ImageError::Encode(_)) => {
                Self::internal(error)
            }
        }
    }
}

fn unprocessable(kind: &'static str, detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, kind, detail)
}

fn accepted() -> String {
    Format::ALL.map(Format::name).join(", ")
}

fn accepted_list() -> Value {
    json!(Format::ALL.map(Format::name))
}

/// The bucket did not do what it was asked.
pub(crate) fn bucket_problem(error: BucketError) -> Problem {
    match error {
        BucketError::Unavailable(source) => {
            let detail =
                "The image store does not answer. Send the same request again; nothing is done twice.";
            Problem {
                source: Some(Arc::from(source)),
                ..Problem::unavailable("bucket_unavailable", detail, OUTAGE)
            }
        }
        error => Problem::internal(error),
    }
}

/// The image is stored but could not be announced.
pub(crate) fn topic_problem(error: TopicError) -> Problem {
    let detail = "The image is stored but not announced yet. Send the same request again to complete it.";
    Problem::unavailable("topic_unavailable", detail, OUTAGE).with_source(error)
}

/// The CPU door did not let a picture in, or a picture broke it.
pub(crate) fn cpu_problem(error: CpuError) -> Problem {
    match error {
        CpuError::Overloaded => Problem::overloaded("Too many images are waiting. Try again soon.", SOON),
        CpuError::Panicked => Problem::internal(error),
    }
}

/// No memory for an upload or a picture. More than there is nobody asks for: uploads and pictures have
/// limits of their own, which say so.
pub(crate) fn memory_problem(error: MemoryBudgetError) -> Problem {
    match error {
        MemoryBudgetError::Overloaded | MemoryBudgetError::TimedOut => {
            Problem::overloaded("Too many images are waiting. Try again soon.", SOON).with_source(error)
        }
        MemoryBudgetError::ExceedsBudget => Problem::internal(error),
    }
}

/// The body took longer than `limit` to arrive.
pub(crate) fn upload_timeout(limit: Duration) -> Problem {
    let detail = format!(
        "The upload took longer than {} seconds. Send smaller images, or fewer at once.",
        limit.as_secs_f64()
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, "upload_timeout", detail)
}

/// The service is stopping.
pub(crate) fn draining() -> Problem {
    Problem::unavailable("draining", "This instance is stopping. Send the request again.", SOON)
}

/// The body is of no type that can be an upload.
pub(crate) fn unsupported_media_type() -> Problem {
    let detail = "Send multipart/form-data with the image in the field `file`, or the image itself as image/* or application/octet-stream.";
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

/// There is nothing in the body.
pub(crate) fn empty_body() -> Problem {
    unprocessable("empty_body", "The body is empty. Send an image in it.")
}

/// The form has no file.
pub(crate) fn no_file() -> Problem {
    unprocessable("no_file", "The form has no field `file`. Send the image in a field of that name.")
}

/// The form has too many files.
pub(crate) fn too_many_files(limit: usize) -> Problem {
    let detail = format!("A request may have at most {limit} files. Send the others in another request.");
    unprocessable("too_many_files", detail).with("limit", limit)
}

/// The form cannot be read.
pub(crate) fn bad_multipart() -> Problem {
    let detail =
        "The body is not the multipart/form-data that its content type promises, or it ends too early.";
    Problem::new(StatusCode::BAD_REQUEST, "bad_multipart", detail)
}

/// The body could not be received.
pub(crate) fn bad_body() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad_body", "The body could not be received whole. Send it again.")
}

/// The body is larger than `limit` bytes.
pub(crate) fn body_too_large(limit: usize) -> Problem {
    let detail = format!("The body has more than {limit} bytes. Send smaller or fewer images.");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail).with("limit", limit)
}

/// The id in the path is none.
pub(crate) fn bad_id() -> Problem {
    unprocessable("bad_id", "An id is 32 lowercase hexadecimal digits, as POST /preprocess answers it.")
}

/// `?wait=` is no number of seconds.
pub(crate) fn bad_wait() -> Problem {
    let detail = "`wait` is a number of seconds, such as 10 or 2.5.";
    Problem::new(StatusCode::BAD_REQUEST, "bad_wait", detail)
}

/// No image has that id.
pub(crate) fn no_such_image() -> Problem {
    let detail = "No image has this id. Upload it with POST /preprocess first.";
    Problem::new(StatusCode::NOT_FOUND, "no_such_image", detail)
}
