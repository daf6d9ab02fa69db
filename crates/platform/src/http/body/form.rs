//! [`FormParser`] parses a `multipart/form-data` body with a small buffer.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::http::{HeaderMap, header::CONTENT_TYPE};
use bytes::Bytes;
use futures_util::Stream;
use multer::{Field, Multipart};

use super::{
    BodyError,
    paced::{MAX_PIECE_BYTES, PacedBody},
};

/// Maximum number of bytes that multer is given for one step: until it returns a field or a part of one. The
/// headers of a field must be shorter.
const MAX_STEP_BYTES: usize = 2 * MAX_PIECE_BYTES;

/// Maximum number of bytes that multer holds. Its buffer has the bytes of two steps at most, and when it
/// doubles, the old and the new buffer exist at the same time.
pub(super) const PARSER_BYTES: usize = 6 * MAX_STEP_BYTES;

/// Returns the boundary that the content type states.
pub(super) fn read_boundary(headers: &HeaderMap) -> Result<String, BodyError> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    multer::parse_boundary(content_type.unwrap_or_default()).map_err(BodyError::BadForm)
}

/// A form whose fields are read one after another.
pub(super) struct FormParser {
    multipart: Multipart<'static>,
    body: Arc<Mutex<PacedBody>>,
    flow: Arc<Flow>,
}

/// Decides when multer gets the next piece of the body.
///
/// By itself, multer would read whatever the client has sent before it parses any of it. It gets a piece only
/// after it could not continue with the pieces before.
#[derive(Default)]
struct Flow {
    /// True if multer needs a piece and has not got it yet.
    is_piece_needed: AtomicBool,
    has_ended: AtomicBool,
    /// Number of bytes that multer was given in this step.
    step_bytes: AtomicUsize,
}

impl FormParser {
    pub(super) fn new(body: PacedBody, boundary: String) -> Self {
        let flow = Arc::new(Flow::default());
        let body = Arc::new(Mutex::new(body));
        let stream = FormStream { body: Arc::clone(&body), flow: Arc::clone(&flow) };
        Self { multipart: Multipart::new(stream, boundary), body, flow }
    }

    /// Returns the next field. The previous field must have been read to its end.
    pub(super) async fn next_field(&mut self) -> Result<Option<Field<'static>>, BodyError> {
        self.flow.run_step(self.multipart.next_field()).await
    }

    /// Reads and discards the bytes after the last field. The limits on the body apply to them, too.
    pub(super) async fn finish(self) -> Result<(), BodyError> {
        poll_fn(|context| {
            let mut body = lock(&self.body);
            while ready!(body.poll_piece(context)?).is_some() {}
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Returns the next chunk of a field, or `None` at its end.
    pub(super) async fn next_chunk(&self, field: &mut Field<'static>) -> Result<Option<Bytes>, BodyError> {
        self.flow.run_step(field.chunk()).await
    }
}

impl Flow {
    /// Runs a step of multer, and lets it have pieces of the body until it is done.
    async fn run_step<T>(&self, step: impl Future<Output = multer::Result<T>>) -> Result<T, BodyError> {
        self.step_bytes.store(0, Ordering::Relaxed);
        let mut step = pin!(step);
        poll_fn(|context| {
            loop {
                if let Poll::Ready(result) = step.as_mut().poll(context) {
                    return Poll::Ready(result.map_err(form_error));
                }
                if self.has_ended.load(Ordering::Relaxed) {
                    return Poll::Ready(Err(BodyError::BadForm(multer::Error::IncompleteStream)));
                }
                if self.is_piece_needed.swap(true, Ordering::Relaxed) {
                    // The body wakes this task when the piece arrives.
                    return Poll::Pending;
                }
            }
        })
        .await
    }
}

/// Returns the error of the body if that is what ended the form.
fn form_error(error: multer::Error) -> BodyError {
    match error {
        multer::Error::StreamReadFailed(source) => match source.downcast::<BodyError>() {
            Ok(error) => *error,
            Err(source) => BodyError::BadForm(multer::Error::StreamReadFailed(source)),
        },
        error => BodyError::BadForm(error),
    }
}

/// The body as multer reads it.
struct FormStream {
    body: Arc<Mutex<PacedBody>>,
    flow: Arc<Flow>,
}

fn lock(body: &Mutex<PacedBody>) -> MutexGuard<'_, PacedBody> {
    body.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream for FormStream {
    type Item = Result<Bytes, BodyError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.flow.is_piece_needed.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let piece = ready!(lock(&self.body).poll_piece(context)?);
        let Some(piece) = piece else {
            self.flow.has_ended.store(true, Ordering::Relaxed);
            return Poll::Ready(None);
        };
        self.flow.is_piece_needed.store(false, Ordering::Relaxed);
        let length = piece.len();
        if self.flow.step_bytes.fetch_add(length, Ordering::Relaxed) + length > MAX_STEP_BYTES {
            return Poll::Ready(Some(Err(BodyError::FormHeadersTooLong)));
        }
        Poll::Ready(Some(Ok(piece)))
    }
}
