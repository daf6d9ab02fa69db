//! The functions with which an engine's thread runs a batch.
//!
//! A job is a crop and the channel to its caller. The thread collects the jobs of a batch, runs the engine on
//! their crops, catches a panic and replies to the callers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use metrics::{counter, histogram};
use platform::panic;

use super::{
    infer::InferError,
    queue::{EngineError, Job, ReplySender, report_queue_length},
    watchdog::{BatchTimer, LostSignal},
};
use crate::pixels::Crop;

/// Everything that an engine's thread needs besides the engine.
#[derive(Clone, Copy)]
pub(super) struct ThreadContext<'a> {
    pub(super) jobs: &'a async_channel::Receiver<Job>,
    pub(super) max_batch: usize,
    /// Value of the metrics' `backend` label.
    pub(super) backend: &'static str,
    pub(super) lost_signal: &'a LostSignal,
    pub(super) timer: &'a BatchTimer,
}

/// Builds a batch from the `received` jobs and the jobs that already wait in the queue.
///
/// The batch has at most `max_batch` jobs. Jobs whose caller has gone are dropped, so the batch may be empty.
/// This function never waits for a job.
pub(super) fn fill_batch(
    received: Vec<Job>,
    jobs: &async_channel::Receiver<Job>,
    max_batch: usize,
) -> Vec<Job> {
    let waiting = std::iter::from_fn(|| jobs.try_recv().ok());
    let batch = received.into_iter().chain(waiting).filter(has_caller).take(max_batch).collect();
    report_queue_length(jobs.len());
    batch
}

/// Returns true if the caller still waits for the reply. Otherwise counts the job in the metrics.
fn has_caller(job: &Job) -> bool {
    let is_waiting = !job.reply.is_closed();
    if !is_waiting {
        counter!("classify_shed_total", "reason" => "caller_left").increment(1);
    }
    is_waiting
}

/// Splits a batch into its crops and its reply channels, and records its size as a metric. The crops leave the
/// queue, so their permits are released.
pub(super) fn split_batch(batch: Vec<Job>) -> (Vec<Crop>, Vec<ReplySender>) {
    histogram!("classify_batch_size").record(batch.len() as f64);
    let split = |Job { crop, permit, reply }| {
        drop(permit);
        (crop, reply)
    };
    batch.into_iter().map(split).unzip()
}

/// Runs `work` and converts an error or a panic to a text that describes the reason.
pub(crate) fn catch_failure<T>(work: impl FnOnce() -> Result<T, InferError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.0.to_string()),
        Err(panic) => Err(describe_panic(panic.as_ref())),
    }
}

/// Returns the text that describes an engine's panic.
pub(super) fn describe_panic(panic: &(dyn std::any::Any + Send)) -> String {
    format!("panicked: {}", panic::message(panic))
}

/// Sends each caller its logits, or an error if the batch failed.
///
/// The batch failed if `logits` is an error or does not have one entry per caller. `new_error` builds the
/// callers' error from the reason. The engine received the batch at the time `begin`. The time since then is
/// recorded as a metric.
///
/// # Errors
/// Returns the reason when the batch failed.
pub(super) fn reply_to_callers(
    logits: Result<Vec<Vec<f32>>, String>,
    replies: Vec<ReplySender>,
    begin: Instant,
    backend: &'static str,
    new_error: fn(String) -> EngineError,
) -> Result<(), String> {
    let logits = logits.and_then(|logits| {
        let (got, expected) = (logits.len(), replies.len());
        (got == expected).then_some(logits).ok_or_else(|| format!("{got} outputs for {expected} images"))
    });
    histogram!("classify_inference_duration_seconds", "backend" => backend).record(begin.elapsed());
    match logits {
        Ok(logits) => {
            for (reply, logits) in replies.into_iter().zip(logits) {
                // Sending fails if the caller left while the network ran.
                let _ = reply.send(Ok(logits));
            }
            Ok(())
        }
        Err(reason) => {
            fail_callers(replies, &new_error(reason.clone()));
            Err(reason)
        }
    }
}

/// Sends `error` to each caller.
pub(super) fn fail_callers(replies: Vec<ReplySender>, error: &EngineError) {
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
    }
}
