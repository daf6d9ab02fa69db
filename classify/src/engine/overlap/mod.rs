//! Submits batches to an engine on a GPU so that the GPU never waits between two batches.
//!
//! The next batch is submitted before the logits of the current batch are read, so that the pixels of the
//! next batch are uploaded while the GPU computes. A request that arrives while the GPU is idle is submitted
//! at once. A request that arrives while the GPU is busy has to wait anyway. The next batch is therefore
//! submitted early, while the current batch runs, only when as many requests wait as the current batch has
//! images. A smaller batch that is submitted early would keep a larger batch from forming.

use std::{panic::AssertUnwindSafe, time::Instant};

use futures_util::FutureExt;

use super::{
    batch::{
        ThreadContext, catch_failure, describe_panic, fail_callers, fill_batch, reply_to_callers, split_batch,
    },
    infer::{Infer, PendingLogits},
    queue::{EngineError, Job, ReplySender},
};

/// A batch that was submitted to the GPU.
struct SubmittedBatch {
    logits: PendingLogits,
    replies: Vec<ReplySender>,
    begin: Instant,
}

/// Feeds `engine` until the queue is closed and empty, or the engine is lost.
pub(super) async fn run(engine: &mut dyn Infer, context: &ThreadContext<'_>) {
    if let Err(reason) = feed(engine, context).await {
        context.lost_signal.report(&reason);
    }
    context.timer.stop();
}

/// Feeds `engine` until the queue is closed and empty.
///
/// # Errors
/// Returns the reason when a batch failed. The engine is then lost.
async fn feed(engine: &mut dyn Infer, context: &ThreadContext<'_>) -> Result<(), String> {
    let mut running_batch: Option<SubmittedBatch> = None;
    loop {
        let mut received = Vec::new();
        // The logits of the running batch, if it has finished while this thread waited for jobs.
        let mut early_logits = None;
        match &mut running_batch {
            None => match context.jobs.recv().await {
                Ok(job) => received.push(job),
                Err(_) => return Ok(()),
            },
            Some(batch) => {
                // Number of received jobs at which the next batch is submitted early.
                let early_batch_size = batch.replies.len().min(context.max_batch);
                while early_logits.is_none() && received.len() < early_batch_size {
                    tokio::select! {
                        biased;
                        logits = wait_for_logits(&mut batch.logits) => early_logits = Some(logits),
                        job = context.jobs.recv() => match job {
                            Ok(job) => received.push(job),
                            // The queue is closed, so no more jobs can arrive.
                            Err(_) => early_logits = Some(wait_for_logits(&mut batch.logits).await),
                        },
                    }
                }
            }
        }
        let next_batch = match fill_batch(received, context.jobs, context.max_batch) {
            batch if batch.is_empty() => None,
            batch => Some(submit(engine, batch, context)?),
        };
        if let Some(SubmittedBatch { logits: mut pending, replies, begin }) = running_batch.take() {
            let logits = match early_logits {
                Some(logits) => logits,
                None => wait_for_logits(&mut pending).await,
            };
            context.timer.stop();
            if next_batch.is_some() {
                context.timer.restart();
            }
            reply_to_callers(logits, replies, begin, context.backend, EngineError::Lost)?;
        }
        running_batch = next_batch;
    }
}

/// Submits a batch to the GPU.
///
/// The batch's timeout begins now if the GPU is idle, or else when the GPU has finished the running batch.
///
/// # Errors
/// Returns the reason when the engine refuses the batch. The callers have then received the error.
fn submit(
    engine: &mut dyn Infer,
    batch: Vec<Job>,
    context: &ThreadContext<'_>,
) -> Result<SubmittedBatch, String> {
    let (crops, replies) = split_batch(batch);
    let begin = Instant::now();
    context.timer.start_if_idle();
    match catch_failure(|| engine.submit(&crops)) {
        Ok(logits) => Ok(SubmittedBatch { logits, replies, begin }),
        Err(reason) => {
            fail_callers(replies, &EngineError::Lost(reason.clone()));
            Err(reason)
        }
    }
}

/// Waits for the logits of a batch.
///
/// This function is cancel safe. After it is cancelled, a later call continues to wait for the same logits.
async fn wait_for_logits(logits: &mut PendingLogits) -> Result<Vec<Vec<f32>>, String> {
    match AssertUnwindSafe(logits).catch_unwind().await {
        Ok(logits) => logits.map_err(|error| error.0.to_string()),
        Err(panic) => Err(describe_panic(panic.as_ref())),
    }
}

#[cfg(test)]
mod tests;
