//! [`PacedBody`] reads a body and enforces its limits on length, time and rate.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{BodyError, BodyLimits};

/// Maximum number of bytes in a piece.
pub(super) const MAX_PIECE_BYTES: usize = 16 << 10;

/// A body that is read in pieces.
///
/// Only the time that is spent waiting for the client counts against the limits. The client has a credit,
/// which is [`BodyLimits::grace`] at first. The time until a piece arrives is taken from the credit, and the
/// time that the piece takes at the minimum rate is added to it, up to the grace time. A client without
/// credit is too slow. So a long silence ends the body even if much of it arrived before, and a short one
/// does not.
pub(super) struct PacedBody {
    body: Body,
    limits: BodyLimits,
    received_bytes: usize,
    /// The part of the last frame that has not been returned yet.
    rest: Bytes,
    credit: Duration,
    time_left: Duration,
    /// The wait for the next frame, if one is in progress.
    wait: Option<Wait>,
}

struct Wait {
    begin: Instant,
    deadline: Pin<Box<Sleep>>,
}

impl PacedBody {
    pub(super) fn new(body: Body, limits: BodyLimits) -> Self {
        let BodyLimits { timeout, grace, .. } = limits;
        Self {
            body,
            limits,
            received_bytes: 0,
            rest: Bytes::new(),
            credit: grace,
            time_left: timeout,
            wait: None,
        }
    }

    /// Returns the next piece, or `None` at the end of the body.
    pub(super) async fn next_piece(&mut self) -> Result<Option<Bytes>, BodyError> {
        std::future::poll_fn(|context| self.poll_piece(context)).await.transpose()
    }

    pub(super) fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        while self.rest.is_empty() {
            let Some(frame) = ready!(self.poll_frame(context)?) else { return Poll::Ready(None) };
            self.rest = frame;
        }
        let length = self.rest.len().min(MAX_PIECE_BYTES);
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }

    /// Returns the data of the next frame, which is empty for trailers.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            ready!(self.poll_deadline(context));
            let BodyLimits { timeout, min_rate, grace, .. } = self.limits;
            return Poll::Ready(Err(match self.time_left <= self.credit {
                true => BodyError::TimedOut { limit: timeout },
                false => BodyError::TooSlow { min_rate, grace },
            }));
        };
        if let Some(Wait { begin, .. }) = self.wait.take() {
            let waited = begin.elapsed();
            self.time_left = self.time_left.saturating_sub(waited);
            self.credit = self.credit.saturating_sub(waited);
        }
        let Some(frame) = frame else { return Poll::Ready(Ok(None)) };
        let limit = self.limits.max_bytes;
        let frame = frame.map_err(BodyError::Incomplete)?;
        let data = frame.into_data().unwrap_or_default();
        self.received_bytes = self.received_bytes.saturating_add(data.len());
        if self.received_bytes > limit {
            return Poll::Ready(Err(BodyError::TooLarge { limit }));
        }
        self.credit = self.limits.grace.min(self.credit + self.limits.time_at_min_rate(data.len()));
        Poll::Ready(Ok(Some(data)))
    }

    /// Waits until the client has been silent for too long.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let silence = match self.limits.min_rate {
            0 => self.time_left,
            _ => self.time_left.min(self.credit),
        };
        let wait = self.wait.get_or_insert_with(|| {
            let begin = Instant::now();
            Wait { begin, deadline: Box::pin(sleep_until(begin + silence)) }
        });
        wait.deadline.as_mut().poll(context)
    }
}

impl BodyLimits {
    /// Returns the time that `count` bytes take at the minimum rate.
    fn time_at_min_rate(&self, count: usize) -> Duration {
        match self.min_rate {
            0 => Duration::ZERO,
            // A frame has far fewer bytes than 2^52.
            rate => Duration::from_secs_f64(count as f64 / rate as f64),
        }
    }
}
