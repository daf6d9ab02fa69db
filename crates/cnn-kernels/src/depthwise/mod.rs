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
    /// `input` is the whole image; `output` has room for the rows in `rows` only.
    ///
    /// # Errors
    /// Returns an error, and writes nothing, if the length of `input` or `output` is wrong or `rows` are not
    /// inside the output.
    pub fn run(&self, input: &[f32], rows: Range<usize>, output: &mut [f32]) -> Result<(), ShapeError> {
        self.run_on_ring(input, self.window.input().height, rows, output)
    }

    /// Computes the same as [`Self::run`], but from a ring buffer that contains only the last `ring_rows`
    /// rows of the image.
    ///
    /// Row `y` of the image is row `y % ring_rows` of the buffer. The buffer must contain every row that is
    /// under the kernel.
    pub(crate) fn run_on_ring(
        &self,
        input: &[f32],
        ring_rows: usize,
        rows: Range<usize>,
        output: &mut [f32],
    ) -> Result<(), ShapeError> {
        check_length("input", ring_rows * self.window.input().width * self.channels, input.len())?;
        check_rows(&rows, self.window.output().height)?;
        let row_len = self.window.output().width * self.channels;
        check_length("output", rows.len() * row_len, output.len())?;
        let kernel = DepthwiseRows { operator: self, input, ring_rows, rows, output };
        // SAFETY: `Depthwise::new` packed the weights for `self.isa` and accepts only the kernels and strides
        // that `DepthwiseRows` implements. The checks above guarantee that input and output have the lengths
        // that it requires and that `rows` are rows of the output.
        unsafe { self.isa.run(kernel) };
        Ok(())
    }
}
