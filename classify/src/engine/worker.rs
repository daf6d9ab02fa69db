//! The threads of the engines: their start, their loop and their end.

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
    batch::{WorkerContext, catch_failure, fill_batch, reply_to_callers, split_batch},
    infer::Infer,
    overlap,
    queue::{EngineError, InferenceQueue, Job},
    watchdog::{BatchTimer, LostSignal},
};

/// Starts engines on the receiving end of a queue.
#[derive(Debug)]
pub(crate) struct WorkerBuilder {
    jobs: async_channel::Receiver<Job>,
    max_batch: NonZeroUsize,
    backend: &'static str,
    lost: LostSignal,
    batch_timeout: Duration,
    warm_up_timeout: Duration,
}

/// The engines after their start.
#[derive(Debug)]
pub(crate) struct RunningEngines {
    /// Closed when the last engine's thread has ended.
    alive: mpsc::Receiver<()>,
    /// The watchdog tasks. Dropping the set aborts them.
    _watchdogs: JoinSet<()>,
}

/// Creates a queue of at most `max_items` crops and the builder of its workers.
///
/// An engine runs at most `max_batch` crops at once. `backend` is the label of the metrics.
pub(crate) fn inference_queue(
    max_items: NonZeroUsize,
    max_batch: NonZeroUsize,
    backend: &'static str,
) -> (InferenceQueue, WorkerBuilder) {
    let lost = LostSignal::default();
    let (queue, jobs) = InferenceQueue::bounded(max_items, lost.clone());
    let workers = WorkerBuilder {
        jobs,
        max_batch,
        backend,
        lost,
        batch_timeout: Duration::MAX,
        warm_up_timeout: Duration::MAX,
    };
    (queue, workers)
}

impl WorkerBuilder {
    /// Sets the time after which a batch counts as lost. Only applies to engines on a GPU.
    #[must_use]
    pub(crate) fn with_batch_timeout(self, batch_timeout: Duration) -> Self {
        Self { batch_timeout, ..self }
    }

    /// Sets the time within which every engine must warm up.
    #[must_use]
    pub(crate) fn with_warm_up_timeout(self, warm_up_timeout: Duration) -> Self {
        Self { warm_up_timeout, ..self }
    }

    /// Starts a thread for each of `engines` and waits until all of them have warmed up.
    ///
    /// # Errors
    /// When a thread cannot be started, or an engine fails to warm up in time. The other engines then end
    /// once the queue is closed. The thread of an engine that hangs is abandoned.
    pub(crate) async fn start(self, engines: Vec<Box<dyn Infer>>) -> io::Result<RunningEngines> {
        let (alive_token, alive) = mpsc::channel(1);
        let mut pending = Vec::with_capacity(engines.len());
        let mut watchdogs = JoinSet::new();
        for (number, engine) in engines.into_iter().enumerate() {
            let (report, warmed_up) = oneshot::channel();
            let (jobs, max_batch, backend) = (self.jobs.clone(), self.max_batch.get(), self.backend);
            let alive_token = alive_token.clone();
            let (timer, lost, limit) = (BatchTimer::default(), self.lost.clone(), self.batch_timeout);
            if engine.overlaps() {
                let (timer, lost) = (timer.clone(), lost.clone());
                watchdogs.spawn(async move { timer.watch(limit, &lost).await });
            }
            thread::Builder::new().name(format!("engine-{number}")).spawn(move || {
                let context = WorkerContext { jobs: &jobs, max_batch, backend, lost: &lost, timer: &timer };
                run(engine, &context, report);
                // `RunningEngines::finished` returns when the last token is dropped.
                drop(alive_token);
            })?;
            pending.push(warmed_up);
        }
        let all_warmed_up = async {
            for warmed_up in pending {
                let result = warmed_up.await.unwrap_or_else(|_| Err("its thread died".to_owned()));
                result.map_err(|reason| format!("an engine did not warm up: {reason}"))?;
            }
            Ok(())
        };
        let limit = self.warm_up_timeout;
        let outcome = tokio::time::timeout(limit, all_warmed_up).await.unwrap_or_else(|_| {
            let seconds = limit.as_secs_f64();
            Err(format!("an engine did not warm up within {seconds} s (CLASSIFY_WARM_UP_TIMEOUT)"))
        });
        outcome.map_err(io::Error::other)?;
        Ok(RunningEngines { alive, _watchdogs: watchdogs })
    }
}

impl RunningEngines {
    /// Waits until every engine has ended, which happens once the queue is closed and empty.
    pub(crate) async fn finished(mut self) {
        // Nothing is ever sent: `recv` returns when the last thread drops its token.
        let _ = self.alive.recv().await;
    }
}

/// Warms the engine up, reports the result and runs batches until the queue is closed and empty.
fn run(mut engine: Box<dyn Infer>, context: &WorkerContext<'_>, report: oneshot::Sender<Result<(), String>>) {
    let warmed_up = catch_failure(|| engine.warm_up());
    let failed = warmed_up.is_err();
    // Fails if the service was stopped during its start.
    let _ = report.send(warmed_up);
    if failed {
        return;
    }
    if engine.overlaps() {
        return block_on(overlap::run(engine.as_mut(), context));
    }
    let WorkerContext { jobs, max_batch, backend, .. } = *context;
    while let Ok(first) = jobs.recv_blocking() {
        let batch = fill_batch(vec![first], jobs, max_batch);
        if !batch.is_empty() {
            run_batch(engine.as_mut(), batch, backend);
        }
    }
}

fn run_batch(engine: &mut dyn Infer, batch: Vec<Job>, backend: &'static str) {
    let (crops, replies) = split_batch(batch);
    let begin = Instant::now();
    let logits = catch_failure(|| engine.infer(&crops));
    // The callers get the error; the engine continues.
    let _ = reply_to_callers(logits, replies, begin, backend, EngineError::Failed);
}
