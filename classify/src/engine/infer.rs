//! The interface of an engine.

use std::pin::Pin;

use crate::{
    model::{GEOMETRY, labels},
    pixels::Crop,
};

/// The network did not run. The same batch may succeed at another time.
#[derive(Debug, thiserror::Error)]
#[error("the network did not run")]
pub struct InferError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// A future of the logits of each crop of a submitted batch, one value per class.
pub type PendingLogits = Pin<Box<dyn Future<Output = Result<Vec<Vec<f32>>, InferError>> + Send>>;

/// An engine: runs the network on batches of crops. Each engine is used by one thread.
pub trait Infer: Send {
    /// Computes the logits of each crop of `batch`, one value per class, in the order of the batch.
    ///
    /// May panic; the caller catches it.
    ///
    /// # Errors
    /// [`InferError`].
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError>;

    /// Submits `batch` and returns a future of its logits.
    ///
    /// An engine on a GPU returns before the GPU has finished. The default runs [`Self::infer`] first. May
    /// panic; the caller catches it.
    ///
    /// # Errors
    /// [`InferError`].
    fn submit(&mut self, batch: &[Crop]) -> Result<PendingLogits, InferError> {
        let logits = self.infer(batch);
        Ok(Box::pin(std::future::ready(logits)))
    }

    /// Returns true if the engine runs on a device of its own, such as a GPU.
    ///
    /// [`Self::submit`] is then called for the next batch before the current one has finished, and a
    /// failure means that the device is lost.
    fn overlaps(&self) -> bool {
        false
    }

    /// Prepares the engine. Called once, before its first batch.
    ///
    /// The default runs the network on a black crop and checks that the logits are usable.
    ///
    /// # Errors
    /// [`InferError`].
    fn warm_up(&mut self) -> Result<(), InferError> {
        let logits = self.infer(&[Crop::black(GEOMETRY.crop)])?;
        let first = logits.into_iter().next().unwrap_or_default();
        labels::probabilities(&first).map(drop).map_err(|error| InferError(error.into()))
    }
}
