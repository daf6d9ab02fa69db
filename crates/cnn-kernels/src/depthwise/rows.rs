//! Implements the loops of the depthwise convolution.
//!
//! Each output row is divided into blocks of up to eight columns, whose widths differ by at most one. The
//! outputs of a block are computed together: each input pixel and each weight is loaded only once for the
//! whole block. Every output is summed in the same order: first the bias, and then the rows of the kernel one
//! after another.
//!
//! The channels are divided into chunks. With few channels per chunk, the input rows under the kernel stay in
//! the first-level cache from one output row to the next, so each pixel is loaded into that cache only once.

use std::ops::Range;

use super::operator::Depthwise;
use crate::{isa::SimdKernel, vector::Vector};

/// Maximum number of columns in a block, multiplied by the stride: eight columns with stride 1, four with
/// stride 2.
///
/// Eight accumulators, a row of five weights and a pixel fit into 16 registers. A wider block would also read
/// more separate parts of memory than the hardware can prefetch.
const MAX_BLOCK_SPAN: usize = 8;
/// Height and width of the largest kernel in pixels.
const MAX_KERNEL: usize = 5;
/// Maximum size in bytes of the input rows under the kernel, restricted to the channels of one chunk. It is
/// three quarters of a first-level cache of 32 KiB.
const MAX_CHUNK_BYTES: usize = 24 << 10;
/// Number of channels that fill a cache line. Every chunk begins at a multiple of this number.
const CHANNELS_PER_CACHE_LINE: usize = 16;
/// Minimum number of channels in a chunk. With fewer channels, the consecutive parts of memory would be too
/// short for the prefetcher, so the channels are not divided.
const MIN_CHUNK_CHANNELS: usize = 32;

/// The computation of [`Depthwise::run_on_ring`]. The fields are that function's arguments.
pub(super) struct DepthwiseRows<'a> {
    pub(super) operator: &'a Depthwise,
    pub(super) input: &'a [f32],
    pub(super) ring_row_count: usize,
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
                // it, and that the row's pointers are valid. A chunk begins at a multiple of
                // `CHANNELS_PER_CACHE_LINE` channels, which is a whole number of vectors on every instruction
                // set.
                unsafe { row.run::<V, KERNEL, STRIDE>(chunk.clone()) };
            }
            first_channel = chunk.end;
        }
    }

    /// Returns the number of channels in a chunk.
    fn chunk_channels(&self) -> usize {
        let window = self.operator.window;
        // The input rows from which an output row is computed, and those that the next output row adds.
        let input_row_count = window.kernel() + window.stride();
        let channels = MAX_CHUNK_BYTES / (input_row_count * window.input().width * size_of::<f32>());
        let channels = channels / CHANNELS_PER_CACHE_LINE * CHANNELS_PER_CACHE_LINE;
        // With stride 2, consecutive output rows have too few input rows in common for chunks to be useful.
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
            let row = window.input_row(y, kernel_row) % self.ring_row_count;
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
        let block_count = width.div_ceil(MAX_BLOCK_SPAN / STRIDE);
        let mut x = 0;
        for block in 0..block_count {
            let column_count = width / block_count + usize::from(block < width % block_count);
            let chunk = chunk.clone();
            // SAFETY: the caller guarantees that the CPU supports `V`, that the weights were packed for it,
            // and that the row's pointers are valid. The blocks together have exactly the columns of the row,
            // so the columns of each block are inside the output.
            unsafe {
                match column_count {
                    8 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 8>(x, chunk),
                    7 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 7>(x, chunk),
                    6 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 6>(x, chunk),
                    5 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 5>(x, chunk),
                    4 => self.compute_columns::<V, KERNEL, STRIDE, 4>(x, chunk),
                    3 => self.compute_columns::<V, KERNEL, STRIDE, 3>(x, chunk),
                    // Blocks of one or two columns need not be fast. They occur only in rows of at most five
                    // columns.
                    _ => {
                        for x in x..x + column_count {
                            self.compute_columns::<V, KERNEL, STRIDE, 1>(x, chunk.clone());
                        }
                    }
                }
            }
            x += column_count;
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

    /// Computes `lane_count` channels, beginning with `channel`, of `COLUMNS` columns, beginning with column
    /// `x`.
    ///
    /// `lane_count` is at most `V::LANES`. If `INNER` is false, the kernel may reach into the padding at the
    /// left and right edges.
    ///
    /// # Safety
    /// The requirements of [`Self::compute_columns`] hold. The `lane_count` channels are channels of the
    /// operator, and `channel` is a multiple of `V::LANES`. If `INNER` is true, the kernel does not reach
    /// into the left or right padding at any of the columns.
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
        lane_count: usize,
    ) {
        let Depthwise { window, channels, weights, bias, padded_channels, clamp, .. } = self.operator;
        let (left, width) = (window.pads().left, window.input().width);
        // `first_column` is the first column under the kernel at output column `x`, and `image_columns` are
        // the columns of the image. Both are counted from the start of the left padding.
        let first_column = x * STRIDE;
        let image_columns = left..left + width;
        // SAFETY: a pixel is loaded only if its column is in the image and its row is one of `kernel_rows`,
        // whose sources are valid rows of the input. Each load and each store accesses `lane_count` elements,
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
                // If the kernel reaches into the padding, this pointer may be outside the row. The loop below
                // loads only columns that are inside the row.
                let source = self.sources[kernel_row].wrapping_add(first_column * channels + channel);
                let source = source.wrapping_sub(left * channels);
                for column in 0..(COLUMNS - 1) * STRIDE + KERNEL {
                    if !INNER && !image_columns.contains(&(first_column + column)) {
                        continue;
                    }
                    let source = source.wrapping_add(column * channels);
                    let pixel = if lane_count < V::LANES {
                        V::load_first(source, lane_count)
                    } else {
                        V::load(source)
                    };
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
                // `max` and `min` return their second operand if either is NaN, so a NaN sum stays NaN.
                let value = hi.min(lo.max(*sum));
                let target = target.add(index * channels);
                if lane_count < V::LANES {
                    value.store_first(target, lane_count)
                } else {
                    value.store(target)
                }
            }
        }
    }
}
