//! The depthwise convolution: a kernel of its own for each channel.

mod rows;

use std::ops::Range;

use crate::{
    aligned::AlignedBuffer,
    isa::Isa,
    shape::{Clamp, ShapeError, Window, check_length, check_rows, volume},
};
use rows::DepthwiseRows;

/// A depthwise convolution, 3×3 or 5×5 with stride 1 or 2 and any padding.
#[derive(Clone, Debug)]
pub struct Depthwise {
    isa: Isa,
    window: Window,
    channels: usize,
    /// `[kernel rows][kernel columns][padded channels]`
    weights: AlignedBuffer,
    bias: AlignedBuffer,
    padded_channels: usize,
    clamp: Clamp,
}

impl Depthwise {
    /// Packs `weights` `[channels][kernel rows][kernel columns]` and `bias` `[channels]`.
    ///
    /// # Errors
    /// `weights` is not as long as the sizes say, there are no channels, or there is no such kernel.
    pub fn new(
        isa: Isa,
        window: Window,
        weights: &[f32],
        bias: &[f32],
        clamp: Clamp,
    ) -> Result<Self, ShapeError> {
        let (kernel, stride) = (window.kernel(), window.stride());
        if !matches!((kernel, stride), (3 | 5, 1 | 2)) {
            return Err(ShapeError::Unsupported { kernel, stride });
        }
        let (channels, taps) = (bias.len(), kernel * kernel);
        check_length("weights", volume(&[taps, channels])?, weights.len())?;
        volume(&[window.input().pixels(), channels])?;
        volume(&[window.output().pixels(), channels])?;
        let padded_channels = channels.next_multiple_of(isa.lanes());
        let mut packed = AlignedBuffer::zeroed(taps * padded_channels);
        for (channel, kernel) in weights.chunks_exact(taps).enumerate() {
            for (tap, weight) in kernel.iter().enumerate() {
                packed[tap * padded_channels + channel] = *weight;
            }
        }
        let mut padded_bias = AlignedBuffer::zeroed(padded_channels);
        padded_bias[..channels].copy_from_slice(bias);
        Ok(Self { isa, window, channels, weights: packed, bias: padded_bias, padded_channels, clamp })
    }

    /// The window that it was made for.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Channels of the input and of the output.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Computes the output rows `rows` of the whole image `input` into `output`, which is those rows.
    ///
    /// # Errors
    /// `input` is not the whole image, `rows` are not inside the output, or `output` is not as long as
    /// they are. Nothing is written then.
    pub fn run(&self, input: &[f32], rows: Range<usize>, output: &mut [f32]) -> Result<(), ShapeError> {
        self.run_on_ring(input, self.window.input().height, rows, output)
    }

    /// As [`Self::run`], of an image of which only the last `ring` rows are kept: row `y` is at
    /// `y % ring`. Those that `rows` look at must be among them.
    pub(crate) fn run_on_ring(
        &self,
        input: &[f32],
        ring: usize,
        rows: Range<usize>,
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        check_length("input", ring * self.window.input().width * self.channels, input.len())?;
        check_rows(&rows, self.window.output().height)?;
        let row_len = self.window.output().width * self.channels;
        check_length("output", rows.len() * row_len, output.len())?;
        let kernel = DepthwiseRows { operator: self, input, ring, rows, output };
        // SAFETY: the weights were packed for this instruction set, and the lengths were checked.
        unsafe { self.isa.run(kernel) };
        Ok(())
    }
}
