//! Starts one thread per engine. Each thread runs batches until the queue is closed and empty.

use std::{
    io,
    num::NonZeroUsize,
    thread,
    time::{Duration, Instant},
};

use futures_executor::block_on;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    batch::{ThreadContext, catch_failure, fill_batch, reply_to_callers, split_batch},
    infer::Infer,
    overlap,
    queue::{EngineError, InferenceQueue, Job},
    watchdog::{BatchTimer, LostSignal},
};

/// Starts the engines, which receive crops from a queue.
#[derive(Clone, Debug)]
pub(crate) struct EngineStarter {
    jobs: async_channel::Receiver<Job>,
    max_batch: NonZeroUsize,
    backend: &'static str,
    lost_signal: LostSignal,
    batch_timeout: Duration,
    warm_up_timeout: Duration,
}

/// Handle to the running engine threads. Keeps the watchdog tasks alive.
#[derive(Debug)]
pub(crate) struct RunningEngines {
    /// Channel that closes when the last engine thread has ended.
    all_ended: mpsc::Receiver<()>,
    /// The watchdog tasks, which report an engine whose batch never finishes. Dropping the set aborts the
    /// tasks.
    _watchdogs: JoinSet<()>,
}

/// Creates a queue of at most `max_items` crops and the [`EngineStarter`] of its engines.
///
/// An engine runs at most `max_batch` crops at once. `backend` is the value of the metrics' `backend` label.
pub(crate) fn inference_queue(
    max_items: NonZeroUsize,
    max_batch: NonZeroUsize,
    backend: &'static str,
) -> (InferenceQueue, EngineStarter) {
    let lost_signal = LostSignal::default();
    let (queue, jobs) = InferenceQueue::bounded(max_items, lost_signal.clone());
    let starter = EngineStarter {
        jobs,
        max_batch,
        backend,
        lost_signal,
        batch_timeout: Duration::MAX,
        warm_up_timeout: Duration::MAX,
    };
    (queue, starter)
}

impl EngineStarter {
    /// Sets the backend of the engines and the maximum number of crops that an engine runs at once.
    #[must_use]
    pub(crate) fn with_backend(self, backend: &'static str, max_batch: NonZeroUsize) -> Self {
        Self { backend, max_batch, ..self }
    }

    /// Sets the maximum running time of a batch. An engine whose batch takes longer is reported as lost.
    ///
    /// The maximum applies only to an engine with its own device, such as a GPU ([`Infer::has_own_device`]
    /// returns true).
    #[must_use]
    pub(crate) fn with_batch_timeout(self, batch_timeout: Duration) -> Self {
        Self { batch_timeout, ..self }
    }

    /// Sets the maximum time until every engine has warmed up.
    #[must_use]
    pub(crate) fn with_warm_up_timeout(self, warm_up_timeout: Duration) -> Self {
        Self { warm_up_timeout, ..self }
    }

    /// Starts a thread for each of `engines` and waits until every engine has warmed up. Then the engines
    /// receive crops.
    ///
    /// # Errors
    /// Returns an error when a thread cannot be started, an engine fails to warm up, or the warm-up timeout
    /// passes. No engine receives a crop then. The thread of an engine that hangs is abandoned.
    pub(crate) async fn start(self, engines: Vec<Box<dyn Infer>>) -> io::Result<RunningEngines> {
        let (running_token, all_ended) = mpsc::channel(1);
        let mut warm_up_receivers = Vec::with_capacity(engines.len());
        let mut go_senders = Vec::with_capacity(engines.len());
        let mut watchdogs = JoinSet::new();
        for (number, engine) in engines.into_iter().enumerate() {
            let (warm_up_sender, warm_up_receiver) = oneshot::channel();
            let (go_sender, go_receiver) = oneshot::channel();
            let (jobs, max_batch, backend) = (self.jobs.clone(), self.max_batch.get(), self.backend);
            let running_token = running_token.clone();
            let (timer, lost_signal) = (BatchTimer::default(), self.lost_signal.clone());
            if engine.has_own_device() {
                let (timer, lost_signal) = (timer.clone(), lost_signal.clone());
                let batch_timeout = self.batch_timeout;
                watchdogs.spawn(async move { timer.watch_for_timeout(batch_timeout, &lost_signal).await });
            }
            thread::Builder::new().name(format!("engine-{number}")).spawn(move || {
                let context = ThreadContext {
                    jobs: &jobs,
                    max_batch,
                    backend,
                    lost_signal: &lost_signal,
                    timer: &timer,
                };
                run_engine(engine, context, warm_up_sender, go_receiver);
                // `all_ended` closes when the last thread drops its token.
                drop(running_token);
            })?;
            warm_up_receivers.push(warm_up_receiver);
            go_senders.push(go_sender);
        }
        let all_warmed_up = async {
            for warm_up_receiver in warm_up_receivers {
                let warm_up_result =
                    warm_up_receiver.await.unwrap_or_else(|_| Err("the thread died".to_owned()));
                warm_up_result.map_err(|reason| format!("an engine did not warm up: {reason}"))?;
            }
            Ok(())
        };
        let warm_up_timeout = self.warm_up_timeout;
        let start_result = tokio::time::timeout(warm_up_timeout, all_warmed_up).await.unwrap_or_else(|_| {
            let seconds = warm_up_timeout.as_secs_f64();
            Err(format!("an engine did not warm up within {seconds} s (CLASSIFY_WARM_UP_TIMEOUT)"))
        });
        start_result.map_err(io::Error::other)?;
        for go_sender in go_senders {
            // Sending fails if the thread has died, which the queue reports to its callers.
            let _ = go_sender.send(());
        }
        Ok(RunningEngines { all_ended, _watchdogs: watchdogs })
    }
}

impl RunningEngines {
    /// Waits until every engine thread has ended.
    ///
    /// A thread ends once the queue is closed and empty, or its engine is lost.
    pub(crate) async fn wait_until_ended(mut self) {
        // Nothing is ever sent, so `recv` returns when the last thread drops its token.
        let _ = self.all_ended.recv().await;
    }
}

/// Warms the engine up, sends the result of the warm-up and runs batches once `go_receiver` has received the
/// signal that every engine has warmed up.
///
/// Returns when an engine did not warm up, the queue is closed and empty, or the engine is lost.
fn run_engine(
    mut engine: Box<dyn Infer>,
    mut context: ThreadContext<'_>,
    warm_up_sender: oneshot::Sender<Result<(), String>>,
    go_receiver: oneshot::Receiver<()>,
) {
    let warm_up_result = catch_failure(|| engine.warm_up());
    // Sending fails if the service was stopped or the warm-up timed out.
    let _ = warm_up_sender.send(warm_up_result);
    if go_receiver.blocking_recv().is_err() {
        return;
    }
    context.max_batch = context.max_batch.min(engine.max_batch());
    if engine.has_own_device() {
        return block_on(overlap::run(engine.as_mut(), &context));
    }
    let ThreadContext { jobs, max_batch, backend, .. } = context;
    while let Ok(job) = jobs.recv_blocking() {
        let batch = fill_batch(vec![job], jobs, max_batch);
        if !batch.is_empty() {
            run_batch(engine.as_mut(), batch, backend);
        }
    }
}

/// Runs `batch` and sends each caller its logits or an error.
fn run_batch(engine: &mut dyn Infer, batch: Vec<Job>, backend: &'static str) {
    let (crops, replies) = split_batch(batch);
    let begin = Instant::now();
    let logits = catch_failure(|| engine.infer(&crops));
    // If the batch failed, its callers have received the error. The engine continues with the next batch.
    let new_error = if crops.len() == 1 { EngineError::FailedAlone } else { EngineError::Failed };
    let _ = reply_to_callers(logits, replies, begin, backend, new_error);
}
