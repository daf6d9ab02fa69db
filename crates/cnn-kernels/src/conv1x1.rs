//! Implements the 1×1 convolution.

use crate::{
    gemm::{Gemm, LeftMatrix, PackedMatrix, RightRows},
    isa::Isa,
    shape::{Clamp, ShapeError, check_length},
};

/// A 1×1 convolution with its weights packed for one instruction set.
///
/// A fully connected layer is a 1×1 convolution of an image that has a single pixel.
///
/// # Examples
/// Computes three output channels from two input channels, for an image of two pixels:
///
/// ```
/// use cnn_kernels::{Clamp, Isa, PackedConv1x1};
///
/// let weights = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0]; // [output channels][input channels]
/// let bias = [0.0, 0.0, -10.0];
/// let conv = PackedConv1x1::new(Isa::detect(), 2, &weights, &bias, Clamp::RELU)?;
///
/// let mut output = [0.0; 6];
/// conv.run(&[1.0, 2.0, 5.0, 7.0], None, &mut output)?;
/// assert_eq!(output, [1.0, 2.0, 0.0, 5.0, 7.0, 2.0]);
/// # Ok::<(), cnn_kernels::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PackedConv1x1 {
    matrix: PackedMatrix,
    clamp: Clamp,
}

impl PackedConv1x1 {
    /// Packs `weights` of shape `[output channels][input channels]` and `bias` of shape `[output channels]`.
    ///
    /// # Errors
    /// Returns an error if the length of `weights` does not match the numbers of channels, or if a number of
    /// channels is zero.
    pub fn new(
        isa: Isa,
        input_channels: usize,
        weights: &[f32],
        bias: &[f32],
        clamp: Clamp,
    ) -> Result<Self, ShapeError> {
        Ok(Self { matrix: PackedMatrix::from_columns(isa, input_channels, weights, bias)?, clamp })
    }

    /// Returns the number of input channels.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        self.matrix.depth()
    }

    /// Returns the number of output channels.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.matrix.width()
    }

    /// Computes `output = clamp(weights · input + bias + residual)` for each pixel of `input`.
    ///
    /// The residual, if any, has the shape of the output. `input` may be a part of an image. Computing the
    /// parts of an image separately gives bit-identical results.
    ///
    /// # Errors
    /// Returns an error, and writes nothing, if `input`, `residual` and `output` do not all hold the same
    /// whole number of pixels.
    pub fn run(&self, input: &[f32], residual: Option<&[f32]>, output: &mut [f32]) -> Result<(), ShapeError> {
        let pixel_count = input.len() / self.input_channels();
        check_length("input", pixel_count * self.input_channels(), input.len())?;
        let expected = pixel_count.checked_mul(self.output_channels()).ok_or(ShapeError::TooLarge)?;
        check_length("output", expected, output.len())?;
        if let Some(residual) = residual {
            check_length("residual", expected, residual.len())?;
        }
        Gemm {
            left: LeftMatrix::contiguous(input, self.input_channels()),
            row_count: pixel_count,
            right: &self.matrix,
            right_rows: RightRows::ALL,
            residual,
            clamp: self.clamp,
            output,
        }
        .run();
        Ok(())
    }
}
