//! The queue of crops and the threads that run the network on them.
//!
//! One bounded queue feeds any number of engines, each on an operating system thread of its own. An
//! engine takes one crop, adds what else is waiting already up to the largest batch, and runs: a lone
//! request is never made to wait for company. Crops whose caller has gone are dropped before the
//! network runs. A batch that panics or fails is an error for its callers; the engine goes on.
//!
//! An engine on a device of its own, a GPU, is fed by `overlap`, so that the device has the next batch
//! when it ends one. Such an engine is `lost` when a batch fails or takes too long: what a driver does
//! after that cannot be trusted, and the service ends to be started anew.

mod lost;
mod native;
mod overlap;
#[cfg(test)]
mod tests;

use std::{
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    thread,
    time::{Duration, Instant},
};

use metrics::{counter, gauge, histogram};
use platform::panic;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use crate::{
    classes,
    network::{CLASSES, GEOMETRY},
    pixels::Crop,
};

pub(crate) use futures_executor::block_on;
use lost::{Busy, Lost};
pub use native::{EngineSettings, NativeEngine};

/// The network did not run. The same batch may run at another time.
#[derive(Debug, thiserror::Error)]
#[error("the network did not run")]
pub struct InferError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Raw outputs for each crop of a batch, one value a class, once a device has made them.
pub type Pending = Pin<Box<dyn Future<Output = Result<Vec<Vec<f32>>, InferError>> + Send>>;

/// Something that runs the network, on one thread.
pub trait Infer: Send {
    /// Raw outputs for each crop of `batch`, one value a class, in the batch's order. May panic.
    ///
    /// # Errors
    /// [`InferError`].
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError>;

    /// As [`Self::infer`], but for a device comes back when the work is handed over; the outputs come
    /// later. May panic.
    ///
    /// # Errors
    /// [`InferError`].
    fn begin(&mut self, batch: &[Crop]) -> Result<Pending, InferError> {
        let outputs = self.infer(batch);
        Ok(Box::pin(std::future::ready(outputs)))
    }

    /// Whether it runs on a device of its own, so that [`Self::begin`] is worth calling for the next
    /// batch before the last one is done, and a failure means that the device is lost.
    fn overlaps(&self) -> bool {
        false
    }

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
    /// The device that the engine runs on is lost; another instance may answer.
    #[error("the engine is lost: {0}")]
    Lost(String),
    /// The network ran and gave something that is no answer. The same crop fails again.
    #[error("the network's outputs are unusable: {0}")]
    Unsound(String),
}

type Reply = oneshot::Sender<Result<Vec<f32>, EngineError>>;

struct Job {
    crop: Crop,
    reply: Reply,
}

/// The way in: hands a crop to whichever engine is free. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Engines {
    jobs: async_channel::Sender<Job>,
    lost: Lost,
}

/// The other end of the queue, which engines are started on.
#[derive(Debug)]
pub struct Workers {
    jobs: async_channel::Receiver<Job>,
    max_batch: NonZeroUsize,
    backend: &'static str,
    lost: Lost,
    time_limit: Duration,
    warm_up_limit: Duration,
}

/// Engines that run.
#[derive(Debug)]
pub struct Running {
    alive: mpsc::Receiver<()>,
    /// Ended with the engines that they watch.
    _watchdogs: JoinSet<()>,
}

/// A queue of at most `items` crops. `max_batch` bounds what an engine runs at once; `backend` is the
/// label of the metrics.
pub fn queue(items: NonZeroUsize, max_batch: NonZeroUsize, backend: &'static str) -> (Engines, Workers) {
    let (sender, receiver) = async_channel::bounded(items.get());
    let lost = Lost::default();
    let workers = Workers {
        jobs: receiver,
        max_batch,
        backend,
        lost: lost.clone(),
        time_limit: Duration::MAX,
        warm_up_limit: Duration::MAX,
    };
    (Engines { jobs: sender, lost }, workers)
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
            // A lost engine takes no more work either.
            async_channel::TrySendError::Closed(_) => {
                self.lost.reason().map_or(EngineError::Closed, EngineError::Lost)
            }
        })?;
        report_queue(self.jobs.len());
        tokio::select! {
            biased;
            answer = answer => {
                answer.unwrap_or_else(|_| Err(EngineError::Failed("the engine has gone".to_owned())))
            }
            // A lost engine may hang and never answer.
            reason = self.lost.wait() => Err(EngineError::Lost(reason)),
        }
    }

    /// Comes back with the reason when an engine is lost. The process had better end then.
    pub async fn lost(&self) -> String {
        self.lost.wait().await
    }

    /// Takes no more work. What is queued is still done.
    pub fn close(&self) {
        self.jobs.close();
    }
}

impl Workers {
    /// An engine on a device of its own is lost when a batch takes longer than `limit`.
    #[must_use]
    pub fn with_time_limit(self, limit: Duration) -> Self {
        Self { time_limit: limit, ..self }
    }

    /// Engines that are not warm within `limit` do not start.
    #[must_use]
    pub fn with_warm_up_limit(self, limit: Duration) -> Self {
        Self { warm_up_limit: limit, ..self }
    }

    /// Starts a thread for each of `engines` and comes back when all of them are warm.
    ///
    /// # Errors
    /// When a thread does not start or an engine does not warm up, or not in time; the others then end
    /// once the queue is closed. An engine that hangs is left behind.
    pub async fn start(self, engines: Vec<Box<dyn Infer>>) -> io::Result<Running> {
        let (alive_token, alive) = mpsc::channel(1);
        let mut warm = Vec::with_capacity(engines.len());
        let mut watchdogs = JoinSet::new();
        for (number, engine) in engines.into_iter().enumerate() {
            let (report, warmed) = oneshot::channel();
            let (jobs, max_batch, backend) = (self.jobs.clone(), self.max_batch.get(), self.backend);
            let alive_token = alive_token.clone();
            let (busy, lost, limit) = (Busy::default(), self.lost.clone(), self.time_limit);
            if engine.overlaps() {
                let (busy, lost) = (busy.clone(), lost.clone());
                watchdogs.spawn(async move { busy.watch(limit, &lost).await });
            }
            thread::Builder::new().name(format!("engine-{number}")).spawn(move || {
                let feed = Feed { jobs: &jobs, max_batch, backend, lost: &lost, busy: &busy };
                run(engine, &feed, report);
                // Dropped when the thread is done: that is how `finished` knows.
                drop(alive_token);
            })?;
            warm.push(warmed);
        }
        let all_warm = async {
            for warmed in warm {
                warmed.await.unwrap_or_else(|_| Err("the engine's thread died".to_owned()))?;
            }
            Ok(())
        };
        let limit = self.warm_up_limit;
        let outcome = tokio::time::timeout(limit, all_warm).await.unwrap_or_else(|_| {
            Err(format!("not within {} s (CLASSIFY_WARM_UP_TIMEOUT)", limit.as_secs_f64()))
        });
        outcome.map_err(|reason: String| io::Error::other(format!("an engine did not warm up: {reason}")))?;
        Ok(Running { alive, _watchdogs: watchdogs })
    }
}

impl Running {
    /// Comes back when every engine has ended, which they do when the queue is closed and empty.
    pub async fn finished(mut self) {
        // Nothing is ever sent: this ends when the last thread drops its sender.
        let _ = self.alive.recv().await;
    }
}

/// What an engine's thread works on and with.
struct Feed<'a> {
    jobs: &'a async_channel::Receiver<Job>,
    max_batch: usize,
    backend: &'static str,
    lost: &'a Lost,
    busy: &'a Busy,
}

/// The life of an engine's thread.
fn run(mut engine: Box<dyn Infer>, feed: &Feed<'_>, report: oneshot::Sender<Result<(), String>>) {
    let warmed = catching(|| engine.warm_up());
    let failed = warmed.is_err();
    // Nobody listens any more when the service is stopped while it starts.
    let _ = report.send(warmed);
    if failed {
        return;
    }
    if engine.overlaps() {
        return block_on(overlap::run(engine.as_mut(), feed));
    }
    let Feed { jobs, max_batch, backend, .. } = *feed;
    while let Ok(first) = jobs.recv_blocking() {
        let batch = gather(vec![first], jobs, max_batch);
        if !batch.is_empty() {
            run_batch(engine.as_mut(), batch, backend);
        }
    }
}

/// `taken` and what is waiting already, as far as somebody waits for it and it fits a batch.
fn gather(taken: Vec<Job>, jobs: &async_channel::Receiver<Job>, max_batch: usize) -> Vec<Job> {
    let waiting = std::iter::from_fn(|| jobs.try_recv().ok());
    let batch = taken.into_iter().chain(waiting).filter(wanted).take(max_batch).collect();
    report_queue(jobs.len());
    batch
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
    let outputs = catching(|| engine.infer(&crops));
    // The callers know; this engine goes on.
    let _ = answer(outputs, replies, begin, backend, EngineError::Failed);
}

/// Tells those who wait what came out; an error is made by `failure` from its text, and given back.
fn answer(
    outputs: Result<Vec<Vec<f32>>, String>,
    replies: Vec<Reply>,
    begin: Instant,
    backend: &'static str,
    failure: fn(String) -> EngineError,
) -> Result<(), String> {
    let outputs = outputs.and_then(|outputs| {
        let (got, expected) = (outputs.len(), replies.len());
        (got == expected).then_some(outputs).ok_or_else(|| format!("{got} outputs for {expected} images"))
    });
    histogram!("classify_inference_duration_seconds", "backend" => backend).record(begin.elapsed());
    // A send fails only where the caller left during the forward pass.
    match outputs {
        Ok(outputs) => {
            for (reply, output) in replies.into_iter().zip(outputs) {
                let _ = reply.send(soundness(output));
            }
            Ok(())
        }
        Err(reason) => {
            refuse(replies, &failure(reason.clone()));
            Err(reason)
        }
    }
}

fn refuse(replies: Vec<Reply>, error: &EngineError) {
    for reply in replies {
        let _ = reply.send(Err(error.clone()));
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
        Err(panic) => Err(format!("panicked: {}", panic::message(panic.as_ref()))),
    }
}

fn report_queue(items: usize) {
    gauge!("classify_queue_items").set(items as f64);
}
