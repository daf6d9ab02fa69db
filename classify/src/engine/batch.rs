//! Steps that every worker does with a batch: collect it, run it without unwinding, reply to its callers.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use metrics::{counter, histogram};
use platform::panic;

use super::{
    infer::InferError,
    queue::{EngineError, Job, Reply, report_length},
    watchdog::{BatchTimer, LostSignal},
};
use crate::pixels::Crop;

/// Everything that a worker thread needs beside its engine.
pub(super) struct WorkerContext<'a> {
    pub(super) jobs: &'a async_channel::Receiver<Job>,
    pub(super) max_batch: usize,
    /// Label of the metrics.
    pub(super) backend: &'static str,
    pub(super) lost: &'a LostSignal,
    pub(super) timer: &'a BatchTimer,
}

/// Completes a batch that begins with `received` with the jobs that are already waiting.
///
/// Drops jobs whose caller has gone. Never waits; the batch may be empty.
pub(super) fn fill_batch(
    received: Vec<Job>,
    jobs: &async_channel::Receiver<Job>,
    max_batch: usize,
) -> Vec<Job> {
    let waiting = std::iter::from_fn(|| jobs.try_recv().ok());
    let batch = received.into_iter().chain(waiting).filter(has_caller).take(max_batch).collect();
    report_length(jobs.len());
    batch
}

/// Returns true if a caller still waits for the reply.
fn has_caller(job: &Job) -> bool {
    let has_caller = !job.reply.is_closed();
    if !has_caller {
        counter!("classify_shed_total", "reason" => "caller_left").increment(1);
    }
    has_caller
}

/// Separates the crops of a batch from its replies and counts the batch.
pub(super) fn split_batch(batch: Vec<Job>) -> (Vec<Crop>, Vec<Reply>) {
    histogram!("classify_batch_size").record(batch.len() as f64);
    batch.into_iter().map(|job| (job.crop, job.reply)).unzip()
}

/// Runs `work` and returns the text of its error or panic.
pub(super) fn catch_failure<T>(work: impl FnOnce() -> Result<T, InferError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.0.to_string()),
        Err(panic) => Err(panic_text(panic.as_ref())),
    }
}

/// Returns the text of an engine's panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    format!("panicked: {}", panic::message(panic))
}

/// Sends each caller its logits. If there are none, sends `failure` of the reason, and returns the reason.
pub(super) fn reply_to_callers(
    logits: Result<Vec<Vec<f32>>, String>,
    replies: Vec<Reply>,
    begin: Instant,
    backend: &'static str,
    failure: fn(String) -> EngineError,
) -> Result<(), String> {
    let logits = logits.and_then(|logits| {
        let (got, expected) = (logits.len(), replies.len());
        (got == expected).then_some(logits).ok_or_else(|| format!("{got} outputs for {expected} images"))
    });
    histogram!("classify_inference_duration_seconds", "backend" => backend).record(begin.elapsed());
    match logits {
        Ok(logits) => {
            for (reply, logits) in replies.into_iter().zip(logits) {
                // Fails if the caller left during the forward pass.
                let _ = reply.send(Ok(logits));
            }
            Ok(())
        }
        Err(reason) => {
            fail_callers(replies, &failure(reason.clone()));
            Err(reason)
        }
    }
}

/// Sends `error` to each caller.
pub(super) fn fail_callers(replies: Vec<Reply>, error: &EngineError) {
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
    }
}
