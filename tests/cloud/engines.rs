//! Engines that do what a test needs.

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

/// Index of espresso in ImageNet, which all models here know.
const ESPRESSO: usize = 967;

/// Says espresso to everything, and counts how often it is asked.
#[derive(Clone, Default)]
pub(crate) struct Espresso(Arc<AtomicUsize>);

impl Espresso {
    pub(crate) fn asked(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Infer for Espresso {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.0.fetch_add(batch.len(), Ordering::SeqCst);
        let mut outputs = vec![0.0; CLASSES];
        outputs[ESPRESSO] = 10.0;
        Ok(vec![outputs; batch.len()])
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// Does as the engine inside does, after a while.
pub(crate) struct Slow<E>(pub(crate) E, pub(crate) Duration);

impl<E: Infer> Infer for Slow<E> {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        std::thread::sleep(self.1);
        self.0.infer(batch)
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// Gives nothing that could be an answer, whatever the image.
pub(crate) struct Broken;

impl Infer for Broken {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        Ok(vec![vec![f32::NAN; CLASSES]; batch.len()])
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}
