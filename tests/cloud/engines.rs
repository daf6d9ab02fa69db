//! Fake inference engines, which the tests use instead of the real network.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use classify::{
    engine::{Infer, InferError},
    model::CLASSES,
    pixels::Crop,
};

/// Index of the class `espresso`. Every model in this project has the classes of ImageNet.
const ESPRESSO: usize = 967;

/// An engine that predicts espresso for every image and counts the images. Clones share the counter.
#[derive(Clone, Default)]
pub(crate) struct EspressoEngine(Arc<AtomicUsize>);

impl EspressoEngine {
    /// Returns the number of images classified so far.
    pub(crate) fn image_count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Infer for EspressoEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.0.fetch_add(batch.len(), Ordering::SeqCst);
        let mut logits = vec![0.0; CLASSES];
        logits[ESPRESSO] = 10.0;
        Ok(vec![logits; batch.len()])
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// An engine that sleeps for a fixed duration before it passes a batch to another engine.
pub(crate) struct SlowEngine<E>(pub(crate) E, pub(crate) Duration);

impl<E: Infer> Infer for SlowEngine<E> {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        std::thread::sleep(self.1);
        self.0.infer(batch)
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// An engine that returns invalid logits (NaN) for every image.
pub(crate) struct NanEngine;

impl Infer for NanEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        Ok(vec![vec![f32::NAN; CLASSES]; batch.len()])
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}
