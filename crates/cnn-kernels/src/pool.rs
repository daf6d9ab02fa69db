//! Implements global average pooling.

use crate::{
    isa::{Isa, SimdKernel},
    shape::{ShapeError, check_length},
    vector::Vector,
};

/// Computes the mean of each channel over all pixels of `input`.
///
/// The length of `output` is the number of channels.
///
/// # Errors
/// Returns an error if `output` is empty, or if `input` does not hold a positive whole number of pixels.
///
/// # Examples
/// Averages two pixels with three channels:
///
/// ```
/// use cnn_kernels::{Isa, global_average_pool};
///
/// let mut means = [0.0; 3];
/// global_average_pool(Isa::detect(), &[1.0, 2.0, 3.0, 3.0, 4.0, 5.0], &mut means)?;
/// assert_eq!(means, [2.0, 3.0, 4.0]);
/// # Ok::<(), cnn_kernels::ShapeError>(())
/// ```
pub fn global_average_pool(isa: Isa, input: &[f32], output: &mut [f32]) -> Result<(), ShapeError> {
    let channels = output.len();
    let pixel_count = input.len().checked_div(channels).ok_or(ShapeError::Zero)?;
    check_length("input", pixel_count.max(1) * channels, input.len())?;
    // SAFETY: `GlobalAverage` uses no packed weights. The check above guarantees that `input` has
    // `pixel_count` times as many elements as `output`.
    unsafe { isa.run(GlobalAverage { input, pixel_count, output }) };
    Ok(())
}

struct GlobalAverage<'a> {
    input: &'a [f32],
    pixel_count: usize,
    output: &'a mut [f32],
}

/// Number of vectors of sums that are computed at the same time. The additions of one vector do not depend on
/// the other vectors, which hides the latency of an addition.
const PARALLEL_SUMS: usize = 4;

impl SimdKernel for GlobalAverage<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let channels = self.output.len();
        let output = self.output.as_mut_ptr();
        let input = self.input.as_ptr();
        let mut channel = 0;
        // SAFETY: the caller guarantees that the CPU supports `V` and that `input` consists of `pixel_count`
        // pixels of `channels` channels. Every load and store is inside the channels of one pixel: the first
        // loop runs only while `PARALLEL_SUMS` whole vectors remain, and the second loop accesses at most the
        // remaining channels.
        unsafe {
            #[expect(clippy::cast_precision_loss, reason = "an image has fewer than 2^24 pixels")]
            let scale = V::splat(1.0 / self.pixel_count as f32);
            while channel + PARALLEL_SUMS * V::LANES <= channels {
                let mut sums = [V::splat(0.0); PARALLEL_SUMS];
                for pixel in 0..self.pixel_count {
                    for (index, sum) in sums.iter_mut().enumerate() {
                        *sum = sum.add(V::load(input.add(pixel * channels + channel + index * V::LANES)));
                    }
                }
                for (index, sum) in sums.iter().enumerate() {
                    sum.mul(scale).store(output.add(channel + index * V::LANES));
                }
                channel += PARALLEL_SUMS * V::LANES;
            }
            while channel < channels {
                let remaining = channels - channel;
                let mut sum = V::splat(0.0);
                for pixel in 0..self.pixel_count {
                    let source = input.add(pixel * channels + channel);
                    sum = sum.add(if remaining < V::LANES {
                        V::load_first(source, remaining)
                    } else {
                        V::load(source)
                    });
                }
                let (mean, target) = (sum.mul(scale), output.add(channel));
                if remaining < V::LANES {
                    mean.store_first(target, remaining)
                } else {
                    mean.store(target)
                }
                channel += V::LANES;
            }
        }
    }
}
