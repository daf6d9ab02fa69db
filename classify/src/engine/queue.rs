//! The bounded queue of crops that wait for an engine.

use std::num::NonZeroUsize;

use metrics::{counter, gauge};
use tokio::sync::oneshot;

use super::watchdog::LostSignal;
use crate::pixels::Crop;

/// Reason why a crop has no logits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// The queue is full. A later attempt may succeed.
    #[error("the queue is full")]
    Overloaded,
    /// The queue is closed because the service is shutting down.
    #[error("the engines are stopping")]
    Closed,
    /// The batch panicked or failed. The same crop may succeed in another batch.
    #[error("the batch failed: {0}")]
    Failed(String),
    /// The engine's GPU is lost. Another instance may succeed.
    #[error("the engine is lost: {0}")]
    Lost(String),
}

/// Sends the logits of a crop, or the reason why there are none, to the caller.
pub(super) type Reply = oneshot::Sender<Result<Vec<f32>, EngineError>>;

/// A crop in the queue.
pub(super) struct Job {
    pub(super) crop: Crop,
    pub(super) reply: Reply,
}

/// Handle of the queue: passes crops to whichever engine is free. Clones share the queue.
#[derive(Clone, Debug)]
pub(crate) struct InferenceQueue {
    jobs: async_channel::Sender<Job>,
    lost: LostSignal,
}

impl InferenceQueue {
    /// Creates a queue of at most `max_items` crops and returns the engines' end as well.
    pub(super) fn bounded(max_items: NonZeroUsize, lost: LostSignal) -> (Self, async_channel::Receiver<Job>) {
        let (jobs, receiver) = async_channel::bounded(max_items.get());
        (Self { jobs, lost }, receiver)
    }

    /// Computes the logits of `crop`, one value per class.
    ///
    /// The network does not run for the crop if this future is dropped before an engine has received it.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) async fn infer(&self, crop: Crop) -> Result<Vec<f32>, EngineError> {
        let (reply, logits) = oneshot::channel();
        self.jobs.try_send(Job { crop, reply }).map_err(|error| match error {
            async_channel::TrySendError::Full(_) => {
                counter!("classify_shed_total", "reason" => "queue_full").increment(1);
                EngineError::Overloaded
            }
            // The queue is also closed when the last engine is lost.
            async_channel::TrySendError::Closed(_) => {
                self.lost.reason().map_or(EngineError::Closed, EngineError::Lost)
            }
        })?;
        report_length(self.jobs.len());
        tokio::select! {
            biased;
            logits = logits => {
                logits.unwrap_or_else(|_| Err(EngineError::Failed("the engine has gone".to_owned())))
            }
            // A lost engine may hang and never reply.
            reason = self.lost.wait() => Err(EngineError::Lost(reason)),
        }
    }

    /// Waits until an engine is lost and returns the reason. The process should end then.
    pub(crate) async fn lost(&self) -> String {
        self.lost.wait().await
    }

    /// Closes the queue to new crops. Crops in the queue are still classified.
    pub(crate) fn close(&self) {
        self.jobs.close();
    }
}

/// Sets the metric of the queue's length.
pub(super) fn report_length(items: usize) {
    gauge!("classify_queue_items").set(items as f64);
}
