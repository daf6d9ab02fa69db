//! Feeding an engine that runs on a device of its own.
//!
//! While a batch runs, the next one gathers, and is handed over before the outputs of the first are read:
//! its pixels travel while the device computes, and the device goes from one batch to the next. A request
//! that finds the device idle is handed over at once. One that finds it busy has to wait for it anyway,
//! and until as many wait as the device is working on, it pays to wait for company: a batch of one handed
//! over early would keep a larger one from forming behind it.

use std::time::Instant;

use futures_util::FutureExt;
use platform::panic;

use super::{EngineError, Feed, Infer, Job, Pending, Reply, answer, catching, gather, refuse};

/// A batch that the device has.
struct UnderWay {
    outputs: Pending,
    replies: Vec<Reply>,
    begin: Instant,
}

/// Feeds `engine` until the queue is closed and empty, or the engine is lost.
pub(super) async fn run(engine: &mut dyn Infer, feed: &Feed<'_>) {
    if let Err(reason) = until_closed(engine, feed).await {
        feed.lost.report(&reason);
    }
    feed.busy.end();
}

async fn until_closed(engine: &mut dyn Infer, feed: &Feed<'_>) -> Result<(), String> {
    let mut running: Option<UnderWay> = None;
    loop {
        let mut taken = Vec::new();
        let mut outputs = None;
        match &mut running {
            None => match feed.jobs.recv().await {
                Ok(job) => taken.push(job),
                Err(_) => return Ok(()),
            },
            Some(batch) => {
                let enough = batch.replies.len().min(feed.max_batch);
                while outputs.is_none() && taken.len() < enough {
                    tokio::select! {
                        biased;
                        done = finish(&mut batch.outputs) => outputs = Some(done),
                        job = feed.jobs.recv() => match job {
                            Ok(job) => taken.push(job),
                            // Closed: nobody else comes.
                            Err(_) => outputs = Some(finish(&mut batch.outputs).await),
                        },
                    }
                }
            }
        }
        let next = match gather(taken, feed.jobs, feed.max_batch) {
            batch if batch.is_empty() => None,
            batch => Some(begin(engine, batch, feed)?),
        };
        if let Some(UnderWay { outputs: mut pending, replies, begin }) = running.take() {
            let outputs = match outputs {
                Some(outputs) => outputs,
                None => finish(&mut pending).await,
            };
            feed.busy.end();
            if next.is_some() {
                feed.busy.begin();
            }
            answer(outputs, replies, begin, feed.backend, EngineError::Lost)?;
        }
        running = next;
    }
}

/// Hands a batch over. The time that it may take runs from here, or from when the device is done with the
/// one before.
fn begin(engine: &mut dyn Infer, batch: Vec<Job>, feed: &Feed<'_>) -> Result<UnderWay, String> {
    let (crops, replies): (Vec<_>, Vec<_>) = batch.into_iter().map(|job| (job.crop, job.reply)).unzip();
    metrics::histogram!("classify_batch_size").record(crops.len() as f64);
    let begin = Instant::now();
    feed.busy.begin_unless_busy();
    match catching(|| engine.begin(&crops)) {
        Ok(outputs) => Ok(UnderWay { outputs, replies, begin }),
        Err(reason) => {
            refuse(replies, &EngineError::Lost(reason.clone()));
            Err(reason)
        }
    }
}

/// The outputs, or why there are none. Dropped and called again, it goes on.
async fn finish(outputs: &mut Pending) -> Result<Vec<Vec<f32>>, String> {
    match std::panic::AssertUnwindSafe(outputs).catch_unwind().await {
        Ok(outputs) => outputs.map_err(|error| error.0.to_string()),
        Err(panic) => Err(format!("panicked: {}", panic::message(panic.as_ref()))),
    }
}

#[cfg(test)]
mod tests;
