//! Implements the loops of the depthwise convolution.
//!
//! Each output row is divided into blocks of up to eight columns. The widths of the blocks differ by at most
//! one. The outputs of a block are computed together: each input pixel is loaded once for all outputs whose
//! kernels cover it, and each weight is loaded once for the whole block. Every output is summed in the same
//! order: first the bias, and then the rows of the kernel one after another.
//!
//! The channels are divided into chunks. With few channels per chunk, the input rows under the kernel stay in
//! the first-level cache from one output row to the next, so each pixel is loaded into that cache only once.

use std::ops::Range;

use super::operator::Depthwise;
use crate::{isa::SimdKernel, vector::Vector};

/// Maximum number of columns in a block, multiplied by the stride: eight columns with stride 1, four with
/// stride 2.
///
/// Eight accumulators and a row of the kernel fit into the registers together. A wider block would also read
/// more separate parts of memory than the hardware can prefetch.
const MAX_BLOCK_SPAN: usize = 8;
/// Height and width of the largest kernel in pixels.
const MAX_KERNEL: usize = 5;
/// Maximum size in bytes of a chunk of the input rows under the kernel. It is most of a first-level cache.
const CHUNK_BYTES: usize = 24 << 10;
/// The number of channels in a chunk is a multiple of 16, because 16 channels fill a cache line.
const CHUNK_STEP: usize = 16;
/// Minimum number of channels in a chunk. With fewer channels, the consecutive parts of memory would be too
/// short for the prefetcher.
const MIN_CHUNK_CHANNELS: usize = 32;

/// The computation of [`Depthwise::run_on_ring`], with its arguments.
pub(super) struct DepthwiseRows<'a> {
    pub(super) operator: &'a Depthwise,
    pub(super) input: &'a [f32],
    pub(super) ring_rows: usize,
    pub(super) rows: Range<usize>,
    pub(super) output: &'a mut [f32],
}

impl SimdKernel for DepthwiseRows<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let window = self.operator.window;
        // SAFETY: the caller guarantees that the CPU supports `V`, that the weights were packed for it, and
        // that the slices have the right lengths. In every arm, `KERNEL` and `STRIDE` equal the kernel and
        // stride of the window, because `Depthwise::new` accepts only kernels of 3 or 5 and strides of 1 or
        // 2.
        unsafe {
            match (window.kernel(), window.stride()) {
                (3, 1) => self.run_window::<V, 3, 1>(),
                (3, _) => self.run_window::<V, 3, 2>(),
                (_, 1) => self.run_window::<V, 5, 1>(),
                (_, _) => self.run_window::<V, 5, 2>(),
            }
        }
    }
}

impl DepthwiseRows<'_> {
    /// Computes the rows for a window with a kernel of `KERNEL` × `KERNEL` pixels and the stride `STRIDE`.
    ///
    /// # Safety
    /// The requirements of [`SimdKernel::run`] hold. `KERNEL` and `STRIDE` equal the kernel and stride of the
    /// operator's window.
    #[inline(always)]
    unsafe fn run_window<V: Vector, const KERNEL: usize, const STRIDE: usize>(self) {
        let channels = self.operator.channels;
        let chunk_channels = self.chunk_channels();
        let output = self.output.as_mut_ptr();
        let mut first_channel = 0;
        while first_channel < channels {
            let chunk = first_channel..channels.min(first_channel + chunk_channels);
            for (index, y) in self.rows.clone().enumerate() {
                let row = self.locate_row(y, index, output);
                // SAFETY: the caller guarantees that the CPU supports `V`, that the weights were packed for
                // it, and that the row's pointers are valid. A chunk begins at a multiple of `CHUNK_STEP`
                // channels, which is a whole number of vectors on every instruction set.
                unsafe { row.run::<V, KERNEL, STRIDE>(chunk.clone()) };
            }
            first_channel = chunk.end;
        }
    }

    /// Returns the number of channels in a chunk.
    fn chunk_channels(&self) -> usize {
        let window = self.operator.window;
        // The rows under the kernel at one output row, and those that the next output row adds.
        let rows = window.kernel() + window.stride();
        let channels = CHUNK_BYTES / (rows * window.input().width * size_of::<f32>());
        let channels = channels / CHUNK_STEP * CHUNK_STEP;
        // With stride 2, consecutive output rows share too few input rows for chunks to be useful.
        let is_undivided = window.stride() > 1 || channels < MIN_CHUNK_CHANNELS;
        if is_undivided { self.operator.channels } else { channels }
    }

    /// Returns the pointers for output row `y`, which is row `index` of `output`.
    #[inline(always)]
    fn locate_row(&self, y: usize, index: usize, output: *mut f32) -> OutputRow<'_> {
        let Depthwise { window, channels, .. } = self.operator;
        let input_row_len = window.input().width * channels;
        let kernel_rows = window.kernel_rows(y);
        let mut sources = [self.input.as_ptr(); MAX_KERNEL];
        for kernel_row in kernel_rows.clone() {
            let row = window.input_row(y, kernel_row) % self.ring_rows;
            sources[kernel_row] = self.input[row * input_row_len..].as_ptr();
        }
        // The pointer stays in bounds, because `index` is less than `self.rows.len()`, which is the number of
        // rows of `output`.
        let output = output.wrapping_add(index * window.output().width * channels);
        OutputRow { operator: self.operator, sources, kernel_rows, output }
    }
}

/// An output row, and the input rows from which it is computed.
struct OutputRow<'a> {
    operator: &'a Depthwise,
    /// Pointers to the input row under each row of the kernel. Only the pointers at the indices `kernel_rows`
    /// are valid.
    sources: [*const f32; MAX_KERNEL],
    /// The kernel rows that are over the image, not over its padding.
    kernel_rows: Range<usize>,
    /// Pointer to the first element of the output row.
    output: *mut f32,
}

impl OutputRow<'_> {
    /// Computes the channels `chunk` of all columns.
    ///
    /// # Safety
    /// The requirements of [`DepthwiseRows::run_window`] hold. `chunk` is a range of the operator's channels
    /// and begins at a multiple of `V::LANES`.
    #[inline(always)]
    unsafe fn run<V: Vector, const KERNEL: usize, const STRIDE: usize>(&self, chunk: Range<usize>) {
        let width = self.operator.window.output().width;
        let blocks = width.div_ceil(MAX_BLOCK_SPAN / STRIDE);
        let mut x = 0;
        for block in 0..blocks {
            let columns = width / blocks + usize::from(block < width % blocks);
            let chunk = chunk.clone();
            // SAFETY: the caller guarantees that the CPU supports `V`, that the weights were packed for it,
            // and that the row's pointers are valid. The blocks together have exactly the columns of the row,
            // so the columns of each block are inside the output.
            unsafe {
                match columns {
                    8 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 8>(x, chunk),
                    7 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 7>(x, chunk),
                    6 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 6>(x, chunk),
                    5 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 5>(x, chunk),
                    4 => self.compute_columns::<V, KERNEL, STRIDE, 4>(x, chunk),
                    3 => self.compute_columns::<V, KERNEL, STRIDE, 3>(x, chunk),
                    // Blocks of one or two columns need not be fast. They occur only in rows of at most five
                    // columns.
                    _ => {
                        for x in x..x + columns {
                            self.compute_columns::<V, KERNEL, STRIDE, 1>(x, chunk.clone());
                        }
                    }
                }
            }
            x += columns;
        }
    }

    /// Computes the channels `chunk` of `COLUMNS` columns, beginning with column `x`.
    ///
    /// # Safety
    /// The requirements of [`Self::run`] hold. The columns are columns of the output.
    #[inline(always)]
    unsafe fn compute_columns<V: Vector, const KERNEL: usize, const STRIDE: usize, const COLUMNS: usize>(
        &self,
        x: usize,
        chunk: Range<usize>,
    ) {
        let inner_columns = self.operator.window.inner_columns();
        let mut channel = chunk.start;
        // SAFETY: the caller guarantees that the CPU supports `V`, that the weights were packed for it, and
        // that the row's pointers are valid. Every call computes only channels of `chunk`. `INNER` is true
        // only if the whole kernel is over the image at all of the call's columns.
        unsafe {
            if inner_columns.start <= x && x + COLUMNS <= inner_columns.end {
                while channel + V::LANES <= chunk.end {
                    self.compute_vector::<V, KERNEL, STRIDE, COLUMNS, true>(x, channel, V::LANES);
                    channel += V::LANES;
                }
            } else {
                while channel + V::LANES <= chunk.end {
                    self.compute_vector::<V, KERNEL, STRIDE, COLUMNS, false>(x, channel, V::LANES);
                    channel += V::LANES;
                }
            }
            if channel < chunk.end {
                for x in x..x + COLUMNS {
                    self.compute_vector::<V, KERNEL, STRIDE, 1, false>(x, channel, chunk.end - channel);
                }
            }
        }
    }

    /// Computes `lanes` channels, beginning with `channel`, of `COLUMNS` columns, beginning with column `x`.
    ///
    /// `lanes` is at most `V::LANES`. If `INNER` is false, the kernel may reach into the padding at the left
    /// and right edges.
    ///
    /// # Safety
    /// The requirements of [`Self::compute_columns`] hold. The `lanes` channels are channels of the operator,
    /// and `channel` is a multiple of `V::LANES`. If `INNER` is true, the kernel does not reach into the left
    /// or right padding at any of the columns.
    #[inline(always)]
    unsafe fn compute_vector<
        V: Vector,
        const KERNEL: usize,
        const STRIDE: usize,
        const COLUMNS: usize,
        const INNER: bool,
    >(
        &self,
        x: usize,
        channel: usize,
        lanes: usize,
    ) {
        let Depthwise { window, channels, weights, bias, padded_channels, clamp, .. } = self.operator;
        let (left, width) = (window.pads().left, window.input().width);
        // Both count columns from the start of the left padding. `first_column` is the first column under the
        // kernels of this block, and `image_columns` are the columns of the image.
        let first_column = x * STRIDE;
        let image_columns = left..left + width;
        // SAFETY: a pixel is loaded only if its column is in the image and its row is one of `kernel_rows`,
        // whose sources are valid rows of the input. Each load and each store accesses `lanes` elements,
        // which are channels of a single pixel. Weights and bias are padded to whole vectors. The caller
        // guarantees that the CPU supports `V` and that the weights and the bias were packed for `V`.
        unsafe {
            let mut sums = [V::load(bias.as_ptr().add(channel)); COLUMNS];
            for kernel_row in self.kernel_rows.clone() {
                let first_weight = weights.as_ptr().add(kernel_row * KERNEL * padded_channels + channel);
                let mut row_weights = [V::splat(0.0); KERNEL];
                for (kernel_column, weight) in row_weights.iter_mut().enumerate() {
                    *weight = V::load(first_weight.add(kernel_column * padded_channels));
                }
                // If the kernel reaches into the padding, this pointer may be outside the row. It is only
                // dereferenced inside the row.
                let source = self.sources[kernel_row].wrapping_add(first_column * channels + channel);
                let source = source.wrapping_sub(left * channels);
                for column in 0..(COLUMNS - 1) * STRIDE + KERNEL {
                    if !INNER && !image_columns.contains(&(first_column + column)) {
                        continue;
                    }
                    let source = source.wrapping_add(column * channels);
                    let pixel = if lanes < V::LANES { V::load_first(source, lanes) } else { V::load(source) };
                    // Adds the pixel to each output whose kernel covers it.
                    for (index, sum) in sums.iter_mut().enumerate() {
                        let kernel_column = column.checked_sub(index * STRIDE);
                        if let Some(weight) = kernel_column.and_then(|column| row_weights.get(column)) {
                            *sum = pixel.mul_add(*weight, *sum);
                        }
                    }
                }
            }
            let (lo, hi) = (V::splat(clamp.lo), V::splat(clamp.hi));
            let target = self.output.add(x * channels + channel);
            for (index, sum) in sums.iter().enumerate() {
                // `max` and `min` return their second operand if one of them is NaN, so a NaN sum stays NaN.
                let value = hi.min(lo.max(*sum));
                let target = target.add(index * channels);
                if lanes < V::LANES { value.store_first(target, lanes) } else { value.store(target) }
            }
        }
    }
}
