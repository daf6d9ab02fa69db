//! Implements the loops of the depthwise convolution.
//!
//! A row of the output is divided into runs of up to eight columns, whose lengths differ by at most one. The
//! outputs of a run are computed together: each pixel is loaded once for all outputs whose kernels cover it,
//! and each weight is loaded once for the run. Every output is summed in the same order: first the bias,
//! and then the rows of the kernel one after another.
//!
//! The channels are divided into slices. A slice is so narrow that the rows under the kernel stay in the
//! first-level cache from one output row to the next. Each pixel is then loaded into that cache only once.

use std::ops::Range;

use super::operator::Depthwise;
use crate::{isa::Kernel, vector::Vector};

/// Maximum number of input columns that the outputs of a run span: eight outputs with stride 1, four with
/// stride 2.
///
/// Up to eight accumulators and a row of the kernel fit into the registers together. A run of this length
/// also reads no more separate parts of memory than the hardware can prefetch.
const MAX_RUN_SPAN: usize = 8;
/// Side of the largest kernel in pixels.
const MAX_KERNEL: usize = 5;
/// Maximum size in bytes of the rows under the kernel in a slice, which is most of a first-level cache.
const SLICE_BYTES: usize = 24 << 10;
/// The number of channels in a slice is a multiple of this number of channels, which fill a cache line.
const SLICE_STEP: usize = 16;
/// Minimum number of channels in a slice.
///
/// With fewer channels, the consecutive parts of memory would be too short for the prefetcher. One slice then
/// has all channels. With stride 2, one slice also has all channels, because consecutive output rows share
/// few input rows.
const MIN_SLICE_CHANNELS: usize = 32;

/// The rows of a depthwise convolution that a kernel computes; see [`Depthwise::run_on_ring`].
pub(super) struct DepthwiseRows<'a> {
    pub(super) operator: &'a Depthwise,
    pub(super) input: &'a [f32],
    pub(super) ring_rows: usize,
    pub(super) rows: Range<usize>,
    pub(super) output: &'a mut [f32],
}

impl Kernel for DepthwiseRows<'_> {
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
    /// The requirements of [`Kernel::run`] hold. `KERNEL` and `STRIDE` equal the kernel and stride of the
    /// operator's window.
    #[inline(always)]
    unsafe fn run_window<V: Vector, const KERNEL: usize, const STRIDE: usize>(self) {
        let channels = self.operator.channels;
        let slice_channels = self.slice_channels();
        let output = self.output.as_mut_ptr();
        let mut first = 0;
        while first < channels {
            let slice = first..channels.min(first + slice_channels);
            for (index, y) in self.rows.clone().enumerate() {
                let row = self.locate_row(y, index, output);
                // SAFETY: the caller guarantees that the CPU supports `V`, that the weights were packed for
                // it, and that the row is valid. A slice begins at a multiple of `SLICE_STEP` channels, which
                // is a whole number of vectors of every instruction set.
                unsafe { row.run::<V, KERNEL, STRIDE>(slice.clone()) };
            }
            first = slice.end;
        }
    }

    /// Returns the number of channels in a slice.
    fn slice_channels(&self) -> usize {
        let window = self.operator.window;
        let rows = window.kernel() + window.stride();
        let slice = SLICE_BYTES / (rows * window.input().width * size_of::<f32>());
        let slice = slice / SLICE_STEP * SLICE_STEP;
        let is_whole = window.stride() > 1 || slice < MIN_SLICE_CHANNELS;
        if is_whole { self.operator.channels } else { slice }
    }

    /// Returns the pointers for output row `y`, which is row `index` of `output`.
    #[inline(always)]
    fn locate_row(&self, y: usize, index: usize, output: *mut f32) -> Row<'_> {
        let Depthwise { window, channels, .. } = self.operator;
        let pitch = window.input().width * channels;
        let kernel_rows = window.kernel_rows(y);
        let mut sources = [self.input.as_ptr(); MAX_KERNEL];
        for tap in kernel_rows.clone() {
            let row = window.input_row(y, tap) % self.ring_rows;
            sources[tap] = self.input[row * pitch..].as_ptr();
        }
        // The pointer stays in bounds, because `output` has a row for each of `self.rows`, and `index` is
        // less than their number.
        let output = output.wrapping_add(index * window.output().width * channels);
        Row { operator: self.operator, sources, kernel_rows, output }
    }
}

/// A row of the output that is to be computed.
struct Row<'a> {
    operator: &'a Depthwise,
    /// The input row under each row of the kernel. Only the pointers of `kernel_rows` are valid.
    sources: [*const f32; MAX_KERNEL],
    /// The kernel's rows that are over the image, not over its padding.
    kernel_rows: Range<usize>,
    /// The first element of the output row.
    output: *mut f32,
}

impl Row<'_> {
    /// Computes the channels in `slice` of all columns.
    ///
    /// # Safety
    /// The requirements of [`DepthwiseRows::run_window`] hold. `slice` is inside the channels and begins at a
    /// multiple of a vector.
    #[inline(always)]
    unsafe fn run<V: Vector, const KERNEL: usize, const STRIDE: usize>(&self, slice: Range<usize>) {
        let width = self.operator.window.output().width;
        let runs = width.div_ceil(MAX_RUN_SPAN / STRIDE);
        let mut x = 0;
        for run in 0..runs {
            let columns = width / runs + usize::from(run < width % runs);
            let slice = slice.clone();
            // SAFETY: the caller guarantees that the CPU supports `V`, that the weights were packed for it,
            // and that the row is valid. The runs together have exactly the columns of the row, so the
            // columns of each run are inside the output.
            unsafe {
                match columns {
                    8 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 8>(x, slice),
                    7 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 7>(x, slice),
                    6 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 6>(x, slice),
                    5 if STRIDE == 1 => self.compute_columns::<V, KERNEL, STRIDE, 5>(x, slice),
                    4 => self.compute_columns::<V, KERNEL, STRIDE, 4>(x, slice),
                    3 => self.compute_columns::<V, KERNEL, STRIDE, 3>(x, slice),
                    // Runs of one or two columns occur only in rows of at most five columns.
                    _ => {
                        for x in x..x + columns {
                            self.compute_columns::<V, KERNEL, STRIDE, 1>(x, slice.clone());
                        }
                    }
                }
            }
            x += columns;
        }
    }

    /// Computes the channels in `slice` of `COLUMNS` columns, beginning with column `x`.
    ///
    /// # Safety
    /// The requirements of [`Self::run`] hold. The columns are inside the output.
    #[inline(always)]
    unsafe fn compute_columns<V: Vector, const KERNEL: usize, const STRIDE: usize, const COLUMNS: usize>(
        &self,
        x: usize,
        slice: Range<usize>,
    ) {
        let inner = self.operator.window.inner_columns();
        let mut channel = slice.start;
        // SAFETY: the caller guarantees that the CPU supports `V`, that the weights were packed for it, and
        // that the row is valid. Every call covers only channels inside `slice`, and `INNER` is true only if
        // the whole kernel is over the image for all of its columns.
        unsafe {
            if inner.start <= x && x + COLUMNS <= inner.end {
                while channel + V::LANES <= slice.end {
                    self.compute_vector::<V, KERNEL, STRIDE, COLUMNS, true>(x, channel, V::LANES);
                    channel += V::LANES;
                }
            } else {
                while channel + V::LANES <= slice.end {
                    self.compute_vector::<V, KERNEL, STRIDE, COLUMNS, false>(x, channel, V::LANES);
                    channel += V::LANES;
                }
            }
            if channel < slice.end {
                for x in x..x + COLUMNS {
                    self.compute_vector::<V, KERNEL, STRIDE, 1, false>(x, channel, slice.end - channel);
                }
            }
        }
    }

    /// Computes `lanes` channels, beginning with `channel`, of `COLUMNS` columns, beginning with column `x`.
    ///
    /// `lanes` is at most the number of lanes in a vector. If `INNER` is false, the kernels may reach into
    /// the padding at the left and right edges.
    ///
    /// # Safety
    /// The requirements of [`Self::compute_columns`] hold. The `lanes` channels are inside the image, and
    /// `channel` is a multiple of a vector. If `INNER` is true, the kernels' columns are all over the image.
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
        // The first column under the kernels, counted from the start of the left padding.
        let begin = x * STRIDE;
        let image = left..left + width;
        // SAFETY: a pixel is loaded only if its column is inside the image and its row is in `kernel_rows`,
        // whose sources are valid rows of the input. Of the input and output, only `lanes` elements are read
        // or written, all of which are channels of one pixel. Weights and bias are padded to whole vectors.
        // The caller guarantees that the CPU supports `V` and that they were packed for it.
        unsafe {
            let mut sums = [V::load(bias.as_ptr().add(channel)); COLUMNS];
            for kernel_row in self.kernel_rows.clone() {
                let first_weight = weights.as_ptr().add(kernel_row * KERNEL * padded_channels + channel);
                let mut row_weights = [V::splat(0.0); KERNEL];
                for (tap, weight) in row_weights.iter_mut().enumerate() {
                    *weight = V::load(first_weight.add(tap * padded_channels));
                }
                // Where the kernel is over the padding, the pointer is outside the row and is not
                // dereferenced.
                let source = self.sources[kernel_row].wrapping_add(begin * channels + channel);
                let source = source.wrapping_sub(left * channels);
                for column in 0..(COLUMNS - 1) * STRIDE + KERNEL {
                    if !INNER && !image.contains(&(begin + column)) {
                        continue;
                    }
                    let source = source.wrapping_add(column * channels);
                    let pixel = if lanes < V::LANES { V::load_first(source, lanes) } else { V::load(source) };
                    // The pixel is under the kernels of several outputs, at a different tap of each.
                    for (index, sum) in sums.iter_mut().enumerate() {
                        if let Some(weight) =
                            column.checked_sub(index * STRIDE).and_then(|tap| row_weights.get(tap))
                        {
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
                if lanes < V::LANES { value.store_first(target, lanes) } else { value.store(target) }
            }
        }
    }
}
