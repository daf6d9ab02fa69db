//! The compiled-in network on a GPU, as an engine.
//!
//! A batch is padded to one of a few sizes. A GPU's kernels are made, and chosen by measuring, for each
//! shape they meet: that happens here before the service is ready, and never under a request. The bytes
//! of the pixels go to the GPU, where they are normalised, and all outputs come back, 4 KB an image: the
//! choice of the best few is left to the CPU, which looks at every output anyway to see that it is sound.
//!
//! At each size the GPU must give what the CPU gives for the same picture, or the service does not start.

use std::time::Instant;

use crate::{
    backend::Backend,
    engine::{Infer, InferError, Pending, block_on},
    network::{GEOMETRY, Network},
    pixels::Crop,
    precision::Precision,
};

/// How far an output of the GPU may be from the CPU's, as a part of the largest output. Wide enough for
/// the shortened multiplications that a GPU's matrix units do, and far from what a broken driver gives.
const TOLERANCE: f32 = 0.02;

/// The network on a GPU that was opened. Any backend would do, but the others have better use for a CPU.
#[derive(Debug)]
pub struct GpuEngine {
    backend: Backend,
    precision: Precision,
    sizes: Vec<usize>,
    /// Loaded by the thread that runs it: CubeCL has a stream of work for each thread, and one is enough.
    network: Option<Network>,
}

impl GpuEngine {
    /// An engine for at most `max_batch` images at once on `backend`, which was opened for `precision`.
    pub fn new(backend: Backend, precision: Precision, max_batch: usize) -> Self {
        Self { backend, precision, sizes: batch_sizes(max_batch), network: None }
    }

    fn network(&self) -> Result<&Network, InferError> {
        self.network.as_ref().ok_or_else(|| InferError("the network is not on the GPU yet".into()))
    }

    /// Smallest size that holds `images`.
    fn padded(&self, images: usize) -> usize {
        self.sizes.iter().copied().find(|&size| size >= images).unwrap_or(images)
    }
}

impl Infer for GpuEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        block_on(self.begin(batch)?)
    }

    fn begin(&mut self, batch: &[Crop]) -> Result<Pending, InferError> {
        let outputs = self
            .network()?
            .hand_over(batch, self.padded(batch.len()))
            .map_err(|error| InferError(error.into()))?;
        Ok(Box::pin(async { outputs.await.map_err(|error| InferError(error.into())) }))
    }

    fn overlaps(&self) -> bool {
        true
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        let picture = test_picture();
        let cpu = Network::load(Backend::default());
        let expected =
            cpu.logits(std::slice::from_ref(&picture)).map_err(|error| InferError(error.into()))?;
        let expected = expected.concat();
        self.network = Some(Network::load_in(self.backend, self.precision));
        for size in self.sizes.clone() {
            let begin = Instant::now();
            let outputs = self.infer(&vec![picture.clone(); size])?;
            let difference = outputs.iter().map(|output| difference(output, &expected)).fold(0.0, f32::max);
            let seconds = begin.elapsed().as_secs_f32();
            tracing::debug!(size, difference, seconds, "the GPU is warm for batches of this size");
            if difference > TOLERANCE {
                let Self { backend, precision, .. } = self;
                return Err(InferError(
                    format!(
                        "in a batch of {size}, the outputs of {backend} in {precision} are {difference} of the largest \
                         away from the CPU's, and at most {TOLERANCE} is believed"
                    )
                    .into(),
                ));
            }
        }
        Ok(())
    }
}

/// Sizes of batches that the GPU ever sees: powers of two, and the largest one.
fn batch_sizes(max_batch: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1), |size| Some(size * 2));
    powers.take_while(|&size| size < max_batch).chain([max_batch]).collect()
}

/// A picture with something of everything: gradients that meet no edge twice, and all values of a byte.
fn test_picture() -> Crop {
    let side = GEOMETRY.crop;
    let channels = (0..side).flat_map(|y| (0..side).flat_map(move |x| [x + y, x * 3 + y / 2, x * y / 16]));
    let bytes: Vec<u8> = channels.map(|value| u8::try_from(value % 256).unwrap_or(u8::MAX)).collect();
    Crop::new(bytes, side).unwrap_or_else(|| Crop::black(side))
}

/// Largest difference of an output, as a part of the largest output; infinite where they cannot be
/// compared.
fn difference(outputs: &[f32], expected: &[f32]) -> f32 {
    if outputs.len() != expected.len() || !outputs.iter().all(|value| value.is_finite()) {
        return f32::INFINITY;
    }
    let largest = expected.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    outputs.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_few_sizes_and_each_fits_one() {
        assert_eq!(batch_sizes(1), [1]);
        assert_eq!(batch_sizes(24), [1, 2, 4, 8, 16, 24]);
        assert_eq!(batch_sizes(64), [1, 2, 4, 8, 16, 32, 64]);
        let engine = GpuEngine::new(Backend::default(), Precision::F32, 24);
        let padded: Vec<usize> = [1, 2, 3, 9, 17, 24].map(|images| engine.padded(images)).to_vec();
        assert_eq!(padded, [1, 2, 4, 16, 24, 24]);
    }

    #[test]
    fn outputs_that_differ_are_noticed() {
        let expected = [1.0, -20.0, 3.0];
        assert_eq!(difference(&expected, &expected), 0.0);
        assert!(difference(&[1.0, -20.1, 3.0], &expected) <= TOLERANCE, "what shortened sums lose");
        for wrong in [&[1.0, -19.0, 3.0][..], &[0.0; 3], &[f32::NAN, -20.0, 3.0], &[1.0, -20.0]] {
            assert!(difference(wrong, &expected) > TOLERANCE, "{wrong:?}");
        }
    }

    #[test]
    fn the_test_picture_has_every_value_of_a_byte() {
        let picture = test_picture();
        let values: std::collections::BTreeSet<u8> = picture.rgb().iter().copied().collect();
        assert_eq!(values.len(), 256);
    }
}
