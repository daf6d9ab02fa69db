//! The 1×1 convolution.

use crate::{
    gemm::{Depth, Gemm, Left, PackedMatrix},
    isa::Isa,
    shape::{Clamp, ShapeError, check_length},
};

/// A 1×1 convolution with its weights packed for one instruction set; also the classifier, whose image
/// is a single pixel.
#[derive(Clone, Debug)]
pub struct PackedConv1x1 {
    matrix: PackedMatrix,
    clamp: Clamp,
}

impl PackedConv1x1 {
    /// Packs `weights` `[output channels][channels]` and `bias` `[output channels]`.
    ///
    /// # Errors
    /// `weights` is not as long as the channels say, or a number of channels is zero.
    pub fn new(
        isa: Isa,
        channels: usize,
        weights: &[f32],
        bias: &[f32],
        clamp: Clamp,
    ) -> Result<Self, ShapeError> {
        Ok(Self { matrix: PackedMatrix::from_columns(isa, channels, weights, bias)?, clamp })
    }

    /// Channels of the input.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.matrix.depth()
    }

    /// Channels of the output.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.matrix.width()
    }

    /// `output = clamp(weights · input + bias + residual)`, pixel by pixel; there are as many pixels
    /// as `input` has. Any part of an image may be given, and a pixel's result is the same bits in
    /// whatever part it comes.
    ///
    /// # Errors
    /// A slice is not the same whole number of pixels as the others. Nothing is written then.
    pub fn run(&self, input: &[f32], residual: Option<&[f32]>, output: &mut [f32]) -> Result<(), ShapeError> {
        let pixels = input.len() / self.channels();
        check_length("input", pixels * self.channels(), input.len())?;
        let expected = pixels.checked_mul(self.output_channels()).ok_or(ShapeError::TooLarge)?;
        check_length("output", expected, output.len())?;
        if let Some(residual) = residual {
            check_length("residual", expected, residual.len())?;
        }
        Gemm {
            left: Left::dense(input, self.channels()),
            rows: pixels,
            right: &self.matrix,
            depth: Depth { first: 0, run_stride: 0 },
            residual,
            clamp: self.clamp,
            output,
        }
        .run();
        Ok(())
    }
}
