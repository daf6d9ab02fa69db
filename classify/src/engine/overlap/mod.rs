//! Feeds an engine on a GPU so that the GPU never waits for the host between two batches.
//!
//! The next batch is submitted before the logits of the current one are read, so that its pixels are
//! uploaded while the GPU computes. A request that finds the GPU idle is submitted at once. A request that
//! finds it busy has to wait anyway; it is submitted early only when as many requests wait as the current
//! batch has images. A smaller batch submitted early would keep a larger one from forming behind it.

use std::{panic::AssertUnwindSafe, time::Instant};

use futures_util::FutureExt;

use super::{
    batch::{
        WorkerContext, catch_failure, fail_callers, fill_batch, panic_text, reply_to_callers, split_batch,
    },
    infer::{Infer, PendingLogits},
    queue::{EngineError, Job, Reply},
};

/// A batch that was submitted to the GPU.
struct SubmittedBatch {
    logits: PendingLogits,
    replies: Vec<Reply>,
    begin: Instant,
}

/// Feeds `engine` until the queue is closed and empty, or the engine is lost.
pub(super) async fn run(engine: &mut dyn Infer, context: &WorkerContext<'_>) {
    if let Err(reason) = feed(engine, context).await {
        context.lost.report(&reason);
    }
    context.timer.stop();
}

async fn feed(engine: &mut dyn Infer, context: &WorkerContext<'_>) -> Result<(), String> {
    let mut running: Option<SubmittedBatch> = None;
    loop {
        let mut received = Vec::new();
        let mut finished = None;
        match &mut running {
            None => match context.jobs.recv().await {
                Ok(job) => received.push(job),
                Err(_) => return Ok(()),
            },
            Some(batch) => {
                let enough = batch.replies.len().min(context.max_batch);
                while finished.is_none() && received.len() < enough {
                    tokio::select! {
                        biased;
                        logits = finish(&mut batch.logits) => finished = Some(logits),
                        job = context.jobs.recv() => match job {
                            Ok(job) => received.push(job),
                            // The queue is closed, so no more jobs can arrive.
                            Err(_) => finished = Some(finish(&mut batch.logits).await),
                        },
                    }
                }
            }
        }
        let next = match fill_batch(received, context.jobs, context.max_batch) {
            batch if batch.is_empty() => None,
            batch => Some(submit(engine, batch, context)?),
        };
        if let Some(SubmittedBatch { logits: mut pending, replies, begin }) = running.take() {
            let logits = match finished {
                Some(logits) => logits,
                None => finish(&mut pending).await,
            };
            context.timer.stop();
            if next.is_some() {
                context.timer.restart();
            }
            reply_to_callers(logits, replies, begin, context.backend, EngineError::Lost)?;
        }
        running = next;
    }
}

/// Submits a batch. Its timeout begins now, or when the GPU has finished the batch before.
fn submit(
    engine: &mut dyn Infer,
    batch: Vec<Job>,
    context: &WorkerContext<'_>,
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

/// Waits for the logits of a batch. Cancel safe: a later call continues the wait.
async fn finish(logits: &mut PendingLogits) -> Result<Vec<Vec<f32>>, String> {
    match AssertUnwindSafe(logits).catch_unwind().await {
        Ok(logits) => logits.map_err(|error| error.0.to_string()),
        Err(panic) => Err(panic_text(panic.as_ref())),
    }
}

#[cfg(test)]
mod tests;
