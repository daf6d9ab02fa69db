//! [`BodyReceiver`] receives request bodies within a budget of memory, and cuts off bodies that arrive too
//! slowly.
//!
//! A body reserves memory as it arrives, and not when it announces its length. A client that announces a long
//! body and sends little of it therefore holds little memory.

mod buffer;
mod form;
mod paced;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH},
};
use bytes::Bytes;

use self::{buffer::BodyBuffer, form::FormParser, paced::PacedBody};
use super::Problem;
use crate::memory_budget::{MemoryBudget, MemoryBudgetError, MemoryReservation, ReservedBytes};

/// Number of bytes that a body reserves before any of it has arrived. Most thumbnails are shorter.
const FIRST_STEP_BYTES: usize = 64 << 10;

/// Maximum number of bytes by which the reservation of a body exceeds the bytes that have arrived.
const MAX_STEP_BYTES: usize = 1 << 20;

/// Retry-After of a body that was refused for lack of memory.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Limits on request bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// Maximum length in bytes.
    pub max_bytes: usize,
    /// Maximum time that the client may take to send a body. Time that the service takes, for example until
    /// memory is free, does not count.
    pub timeout: Duration,
    /// Minimum rate in bytes per second; 0 for none.
    pub min_rate: usize,
    /// Maximum time by which the client may fall behind the minimum rate, and so the longest silence.
    pub grace: Duration,
}

/// Receives bodies within a [`MemoryBudget`] that all requests share.
#[derive(Clone, Debug)]
pub struct BodyReceiver {
    limits: BodyLimits,
    memory: MemoryBudget,
}

/// The files of a form.
#[derive(Debug)]
pub struct FormFiles {
    /// The files, in the order of the form.
    pub files: Vec<FormFile>,
    /// The memory reserved for all files.
    pub reservation: MemoryReservation,
}

/// A file of a form.
#[derive(Debug)]
pub struct FormFile {
    /// The file name, if the form states one.
    pub name: Option<String>,
    /// The content.
    pub bytes: Bytes,
}

/// Reason why a body was not received.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body is longer than the limit.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// Maximum length in bytes.
        limit: usize,
    },
    /// The client took too long to send the body.
    #[error("the body took longer than {limit:?} to arrive")]
    TimedOut {
        /// Maximum time.
        limit: Duration,
    },
    /// The client sent fewer bytes per second than the minimum rate.
    #[error("the body arrived at less than {min_rate} bytes per second")]
    TooSlow {
        /// Minimum rate in bytes per second.
        min_rate: usize,
        /// Time for which the body may be slower.
        grace: Duration,
    },
    /// Memory for the body could not be reserved.
    #[error(transparent)]
    Memory(#[from] MemoryBudgetError),
    /// The connection failed before the end of the body.
    #[error("the body arrived incomplete")]
    Incomplete(#[source] axum::Error),
    /// The body is not a valid form.
    #[error("the body is not a valid form")]
    BadForm(#[source] multer::Error),
    /// The headers of a form's field are too long.
    #[error("the headers of a form's field are too long")]
    FormHeadersTooLong,
    /// The form has too many files.
    #[error("the form has more than {limit} files")]
    TooManyFiles {
        /// Maximum number of files.
        limit: usize,
    },
}

impl BodyReceiver {
    /// Creates a receiver. Its budget must have at least [`Self::max_reserved_bytes`] for one reservation.
    pub fn new(limits: BodyLimits, memory: MemoryBudget) -> Self {
        Self { limits, memory }
    }

    /// Returns the number of bytes that are reserved for a body of `max_body_bytes` bytes.
    pub const fn max_reserved_bytes(max_body_bytes: usize) -> usize {
        max_body_bytes.saturating_add(form::PARSER_BYTES)
    }

    /// Receives a whole body.
    ///
    /// # Errors
    /// Returns a [`BodyError`] if the body exceeds a limit, arrives incomplete, or finds no memory.
    pub async fn receive(&self, request: Request) -> Result<ReservedBytes, BodyError> {
        self.receive_up_to(request, self.limits.max_bytes).await
    }

    /// Receives a whole body of at most `max_bytes` bytes. The limit of the receiver applies as well.
    ///
    /// # Errors
    /// Returns a [`BodyError`] if the body exceeds a limit, arrives incomplete, or finds no memory.
    pub async fn receive_up_to(
        &self,
        request: Request,
        max_bytes: usize,
    ) -> Result<ReservedBytes, BodyError> {
        let limits = BodyLimits { max_bytes: max_bytes.min(self.limits.max_bytes), ..self.limits };
        let max_length = max_body_length(request.headers(), limits.max_bytes)?;
        let mut reserved = ReservedLength::begin(&self.memory, 0, max_length).await?;
        let mut body = PacedBody::new(request.into_body(), limits);
        let mut buffer = BodyBuffer::default();
        while let Some(piece) = body.next_piece().await? {
            reserved.add(piece.len()).await?;
            if !buffer.push(&piece, max_length) {
                return Err(BodyError::TooLarge { limit: limits.max_bytes });
            }
        }
        Ok(ReservedBytes { bytes: buffer.into_bytes(), reservation: reserved.finish() })
    }

    /// Receives the fields called `field_name` of a `multipart/form-data` body. Other fields are ignored.
    ///
    /// # Errors
    /// Returns a [`BodyError`] if the body exceeds a limit, arrives incomplete, finds no memory, is not a
    /// form, or has more than `max_files` files.
    pub async fn receive_form(
        &self,
        request: Request,
        field_name: &str,
        max_files: usize,
    ) -> Result<FormFiles, BodyError> {
        let max_length = max_body_length(request.headers(), self.limits.max_bytes)?;
        let boundary = form::read_boundary(request.headers())?;
        let mut reserved = ReservedLength::begin(&self.memory, form::PARSER_BYTES, max_length).await?;
        let mut form = FormParser::new(PacedBody::new(request.into_body(), self.limits), boundary);
        let mut files = Vec::new();
        while let Some(mut field) = form.next_field().await? {
            if field.name() != Some(field_name) {
                while form.next_chunk(&mut field).await?.is_some() {}
                continue;
            }
            if files.len() == max_files {
                return Err(BodyError::TooManyFiles { limit: max_files });
            }
            let name = field.file_name().map(str::to_owned);
            let mut buffer = BodyBuffer::default();
            while let Some(chunk) = form.next_chunk(&mut field).await? {
                reserved.add(chunk.len()).await?;
                if !buffer.push(&chunk, max_length) {
                    return Err(BodyError::TooLarge { limit: self.limits.max_bytes });
                }
            }
            files.push(FormFile { name, bytes: buffer.into_bytes() });
        }
        form.finish().await?;
        Ok(FormFiles { files, reservation: reserved.finish() })
    }

    /// Reads and discards the body of a refused request, as long as it keeps to the limits.
    ///
    /// A client that is still sending when the connection is closed may never see the response.
    pub async fn discard(&self, request: Request) {
        let mut body = PacedBody::new(request.into_body(), self.limits);
        // An error ends the reading, too. The request is refused in any case.
        while let Ok(Some(_)) = body.next_piece().await {}
    }
}

/// Returns the announced length of a body, or `limit` if no length is announced.
fn max_body_length(headers: &HeaderMap, limit: usize) -> Result<usize, BodyError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match announced.map(usize::try_from) {
        None => Ok(limit),
        Some(Ok(length)) if length <= limit => Ok(length),
        Some(_) => Err(BodyError::TooLarge { limit }),
    }
}

/// The memory reserved for the part of a body that has arrived.
struct ReservedLength {
    reservation: MemoryReservation,
    /// Number of bytes reserved in addition to those of the body.
    fixed_bytes: usize,
    /// Number of bytes that have arrived.
    length: usize,
    max_length: usize,
}

impl ReservedLength {
    async fn begin(
        memory: &MemoryBudget,
        fixed_bytes: usize,
        max_length: usize,
    ) -> Result<Self, MemoryBudgetError> {
        let first_bytes = fixed_bytes + reserved_length(0, max_length);
        let reservation =
            memory.reserve_growing(first_bytes as u64, (fixed_bytes + max_length) as u64).await?;
        Ok(Self { reservation, fixed_bytes, length: 0, max_length })
    }

    /// Reserves memory for the next `count` bytes.
    async fn add(&mut self, count: usize) -> Result<(), MemoryBudgetError> {
        self.length += count;
        let bytes = self.fixed_bytes + reserved_length(self.length, self.max_length);
        self.reservation.grow_to(bytes as u64).await
    }

    /// Reduces the reservation to the bytes that have arrived.
    fn finish(mut self) -> MemoryReservation {
        self.reservation.shrink_to(self.length as u64);
        self.reservation
    }
}

/// Returns the number of bytes to reserve for a body of which `length` bytes have arrived.
///
/// The steps double, up to [`MAX_STEP_BYTES`].
fn reserved_length(length: usize, max_length: usize) -> usize {
    let step = length.next_power_of_two().clamp(FIRST_STEP_BYTES, MAX_STEP_BYTES);
    length.max(1).next_multiple_of(step).min(max_length)
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Self {
        let problem = match &error {
            BodyError::TooLarge { limit } => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("The body has more than {limit} bytes. Send smaller or fewer images."),
            )
            .with("limit", *limit)
            .with("limit_bytes", *limit),
            BodyError::TimedOut { limit } => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "upload_timeout",
                format!(
                    "The upload took longer than {} seconds. Send smaller images, or fewer at once.",
                    limit.as_secs_f64()
                ),
            ),
            BodyError::TooSlow { min_rate, grace } => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "upload_too_slow",
                format!(
                    "The body arrived at less than {min_rate} bytes per second, or paused for {} seconds. \
                     Send it again over a faster connection.",
                    grace.as_secs_f64()
                ),
            ),
            BodyError::Memory(MemoryBudgetError::Overloaded | MemoryBudgetError::TimedOut) => {
                Self::overloaded("Too many requests are waiting. Try again in a moment.", RETRY_AFTER)
            }
            // Only a bug can cause this error, because the budget has room for a body of the maximum length.
            BodyError::Memory(MemoryBudgetError::ExceedsBudget) => return Self::internal(error),
            BodyError::Incomplete(_) => {
                Self::new(StatusCode::BAD_REQUEST, "bad_body", "The body arrived incomplete. Send it again.")
            }
            BodyError::BadForm(_) => Self::new(
                StatusCode::BAD_REQUEST,
                "bad_multipart",
                "The content type is multipart/form-data, but the body is not a valid form or ends too early.",
            ),
            BodyError::FormHeadersTooLong => Self::new(
                StatusCode::BAD_REQUEST,
                "bad_multipart",
                "The headers of a field of the form are too long.",
            ),
            BodyError::TooManyFiles { limit } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "too_many_files",
                format!(
                    "The form has too many files; the limit per request is {limit}. Send the others in another \
                     request."
                ),
            )
            .with("limit", *limit),
        };
        problem.with_source(error)
    }
}
