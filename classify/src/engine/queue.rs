//! The bounded queue of crops that wait for an engine.

use std::num::NonZeroUsize;

use metrics::{counter, gauge};
use tokio::sync::oneshot;

use super::watchdog::LostSignal;
use crate::{pixels::Crop, queue_permits::QueuePermit};

/// Reason why a caller receives no logits for its crop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineError {
    /// The queue is full. A later attempt may succeed.
    #[error("the queue is full")]
    Overloaded,
    /// The queue is closed because the service is shutting down.
    #[error("the engines are stopping")]
    Closed,
    /// The network failed or panicked on the batch. A later attempt with the same crop may succeed.
    #[error("the batch failed: {0}")]
    Failed(String),
    /// The network failed or panicked on the CPU, on a batch that was only this crop.
    #[error("the network failed on the image: {0}")]
    FailedAlone(String),
    /// The engine is lost. Another instance of the service may succeed.
    #[error("the engine is lost: {0}")]
    Lost(String),
}

/// Sender of a crop's logits, or of an error, to the caller.
pub(super) type ReplySender = oneshot::Sender<Result<Vec<f32>, EngineError>>;

/// A crop in the queue, with the channel to its caller.
pub(super) struct Job {
    pub(super) crop: Crop,
    /// Permit to be in the queue. It is released when an engine runs the crop, or drops it because its caller
    /// has gone.
    pub(super) permit: QueuePermit,
    pub(super) reply: ReplySender,
}

/// Sending half of the queue. Each crop in the queue goes to a free engine. Clones share the queue.
#[derive(Clone, Debug)]
pub(crate) struct InferenceQueue {
    jobs: async_channel::Sender<Job>,
    lost_signal: LostSignal,
}

impl InferenceQueue {
    /// Creates a queue of at most `max_items` crops.
    ///
    /// Also returns the receiving half of the queue, which is for the engines.
    pub(super) fn bounded(
        max_items: NonZeroUsize,
        lost_signal: LostSignal,
    ) -> (Self, async_channel::Receiver<Job>) {
        let (jobs, receiver) = async_channel::bounded(max_items.get());
        (Self { jobs, lost_signal }, receiver)
    }

    /// Computes the logits of `crop`. Returns one value per class.
    ///
    /// `permit` is released when an engine runs the crop. The queue is at least as long as there are permits,
    /// so a crop with a permit finds room.
    ///
    /// If this future is dropped before an engine has received the crop, the network does not run for the
    /// crop.
    ///
    /// # Errors
    /// Returns [`EngineError::Overloaded`] when the queue is full, [`EngineError::Closed`] when the queue
    /// is closed, and [`EngineError::Failed`], [`EngineError::FailedAlone`] or [`EngineError::Lost`] when the
    /// network did not run for the crop.
    pub(crate) async fn infer(&self, crop: Crop, permit: QueuePermit) -> Result<Vec<f32>, EngineError> {
        let (reply, reply_receiver) = oneshot::channel();
        self.jobs.try_send(Job { crop, permit, reply }).map_err(|error| match error {
            async_channel::TrySendError::Full(_) => {
                counter!("classify_shed_total", "reason" => "queue_full").increment(1);
                EngineError::Overloaded
            }
            // The queue also closes when the last engine is lost. The lost signal then contains the reason.
            async_channel::TrySendError::Closed(_) => {
                self.lost_signal.reason().map_or(EngineError::Closed, EngineError::Lost)
            }
        })?;
        report_queue_length(self.jobs.len());
        tokio::select! {
            biased;
            result = reply_receiver => {
                result.unwrap_or_else(|_| Err(EngineError::Failed("the engine's thread ended".to_owned())))
            }
            // The whole service stops when an engine is lost, so every waiting caller fails at once. The lost
            // engine itself may never reply.
            reason = self.lost_signal.wait() => Err(EngineError::Lost(reason)),
        }
    }

    /// Waits until an engine is lost and returns the reason. The process must then end.
    pub(crate) async fn wait_until_lost(&self) -> String {
        self.lost_signal.wait().await
    }

    /// Closes the queue to new crops. Crops in the queue are still classified.
    pub(crate) fn close(&self) {
        self.jobs.close();
    }
}

/// Sets the metric of the queue's length, in crops.
pub(super) fn report_queue_length(length: usize) {
    gauge!("classify_queue_items").set(length as f64);
}
