//! Defines the depthwise convolution and packs its weights.

use crate::{
    aligned::AlignedBuffer,
    isa::Isa,
    shape::{Clamp, ShapeError, Window, check_length, checked_volume},
};

/// A depthwise convolution with its weights packed for one instruction set.
///
/// The kernel is 3×3 or 5×5, the stride is 1 or 2, and the padding is arbitrary.
///
/// # Examples
/// Adds up the 3×3 neighbourhood of each pixel of an image with one channel:
///
/// ```
/// use cnn_kernels::{Clamp, Depthwise, Isa, Pads, Size, Window};
///
/// let window = Window::new(Size { height: 3, width: 3 }, 3, 1, Pads::all(1))?;
/// let depthwise = Depthwise::new(Isa::detect(), window, &[1.0; 9], &[0.0], Clamp::NONE)?;
///
/// let mut output = [0.0; 9];
/// depthwise.run(&[1.0; 9], 0..3, &mut output)?;
/// assert_eq!(output, [4.0, 6.0, 4.0, 6.0, 9.0, 6.0, 4.0, 6.0, 4.0]);
/// # Ok::<(), cnn_kernels::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Depthwise {
    pub(super) isa: Isa,
    pub(super) window: Window,
    pub(super) channels: usize,
    /// Weights of shape `[kernel rows][kernel columns][padded channels]`.
    pub(super) weights: AlignedBuffer,
    /// Bias of shape `[padded channels]`.
    pub(super) bias: AlignedBuffer,
    /// Number of channels, rounded up to whole vectors.
    pub(super) padded_channels: usize,
    pub(super) clamp: Clamp,
}

impl Depthwise {
    /// Packs `weights` of shape `[channels][kernel rows][kernel columns]` and `bias` of shape `[channels]`.
    ///
    /// # Errors
    /// Returns an error if the length of `weights` does not match the kernel and the number of channels, if
    /// there are no channels, or if the kernel or stride is not supported.
    pub fn new(
        isa: Isa,
        window: Window,
        weights: &[f32],
        bias: &[f32],
        clamp: Clamp,
    ) -> Result<Self, ShapeError> {
        let (kernel, stride) = (window.kernel(), window.stride());
        if !matches!((kernel, stride), (3 | 5, 1 | 2)) {
            return Err(ShapeError::UnsupportedDepthwise { kernel, stride });
        }
        let (channels, kernel_area) = (bias.len(), kernel * kernel);
        check_length("weights", checked_volume(&[kernel_area, channels])?, weights.len())?;
        checked_volume(&[window.input().pixel_count(), channels])?;
        checked_volume(&[window.output().pixel_count(), channels])?;
        let padded_channels = channels.next_multiple_of(isa.lane_count());
        let mut packed = AlignedBuffer::zeroed(kernel_area * padded_channels);
        for (channel, kernel) in weights.chunks_exact(kernel_area).enumerate() {
            for (position, weight) in kernel.iter().enumerate() {
                packed[position * padded_channels + channel] = *weight;
            }
        }
        let mut padded_bias = AlignedBuffer::zeroed(padded_channels);
        padded_bias[..channels].copy_from_slice(bias);
        Ok(Self { isa, window, channels, weights: packed, bias: padded_bias, padded_channels, clamp })
    }

    /// Returns the kernel size, stride, padding and image sizes of the convolution.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Returns the number of channels, which is the same for input and output.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }
}
