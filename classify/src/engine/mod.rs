//! The queue of crops and the threads that run the network on them.
//!
//! One bounded queue feeds any number of engines, each on an operating system thread of its own. An
//! engine takes one crop, adds what else is waiting already up to the largest batch, and runs: a lone
//! request is never made to wait for company. Crops whose caller has gone are dropped before the
//! network runs. A batch that panics or fails is an error for its callers; the engine goes on.

mod native;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
    time::Instant,
};

use metrics::{counter, gauge, histogram};
use tokio::sync::{mpsc, oneshot};

use crate::{
    classes,
    network::{CLASSES, GEOMETRY},
    pixels::Crop,
};

pub use native::{EngineSettings, NativeEngine};

/// The network did not run. The same batch may run at another time.
#[derive(Debug, thiserror::Error)]
#[error("the network did not run")]
pub struct InferError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Something that runs the network, on one thread.
pub trait Infer: Send {
    /// Raw outputs for each crop of `batch`, one value a class, in the batch's order. May panic.
    ///
    /// # Errors
    /// [`InferError`].
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError>;

    /// Runs once before the engine takes work: a forward pass whose outputs must be sound.
    ///
    /// # Errors
    /// [`InferError`].
    fn warm_up(&mut self) -> Result<(), InferError> {
        let outputs = self.infer(&[Crop::black(GEOMETRY.crop)])?;
        let first = outputs.into_iter().next().unwrap_or_default();
        soundness(first).map(drop).map_err(|error| InferError(error.into()))
    }
}

/// Why a crop has no probabilities.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The queue is full; try again later.
    #[error("the queue is full")]
    Overloaded,
    /// The engines stop and take no more work.
    #[error("the engines are stopping")]
    Closed,
    /// The batch panicked or failed; the same crop may fare better.
    #[error("the batch failed: {0}")]
    Failed(String),
    /// The network ran and gave something that is no answer. The same crop fails again.
    #[error("the network's outputs are unusable: {0}")]
    Unsound(String),
}

struct Job {
    crop: Crop,
    reply: oneshot::Sender<Result<Vec<f32>, EngineError>>,
}

/// The way in: hands a crop to whichever engine is free. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Engines {
    jobs: async_channel::Sender<Job>,
}

/// The other end of the queue, which engines are started on.
#[derive(Debug)]
pub struct Workers {
    jobs: async_channel::Receiver<Job>,
    max_batch: NonZeroUsize,
    backend: &'static str,
}

/// Engines that run.
#[derive(Debug)]
pub struct Running {
    alive: mpsc::Receiver<()>,
}

/// A queue of at most `items` crops. `max_batch` bounds what an engine runs at once; `backend` is the
/// label of the metrics.
pub fn queue(items: NonZeroUsize, max_batch: NonZeroUsize, backend: &'static str) -> (Engines, Workers) {
    let (sender, receiver) = async_channel::bounded(items.get());
    (Engines { jobs: sender }, Workers { jobs: receiver, max_batch, backend })
}

impl Engines {
    /// Probabilities for `crop`, one a class. When this future is dropped before an engine took the
    /// crop, the network does not run for it.
    ///
    /// # Errors
    /// [`EngineError`].
    pub async fn infer(&self, crop: Crop) -> Result<Vec<f32>, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(Job { crop, reply }).map_err(|error| match error {
            async_channel::TrySendError::Full(_) => {
                counter!("classify_shed_total", "reason" => "queue_full").increment(1);
                EngineError::Overloaded
            }
            async_channel::TrySendError::Closed(_) => EngineError::Closed,
        })?;
        report_queue(self.jobs.len());
        answer.await.unwrap_or_else(|_| Err(EngineError::Failed("the engine has gone".to_owned())))
    }

    /// Takes no more work. What is queued is still done.
    pub fn close(&self) {
        self.jobs.close();
    }
}

impl Workers {
    /// Starts a thread for each of `engines` and comes back when all of them are warm.
    ///
    /// # Errors
    /// When a thread does not start or an engine does not warm up; the others then end once the queue
    /// is closed.
    pub async fn start(self, engines: Vec<Box<dyn Infer>>) -> io::Result<Running> {
        let (alive_token, alive) = mpsc::channel(1);
        let mut warm = Vec::with_capacity(engines.len());
        for (number, engine) in engines.into_iter().enumerate() {
            let (report, warmed) = oneshot::channel();
            let (jobs, max_batch, backend) = (self.jobs.clone(), self.max_batch.get(), self.backend);
            let alive_token = alive_token.clone();
            thread::Builder::new().name(format!("engine-{number}")).spawn(move || {
                run(engine, &jobs, max_batch, backend, report);
                // Dropped when the thread is done: that is how `finished` knows.
                drop(alive_token);
            })?;
            warm.push(warmed);
        }
        for warmed in warm {
            let outcome = warmed.await.unwrap_or_else(|_| Err("the engine's thread died".to_owned()));
            outcome.map_err(|reason| io::Error::other(format!("an engine did not warm up: {reason}")))?;
        }
        Ok(Running { alive })
    }
}

impl Running {
    /// Comes back when every engine has ended, which they do when the queue is closed and empty.
    pub async fn finished(mut self) {
        // Nothing is ever sent: this ends when the last thread drops its sender.
        let _ = self.alive.recv().await;
    }
}

/// The life of an engine's thread.
fn run(
    mut engine: Box<dyn Infer>,
    jobs: &async_channel::Receiver<Job>,
    max_batch: usize,
    backend: &'static str,
    report: oneshot::Sender<Result<(), String>>,
) {
    let warmed = catching(|| engine.warm_up());
    let failed = warmed.is_err();
    // Nobody listens any more when the service is stopped while it starts.
    let _ = report.send(warmed);
    if failed {
        return;
    }
    while let Ok(first) = jobs.recv_blocking() {
        let waiting = std::iter::from_fn(|| jobs.try_recv().ok());
        let batch: Vec<Job> = std::iter::once(first).chain(waiting).filter(wanted).take(max_batch).collect();
        report_queue(jobs.len());
        if !batch.is_empty() {
            run_batch(engine.as_mut(), batch, backend);
        }
    }
}

/// Whether somebody still waits for the answer.
fn wanted(job: &Job) -> bool {
    let wanted = !job.reply.is_closed();
    if !wanted {
        counter!("classify_shed_total", "reason" => "caller_left").increment(1);
    }
    wanted
}

fn run_batch(engine: &mut dyn Infer, batch: Vec<Job>, backend: &'static str) {
    let (crops, replies): (Vec<Crop>, Vec<_>) = batch.into_iter().map(|job| (job.crop, job.reply)).unzip();
    histogram!("classify_batch_size").record(crops.len() as f64);
    let begin = Instant::now();
    let outputs = catching(|| engine.infer(&crops)).and_then(|outputs| {
        let (got, expected) = (outputs.len(), crops.len());
        (got == expected).then_some(outputs).ok_or_else(|| format!("{got} outputs for {expected} images"))
    });
    histogram!("classify_inference_duration_seconds", "backend" => backend).record(begin.elapsed());
    // A send fails only where the caller left during the forward pass.
    match outputs {
        Ok(outputs) => {
            for (reply, output) in replies.into_iter().zip(outputs) {
                let _ = reply.send(soundness(output));
            }
        }
        Err(reason) => {
            for reply in replies {
                let _ = reply.send(Err(EngineError::Failed(reason.clone())));
            }
        }
    }
}

/// The probabilities that an image's outputs mean, if they mean anything.
fn soundness(outputs: Vec<f32>) -> Result<Vec<f32>, EngineError> {
    if outputs.len() == CLASSES {
        classes::probabilities(&outputs).map_err(|error| error.to_string())
    } else {
        Err(format!("{} outputs for {CLASSES} classes", outputs.len()))
    }
    .map_err(|reason| {
        counter!("classify_unsound_outputs_total").increment(1);
        EngineError::Unsound(reason)
    })
}

/// Runs `work`; an error or a panic becomes its text.
fn catching<T>(work: impl FnOnce() -> Result<T, InferError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.0.to_string()),
        Err(panic) => Err(format!("panicked: {}", panic_text(panic.as_ref()))),
    }
}

/// The message of a panic.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

fn report_queue(items: usize) {
    gauge!("classify_queue_items").set(items as f64);
}
