//! Implements the dense convolution of a network's first layer.

use std::ops::Range;

use crate::{
    gemm::{Gemm, LeftMatrix, PackedMatrix, RightRows},
    isa::Isa,
    shape::{Clamp, ShapeError, Window, check_length, check_rows, checked_volume},
};

/// A dense convolution with any window and any number of channels.
///
/// The convolution is optimised for few input channels, as in the first layer of a network, which is
/// typically 3×3 with stride 2 on red, green and blue. The pixels under one row of the kernel are consecutive
/// in memory, so the matrix product reads the image in place, one run per row of the kernel.
///
/// # Examples
/// Sums up a grey image of 3×3 pixels:
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
    channels: usize,
    matrix: PackedMatrix,
    clamp: Clamp,
}

impl FirstConv {
    /// Packs `weights` of shape `[output channels][channels][kernel rows][kernel columns]` and `bias` of
    /// shape `[output channels]`.
    ///
    /// # Errors
    /// Returns an error if the length of `weights` does not match the sizes, or a number of channels is zero.
    pub fn new(
        isa: Isa,
        window: Window,
        channels: usize,
        weights: &[f32],
        bias: &[f32],
        clamp: Clamp,
    ) -> Result<Self, ShapeError> {
        let taps = window.kernel() * window.kernel();
        let depth = checked_volume(&[taps, channels])?;
        check_length("weights", checked_volume(&[depth, bias.len()])?, weights.len())?;
        checked_volume(&[window.input().pixels(), channels])?;
        checked_volume(&[window.output().pixels(), bias.len()])?;
        let matrix = PackedMatrix::new(isa, depth, bias, |row, column| {
            let (tap, channel) = (row / channels, row % channels);
            weights[(column * channels + channel) * taps + tap]
        })?;
        Ok(Self { window, channels, matrix, clamp })
    }

    /// Returns the window.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Returns the number of input channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Returns the number of output channels.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.matrix.width()
    }

    /// Computes the output rows `rows` of the image `input` and writes them to `output`.
    ///
    /// `input` is the whole image; `output` has room for the rows in `rows` only.
    ///
    /// # Errors
    /// Returns an error, and writes nothing, if the length of `input` or `output` is wrong or `rows` are not
    /// inside the output.
    pub fn run(&self, input: &[f32], rows: Range<usize>, output: &mut [f32]) -> Result<(), ShapeError> {
        check_length("input", self.window.input().pixels() * self.channels, input.len())?;
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
    /// Columns whose kernel reaches into the padding are computed one by one, and all other columns at once.
    fn compute_row(&self, input: &[f32], y: usize, output_row: &mut [f32]) {
        let inner = self.window.inner_columns();
        for x in (0..inner.start).chain(inner.end..self.window.output().width) {
            self.compute_columns(input, y, x..x + 1, self.window.kernel_columns(x), output_row);
        }
        self.compute_columns(input, y, inner, 0..self.window.kernel(), output_row);
    }

    /// Computes the output columns `xs` of row `y`. The kernel's columns `taps` are over the image, and
    /// its other columns are over the padding.
    fn compute_columns(
        &self,
        input: &[f32],
        y: usize,
        xs: Range<usize>,
        taps: Range<usize>,
        output_row: &mut [f32],
    ) {
        let (window, channels) = (self.window, self.channels);
        let kernel_rows = window.kernel_rows(y);
        // If the whole kernel is over the padding, there are no runs and the result is the bias.
        let runs = if taps.is_empty() { 0 } else { kernel_rows.len() };
        let pitch = window.input().width * channels;
        let start = if runs == 0 || xs.is_empty() {
            0
        } else {
            window.input_row(y, kernel_rows.start) * pitch
                + window.input_column(xs.start, taps.start) * channels
        };
        let width = self.output_channels();
        Gemm {
            left: LeftMatrix {
                data: &input[start..],
                row_stride: window.stride() * channels,
                runs,
                run_stride: pitch,
                run_len: taps.len() * channels,
            },
            rows: xs.len(),
            right: &self.matrix,
            right_rows: RightRows {
                first: (kernel_rows.start * window.kernel() + taps.start) * channels,
                run_stride: window.kernel() * channels,
            },
            residual: None,
            clamp: self.clamp,
            output: &mut output_row[xs.start * width..xs.end * width],
        }
        .run();
    }
}
