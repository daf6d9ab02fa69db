//! The trait that every engine implements.

use std::pin::Pin;

use crate::{
    model::{GEOMETRY, HEAD, labels},
    pixels::Crop,
};

/// Error of an engine whose network did not run on a batch. A later attempt with the batch may succeed.
#[derive(Debug, thiserror::Error)]
#[error("the network did not run")]
pub struct InferError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A future of the logits of a submitted batch.
///
/// The future returns one entry per crop, in the order of the batch. Each entry has one value per output.
pub type PendingLogits = Pin<Box<dyn Future<Output = Result<Vec<Vec<f32>>, InferError>> + Send>>;

/// An engine, which runs the network on batches of crops. Each engine is used by only one thread.
pub trait Infer: Send {
    /// Computes the logits of `batch`.
    ///
    /// Returns one entry per crop, in the order of `batch`. Each entry has one value per output. An
    /// implementation may panic, because the caller catches the panic.
    ///
    /// # Errors
    /// Returns [`InferError`] when the network did not run.
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError>;

    /// Submits `batch` and returns a future of its logits.
    ///
    /// An engine on a GPU returns before the GPU has finished. The default implementation runs
    /// [`Self::infer`] to its end before it returns. An implementation may panic, because the caller catches
    /// the panic.
    ///
    /// # Errors
    /// Returns [`InferError`] when the batch cannot be submitted.
    fn submit(&mut self, batch: &[Crop]) -> Result<PendingLogits, InferError> {
        let logits = self.infer(batch);
        Ok(Box::pin(std::future::ready(logits)))
    }

    /// Returns true if the engine has its own device, such as a GPU.
    ///
    /// The engine's thread then calls [`Self::submit`] for the next batch before the current batch has
    /// finished. If a batch fails, an engine with its own device is lost: the service stops using the engine
    /// and ends.
    fn has_own_device(&self) -> bool {
        false
    }

    /// Returns the maximum number of crops in a batch. The value is known once [`Self::warm_up`] has returned.
    fn max_batch(&self) -> usize {
        usize::MAX
    }

    /// Prepares the engine. The engine's thread calls this method once, before the first batch.
    ///
    /// The default implementation runs the network on a black crop and checks that the logits are usable.
    ///
    /// # Errors
    /// Returns [`InferError`] when the network did not run or its logits are unusable.
    fn warm_up(&mut self) -> Result<(), InferError> {
        let logits = self.infer(&[Crop::black(GEOMETRY.crop)])?;
        let crop_logits = logits.into_iter().next().unwrap_or_default();
        labels::interpret_outputs(&HEAD, &crop_logits).map(drop).map_err(|error| InferError(error.into()))
    }
}
