//! An engine that runs the compiled-in network on a GPU.
//!
//! The engine pads each batch to one of a few sizes. For each tensor shape, CubeCL (burn's GPU compiler)
//! compiles kernels, and its autotune measures which of them are the fastest. With few batch sizes, the
//! warm-up can do all of this work, so that no request waits for the work.
//!
//! The engine uploads the bytes of the crops, and the GPU normalises the bytes. The engine downloads all
//! logits, which are 4 KB per image (1000 classes of 4 bytes). Choosing the best classes on the GPU would
//! save nothing, because the CPU checks anyway that every logit is finite.
//!
//! At warm-up the GPU computes the logits of a test image at each batch size, in ascending order. If a batch
//! does not run, for example because the GPU has no buffer that is large enough for its tensors, the engine
//! does without this size and the larger ones. If the logits differ from the CPU's logits by more than a
//! tolerance, or not even one image runs, the engine does not warm up.

use std::time::Instant;

use futures_executor::block_on;

use crate::{
    backend::Backend,
    engine::{Infer, InferError, PendingLogits, catch_failure},
    model::{GEOMETRY, Network},
    pixels::{Crop, CropShape},
    precision::Precision,
};

/// Maximum difference between a GPU's logit and the CPU's logit, relative to the largest logit.
///
/// A GPU that multiplies in reduced precision stays below the tolerance. A broken driver exceeds the
/// tolerance by far.
const TOLERANCE: f32 = 0.02;

/// An engine that runs the compiled-in network on an opened GPU.
///
/// The engine can also run on a CPU backend, but [`NativeEngine`](crate::engine::NativeEngine) makes better
/// use of a CPU.
#[derive(Debug)]
pub struct GpuEngine {
    backend: Backend,
    precision: Precision,
    /// The sizes that batches are padded to, in ascending order.
    batch_sizes: Vec<usize>,
    /// The network, or `None` before the warm-up.
    ///
    /// CubeCL has a separate stream of GPU commands for each thread. The engine's thread therefore loads the
    /// network itself, so that all commands of the engine are in one stream.
    network: Option<Network>,
}

impl GpuEngine {
    /// Creates an engine for batches of at most `max_batch` images.
    ///
    /// [`gpu::open`](crate::gpu::open) must have opened `backend` for `precision`.
    pub fn new(backend: Backend, precision: Precision, max_batch: usize) -> Self {
        Self { backend, precision, batch_sizes: list_batch_sizes(max_batch), network: None }
    }

    /// Runs a batch of `size` copies of `image`. Returns the largest relative difference between the logits
    /// and `expected`.
    fn measure_difference(&mut self, image: &Crop, size: usize, expected: &[f32]) -> Result<f32, String> {
        let begin = Instant::now();
        let outputs = catch_failure(|| self.infer(&vec![image.clone(); size]))?;
        let difference =
            outputs.iter().map(|logits| relative_difference(logits, expected)).fold(0.0, f32::max);
        let seconds = begin.elapsed().as_secs_f32();
        tracing::debug!(size, difference, seconds, "the GPU has warmed up for this batch size");
        Ok(difference)
    }

    fn network(&self) -> Result<&Network, InferError> {
        self.network.as_ref().ok_or_else(|| InferError("the network is not loaded on the GPU yet".into()))
    }

    /// Returns the smallest of the engine's batch sizes that is at least `image_count`.
    fn padded_size(&self, image_count: usize) -> usize {
        self.batch_sizes.iter().copied().find(|&size| size >= image_count).unwrap_or(image_count)
    }
}

impl Infer for GpuEngine {
    fn infer(&mut self, batch: &[Crop]) -> Result<Vec<Vec<f32>>, InferError> {
        block_on(self.submit(batch)?)
    }

    fn submit(&mut self, batch: &[Crop]) -> Result<PendingLogits, InferError> {
        let logits = self
            .network()?
            .submit(batch, self.padded_size(batch.len()))
            .map_err(|error| InferError(error.into()))?;
        Ok(Box::pin(async { logits.await.map_err(|error| InferError(error.into())) }))
    }

    fn has_own_device(&self) -> bool {
        true
    }

    fn warm_up(&mut self) -> Result<(), InferError> {
        let image = draw_test_image();
        let cpu = Network::load(Backend::default());
        let expected = cpu.logits(std::slice::from_ref(&image)).map_err(|error| InferError(error.into()))?;
        let expected = expected.concat();
        self.network = Some(Network::load_with_precision(self.backend, self.precision));
        let checked = check_batch_sizes(&self.batch_sizes.clone(), |size| {
            self.measure_difference(&image, size, &expected)
        });
        let Self { backend, precision, .. } = *self;
        self.batch_sizes =
            checked.map_err(|failure| InferError(format!("{backend} in {precision}: {failure}").into()))?;
        Ok(())
    }

    fn max_batch(&self) -> usize {
        self.batch_sizes.last().copied().unwrap_or(1)
    }
}

/// Returns those of `sizes` that a GPU can run, and logs a warning if it cannot run all of them.
///
/// `sizes` are in ascending order. `measure_difference` runs a batch of a size. It returns the largest relative
/// difference of the logits, or the reason why the batch did not run.
///
/// # Errors
/// Returns the reason when the GPU cannot run even the smallest batch, its logits differ by more than
/// [`TOLERANCE`], or it can run no more batches after one that did not run.
fn check_batch_sizes(
    sizes: &[usize],
    mut measure_difference: impl FnMut(usize) -> Result<f32, String>,
) -> Result<Vec<usize>, String> {
    let mut usable = Vec::with_capacity(sizes.len());
    for &size in sizes {
        match measure_difference(size) {
            Ok(difference) => {
                check_difference(size, difference)?;
                usable.push(size);
            }
            Err(reason) => {
                let Some(&largest) = usable.last() else { return Err(reason) };
                // The failure may also have been the end of the GPU, or of its driver.
                check_difference(largest, measure_difference(largest)?)?;
                tracing::warn!(
                    size,
                    largest,
                    reason,
                    "the GPU cannot run batches of this size: smaller ones are used"
                );
                break;
            }
        }
    }
    Ok(usable)
}

/// Returns an error if `difference`, the relative difference of the logits of a batch, exceeds [`TOLERANCE`].
fn check_difference(size: usize, difference: f32) -> Result<(), String> {
    if difference <= TOLERANCE {
        return Ok(());
    }
    Err(format!(
        "in a batch of {size} images, the logits differ from the CPU's logits by {difference} times the largest \
         logit; the maximum is {TOLERANCE}"
    ))
}

/// Returns the batch sizes of an engine.
///
/// The sizes are the powers of two below `max_batch`, and `max_batch` itself.
fn list_batch_sizes(max_batch: usize) -> Vec<usize> {
    let powers = std::iter::successors(Some(1), |size| Some(size * 2));
    powers.take_while(|&size| size < max_batch).chain([max_batch]).collect()
}

/// Draws an image in which every byte value occurs. Each channel is a different gradient.
fn draw_test_image() -> Crop {
    let CropShape { height, width, channels } = GEOMETRY.crop;
    let pixel = |x: u32, y: u32| [x + y, x * 3 + y / 2, x * y / 16].into_iter().take(channels.count());
    let values = (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y)));
    let bytes: Vec<u8> = values.map(|value| u8::try_from(value % 256).unwrap_or(u8::MAX)).collect();
    Crop::new(bytes, GEOMETRY.crop).unwrap_or_else(|| Crop::black(GEOMETRY.crop))
}

/// Returns the largest difference between a logit and its expected value.
///
/// The difference is divided by the largest absolute value of the expected logits, or by 1 if that value is
/// less than 1. The result is infinite if a logit is not finite or the numbers of logits differ.
fn relative_difference(logits: &[f32], expected: &[f32]) -> f32 {
    if logits.len() != expected.len() || !logits.iter().all(|value| value.is_finite()) {
        return f32::INFINITY;
    }
    let largest = expected.iter().fold(1.0_f32, |largest, value| largest.max(value.abs()));
    logits.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[cfg(test)]
mod tests {
    use platform::telemetry::CapturedLog;

    use super::*;

    #[test]
    fn batch_is_padded_to_the_next_larger_of_a_few_sizes() {
        assert_eq!(list_batch_sizes(1), [1]);
        assert_eq!(list_batch_sizes(24), [1, 2, 4, 8, 16, 24]);
        assert_eq!(list_batch_sizes(64), [1, 2, 4, 8, 16, 32, 64]);
        let engine = GpuEngine::new(Backend::default(), Precision::F32, 24);
        let padded: Vec<usize> = [1, 2, 3, 9, 17, 24].map(|count| engine.padded_size(count)).to_vec();
        assert_eq!(padded, [1, 2, 4, 16, 24, 24]);
    }

    #[test]
    fn batch_sizes_that_do_not_run_are_left_out_with_one_warning() {
        let log = CapturedLog::start("warn");
        let mut measured = Vec::new();
        let usable = check_batch_sizes(&[1, 2, 4, 8, 16], |size| {
            measured.push(size);
            if size <= 4 { Ok(0.0) } else { Err("the buffer is too large".into()) }
        });
        assert_eq!(usable, Ok(vec![1, 2, 4]));
        assert_eq!(measured, [1, 2, 4, 8, 4], "the largest size is tried again after the failure");
        let lines = log.take_lines();
        let [warning] = lines.as_slice() else { panic!("{} lines: {lines:?}", lines.len()) };
        for part in [r#""size":8"#, r#""largest":4"#, "the buffer is too large"] {
            assert!(warning.contains(part), "{warning}");
        }
    }

    #[test]
    fn gpu_that_fails_or_gives_other_logits_does_not_warm_up() {
        let fails_always = check_batch_sizes(&[1, 2], |_| Err("no memory".into()));
        assert_eq!(fails_always, Err("no memory".into()));
        let mut is_lost = false;
        let lost_at_2 = check_batch_sizes(&[1, 2], |size| {
            is_lost |= size == 2;
            if is_lost { Err("the device is lost".into()) } else { Ok(0.0) }
        });
        assert_eq!(lost_at_2, Err("the device is lost".into()));
        let wrong_at_2 = check_batch_sizes(&[1, 2], |size| Ok(if size == 2 { 0.5 } else { 0.0 }));
        assert!(wrong_at_2.unwrap_err().contains("in a batch of 2 images, the logits differ"));
    }

    #[test]
    fn rounding_is_tolerated_and_wrong_logits_are_not() {
        let expected = [1.0, -20.0, 3.0];
        assert_eq!(relative_difference(&expected, &expected), 0.0);
        assert!(relative_difference(&[1.0, -20.1, 3.0], &expected) <= TOLERANCE, "reduced precision");
        for wrong in [&[1.0, -19.0, 3.0][..], &[0.0; 3], &[f32::NAN, -20.0, 3.0], &[1.0, -20.0]] {
            assert!(relative_difference(wrong, &expected) > TOLERANCE, "{wrong:?}");
        }
    }

    #[test]
    fn test_image_has_every_byte_value() {
        let image = draw_test_image();
        let values: std::collections::BTreeSet<u8> = image.bytes().iter().copied().collect();
        assert_eq!(values.len(), 256);
    }
}
