//! The dense convolution, made for a network's first layer.

use std::ops::Range;

use crate::{
    gemm::{Depth, Gemm, Left, PackedMatrix},
    isa::Isa,
    shape::{Clamp, ShapeError, Window, check_length, check_rows, volume},
};

/// A dense convolution of few channels, as a network's first layer is (3×3, stride 2, on red, green and
/// blue): any window, any number of channels.
///
/// The pixels of a row under the kernel are consecutive in memory, so the product of pixels and weights
/// reads the image in place, a run for each row of the kernel.
#[derive(Clone, Debug)]
pub struct FirstConv {
    window: Window,
    channels: usize,
    matrix: PackedMatrix,
    clamp: Clamp,
}

impl FirstConv {
    /// Packs `weights` `[output channels][channels][kernel rows][kernel columns]` and `bias`
    /// `[output channels]`.
    ///
    /// # Errors
    /// `weights` is not as long as the sizes say, or a number of channels is zero.
    pub fn new(
        isa: Isa,
        window: Window,
        channels: usize,
        weights: &[f32],
        bias: &[f32],
        clamp: Clamp,
    ) -> Result<Self, ShapeError> {
        let taps = window.kernel() * window.kernel();
        let depth = volume(&[taps, channels])?;
        check_length("weights", volume(&[depth, bias.len()])?, weights.len())?;
        volume(&[window.input().pixels(), channels])?;
        volume(&[window.output().pixels(), bias.len()])?;
        let matrix = PackedMatrix::new(isa, depth, bias, |row, column| {
            let (tap, channel) = (row / channels, row % channels);
            weights[(column * channels + channel) * taps + tap]
        })?;
        Ok(Self { window, channels, matrix, clamp })
    }

    /// The window that it was made for.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// Channels of the input.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Channels of the output.
    #[must_use]
    pub fn output_channels(&self) -> usize {
        self.matrix.width()
    }

    /// Computes the output rows `rows` of the whole image `input` into `output`, which is those rows.
    ///
    /// # Errors
    /// `input` is not the whole image, `rows` are not inside the output, or `output` is not as long as
    /// they are. Nothing is written then.
    pub fn run(&self, input: &[f32], rows: Range<usize>, output: &mut [f32]) -> Result<(), ShapeError> {
        check_length("input", self.window.input().pixels() * self.channels, input.len())?;
        check_rows(&rows, self.window.output().height)?;
        let row_len = self.window.output().width * self.output_channels();
        check_length("output", rows.len() * row_len, output.len())?;
        for (y, output_row) in rows.zip(output.chunks_exact_mut(row_len)) {
            self.row(input, y, output_row);
        }
        Ok(())
    }

    /// Output row `y`: the columns at the edges one by one, those between in one go.
    fn row(&self, input: &[f32], y: usize, output_row: &mut [f32]) {
        let inner = self.window.inner_columns();
        for x in (0..inner.start).chain(inner.end..self.window.output().width) {
            self.columns(input, y, x..x + 1, self.window.kernel_columns(x), output_row);
        }
        self.columns(input, y, inner, 0..self.window.kernel(), output_row);
    }

    /// The output columns `xs` of row `y`, where just the kernel's columns `taps` meet the image.
    fn columns(&self, input: &[f32], y: usize, xs: Range<usize>, taps: Range<usize>, output_row: &mut [f32]) {
        let (window, channels) = (self.window, self.channels);
        let kernel_rows = window.kernel_rows(y);
        // Wholly in the padding: only the bias is left.
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
            left: Left {
                data: &input[start..],
                row_stride: window.stride() * channels,
                runs,
                run_stride: pitch,
                run_len: taps.len() * channels,
            },
            rows: xs.len(),
            right: &self.matrix,
            depth: Depth {
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
