//! Global average pooling.

use crate::{
    isa::{Isa, Kernel},
    shape::{ShapeError, check_length},
    vector::Vector,
};

/// The mean of each channel over all pixels of `input`; there are as many channels as `output` is long.
///
/// # Errors
/// `output` is empty, or `input` is not a whole number of pixels, at least one.
pub fn global_average_pool(isa: Isa, input: &[f32], output: &mut [f32]) -> Result<(), ShapeError> {
    let channels = output.len();
    let pixels = input.len().checked_div(channels).ok_or(ShapeError::Zero)?;
    check_length("input", pixels.max(1) * channels, input.len())?;
    // SAFETY: nothing is packed, and the lengths were checked.
    unsafe { isa.run(GlobalAverage { input, pixels, output }) };
    Ok(())
}

struct GlobalAverage<'a> {
    input: &'a [f32],
    pixels: usize,
    output: &'a mut [f32],
}

/// Vectors that are summed side by side: a chain of sums each, so that they need not wait.
const SIDE_BY_SIDE: usize = 4;

impl Kernel for GlobalAverage<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let channels = self.output.len();
        let output = self.output.as_mut_ptr();
        let input = self.input.as_ptr();
        let mut channel = 0;
        // SAFETY: the CPU is the caller's promise; every vector is inside a pixel's channels.
        unsafe {
            #[expect(clippy::cast_precision_loss, reason = "images are smaller than 2^24 pixels")]
            let scale = V::splat(1.0 / self.pixels as f32);
            while channel + SIDE_BY_SIDE * V::LANES <= channels {
                let mut sums = [V::splat(0.0); SIDE_BY_SIDE];
                for pixel in 0..self.pixels {
                    for (vector, sum) in sums.iter_mut().enumerate() {
                        *sum = sum.add(V::load(input.add(pixel * channels + channel + vector * V::LANES)));
                    }
                }
                for (vector, sum) in sums.iter().enumerate() {
                    sum.mul(scale).store(output.add(channel + vector * V::LANES));
                }
                channel += SIDE_BY_SIDE * V::LANES;
            }
            while channel < channels {
                let lanes = channels - channel;
                let mut sum = V::splat(0.0);
                for pixel in 0..self.pixels {
                    let source = input.add(pixel * channels + channel);
                    sum = sum.add(if lanes < V::LANES {
                        V::load_first(source, lanes)
                    } else {
                        V::load(source)
                    });
                }
                let (mean, target) = (sum.mul(scale), output.add(channel));
                if lanes < V::LANES {
                    mean.store_first(target, lanes)
                } else {
                    mean.store(target)
                }
                channel += V::LANES;
            }
        }
    }
}
