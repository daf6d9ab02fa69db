//! Implements the convolution of a network's first layer.

use std::ops::Range;

use crate::{
    gemm::{Gemm, LeftMatrix, PackedMatrix, RightRows},
    isa::Isa,
    shape::{Clamp, ShapeError, Window, check_length, check_rows, checked_volume},
};

/// A convolution in which every output channel depends on every input channel, with any window.
///
/// The convolution is optimised for few input channels, as in the first layer of a network, which typically
/// has a 3×3 kernel, stride 2 and the channels red, green and blue. The pixels under a row of the kernel are
/// consecutive in memory, so the matrix product can read them in place.
///
/// # Examples
/// Adds up the pixels of a grey image of 3×3 pixels:
///
/// ```
/// use cnn_kernels::{Clamp, FirstConv, Isa, Pads, Size, Window};
///
/// let window = Window::new(Size { height: 3, width: 3 }, 3, 1, Pads::default())?;
/// let conv = FirstConv::new(Isa::detect(), window, 1, &[1.0; 9], &[0.0], Clamp::NONE)?;
///
/// let mut output = [0.0];
/// conv.run(&[1.0; 9], 0..1, &mut output)?;
/// assert_eq!(output, [9.0]);
/// # Ok::<(), cnn_kernels::ShapeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FirstConv {
    window: Window,
    input_channels: usize,
    matrix: PackedMatrix,
    clamp: Clamp,
}

impl FirstConv {
    /// Packs `weights` of shape `[output channels][input channels][kernel rows][kernel columns]` and `bias`
    /// of shape `[output channels]`.
    ///
    /// # Errors
    /// Returns an error if the length of `weights` does not match the kernel and the numbers of channels, or
    /// if a number of channels is zero.
    pub fn new(
        isa: Isa,
        window: Window,
        input_channels: usize,
        weights: &[f32],
        bias: &[f32],
        clamp: Clamp,
    ) -> Result<Self, ShapeError> {
        let kernel_area = window.kernel() * window.kernel();
        let depth = checked_volume(&[kernel_area, input_channels])?;
        check_length("weights", checked_volume(&[depth, bias.len()])?, weights.len())?;
        checked_volume(&[window.input().pixel_count(), input_channels])?;
        checked_volume(&[window.output().pixel_count(), bias.len()])?;
        let matrix = PackedMatrix::new(isa, depth, bias, |row, column| {
            let (kernel_pixel, channel) = (row / input_channels, row % input_channels);
            weights[(column * input_channels + channel) * kernel_area + kernel_pixel]
        })?;
        Ok(Self { window, input_channels, matrix, clamp })
    }

    /// Returns the kernel size, stride, padding and image sizes of the convolution.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Returns the number of input channels.
    #[must_use]
    pub fn input_channels(&self) -> usize {
        self.input_channels
    }

    /// Returns the number of output channels.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.matrix.width()
    }

    /// Computes the output rows `rows` of the image `input` and writes them to `output`.
    ///
    /// `input` holds the whole image, and `output` only the rows in `rows`.
    ///
    /// # Errors
    /// Returns an error, and writes nothing, if the length of `input` or `output` is wrong, or if `rows` is
    /// not a range of the output's rows.
    pub fn run(&self, input: &[f32], rows: Range<usize>, output: &mut [f32]) -> Result<(), ShapeError> {
        check_length("input", self.window.input().pixel_count() * self.input_channels, input.len())?;
        check_rows(&rows, self.window.output().height)?;
        let row_len = self.window.output().width * self.output_channels();
        check_length("output", rows.len() * row_len, output.len())?;
        for (y, output_row) in rows.zip(output.chunks_exact_mut(row_len)) {
            self.compute_row(input, y, output_row);
        }
        Ok(())
    }

    /// Computes output row `y`.
    ///
    /// Columns at which the kernel reaches into the padding are computed one by one, and all other columns in
    /// one product.
    fn compute_row(&self, input: &[f32], y: usize, output_row: &mut [f32]) {
        let inner_columns = self.window.inner_columns();
        for x in (0..inner_columns.start).chain(inner_columns.end..self.window.output().width) {
            self.compute_columns(input, y, x..x + 1, self.window.kernel_columns(x), output_row);
        }
        self.compute_columns(input, y, inner_columns, 0..self.window.kernel(), output_row);
    }

    /// Computes the output columns `columns` of row `y`.
    ///
    /// At each of these columns, the kernel columns `kernel_columns` are over the image, and the other kernel
    /// columns are over the padding.
    fn compute_columns(
        &self,
        input: &[f32],
        y: usize,
        columns: Range<usize>,
        kernel_columns: Range<usize>,
        output_row: &mut [f32],
    ) {
        let (window, input_channels) = (self.window, self.input_channels);
        let kernel_rows = window.kernel_rows(y);
        // The pixels under a row of the kernel are one run of the left matrix. If the whole kernel is over
        // the padding, there are no runs and the result is the bias.
        let runs_per_row = if kernel_columns.is_empty() { 0 } else { kernel_rows.len() };
        let input_row_len = window.input().width * input_channels;
        let start = if runs_per_row == 0 || columns.is_empty() {
            0
        } else {
            window.input_row(y, kernel_rows.start) * input_row_len
                + window.input_column(columns.start, kernel_columns.start) * input_channels
        };
        let output_channels = self.output_channels();
        Gemm {
            left: LeftMatrix {
                data: &input[start..],
                row_stride: window.stride() * input_channels,
                runs_per_row,
                run_stride: input_row_len,
                run_len: kernel_columns.len() * input_channels,
            },
            row_count: columns.len(),
            right: &self.matrix,
            right_rows: RightRows {
                first_row: (kernel_rows.start * window.kernel() + kernel_columns.start) * input_channels,
                run_stride: window.kernel() * input_channels,
            },
            residual: None,
            clamp: self.clamp,
            output: &mut output_row[columns.start * output_channels..columns.end * output_channels],
        }
        .run();
    }
}
