//! Engines that the test controls.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
    mpsc as std_mpsc,
};

use classify::{
    engine::{Infer, InferError},
    model::{CLASSES, GEOMETRY},
    pixels::Crop,
};
use tokio::sync::mpsc;

use super::WAIT_TIMEOUT;

/// Index of the class `espresso`. Every model in this project has the classes of ImageNet.
pub(crate) const ESPRESSO: usize = 967;

/// Returns logits whose best class is espresso.
fn espresso_logits() -> Vec<f32> {
    let mut logits = vec![0.0; CLASSES];
    logits[ESPRESSO] = 10.0;
    logits
}

/// An engine that predicts espresso for every image and counts the images.
pub(super) struct EspressoEngine {
    pub(super) classified_count: Arc<AtomicUsize>,
}

impl Infer for EspressoEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.classified_count.fetch_add(batch.len(), Ordering::SeqCst);
        Ok(batch.iter().map(|_| espresso_logits()).collect())
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// An engine that gives the same outputs for every image.
pub(super) struct FixedEngine {
    pub(super) outputs: Vec<f32>,
    pub(super) run_count: Arc<AtomicUsize>,
}

impl Infer for FixedEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        self.run_count.fetch_add(batch.len(), Ordering::SeqCst);
        Ok(vec![self.outputs.clone(); batch.len()])
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        Ok(())
    }
}

/// The result of a batch, which the test chooses.
#[derive(Clone, Copy)]
pub(crate) enum Verdict {
    Espresso,
    Nan,
    Panic,
}

/// An engine that reports the size of each batch to the test, then waits until the test sends a verdict.
struct GatedEngine {
    batch_sizes: mpsc::UnboundedSender<usize>,
    verdicts: std_mpsc::Receiver<Verdict>,
    /// True if the warm-up also waits for a verdict.
    gated_warm_up: bool,
}

impl Infer for GatedEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        let test_is_over = || InferError("the test is over".into());
        self.batch_sizes.send(batch.len()).map_err(|_| test_is_over())?;
        match self.verdicts.recv().map_err(|_| test_is_over())? {
            Verdict::Espresso => Ok(batch.iter().map(|_| espresso_logits()).collect()),
            Verdict::Nan => Ok(batch.iter().map(|_| vec![f32::NAN; CLASSES]).collect()),
            Verdict::Panic => panic!("panic for this test"),
        }
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        if self.gated_warm_up { self.infer(&[Crop::black(GEOMETRY.crop)]).map(drop) } else { Ok(()) }
    }
}

/// Controls a [`GatedEngine`]: receives the sizes of the batches and sends the verdicts.
pub(crate) struct Gate {
    batch_sizes: mpsc::UnboundedReceiver<usize>,
    verdicts: std_mpsc::Sender<Verdict>,
}

impl Gate {
    /// Creates an engine and the gate that controls it. If `gated_warm_up` is true, the warm-up also waits
    /// for a verdict.
    pub(crate) fn new(gated_warm_up: bool) -> (Box<dyn Infer>, Self) {
        let (size_sender, batch_sizes) = mpsc::unbounded_channel();
        let (verdicts, verdict_receiver) = std_mpsc::channel();
        let engine = GatedEngine { batch_sizes: size_sender, verdicts: verdict_receiver, gated_warm_up };
        (Box::new(engine), Self { batch_sizes, verdicts })
    }

    /// Waits for the engine's next batch and returns the size of the batch.
    pub(crate) async fn next_batch(&mut self) -> usize {
        tokio::time::timeout(WAIT_TIMEOUT, self.batch_sizes.recv()).await.unwrap().unwrap()
    }

    /// Returns the number of batches that the engine has started since the last [`Self::next_batch`].
    pub(crate) fn count_further_batches(&mut self) -> usize {
        std::iter::from_fn(|| self.batch_sizes.try_recv().ok()).count()
    }

    /// Sends the verdict for the running batch, or for the next batch if none is running.
    pub(crate) fn release(&self, verdict: Verdict) {
        self.verdicts.send(verdict).unwrap();
    }
}
