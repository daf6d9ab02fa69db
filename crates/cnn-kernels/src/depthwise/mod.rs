//! Implements the depthwise convolution, which has a separate kernel for each channel.

mod operator;
mod rows;

pub use operator::Depthwise;

use std::ops::Range;

use crate::shape::{ShapeError, check_length, check_rows};
use rows::DepthwiseRows;

impl Depthwise {
    /// Computes the output rows `rows` of the image `input` and writes them to `output`.
    ///
    /// `input` holds the whole image, and `output` only the rows in `rows`.
    ///
    /// # Errors
    /// Returns an error, and writes nothing, if the length of `input` or `output` is wrong, or if `rows` is
    /// not a range of the output's rows.
    pub fn run(&self, input: &[f32], rows: Range<usize>, output: &mut [f32]) -> Result<(), ShapeError> {
        self.run_on_ring(input, self.window.input().height, rows, output)
    }

    /// Computes the same as [`Self::run`], but reads the image from a ring buffer of `ring_row_count` rows.
    ///
    /// Row `y` of the image is row `y % ring_row_count` of the buffer. The buffer must contain every image
    /// row from which the output rows are computed.
    pub(crate) fn run_on_ring(
        &self,
        input: &[f32],
        ring_row_count: usize,
        rows: Range<usize>,
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        check_length("input", ring_row_count * self.window.input().width * self.channels, input.len())?;
        check_rows(&rows, self.window.output().height)?;
        let row_len = self.window.output().width * self.channels;
        check_length("output", rows.len() * row_len, output.len())?;
        let computation = DepthwiseRows { operator: self, input, ring_row_count, rows, output };
        // SAFETY: `Depthwise::new` packed the weights for `self.isa`. It accepts only the kernels and strides
        // that `DepthwiseRows` implements. The checks above guarantee that input and output have the lengths
        // that `DepthwiseRows` requires and that `rows` is a range of the output's rows.
        unsafe { self.isa.run(computation) };
        Ok(())
    }
}
