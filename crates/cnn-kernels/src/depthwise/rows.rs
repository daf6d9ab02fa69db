//! The loops of the depthwise convolution.
//!
//! A row of the output is cut into runs of up to eight columns, as even as can be, and a run is computed
//! as a whole: a loaded pixel serves all the outputs whose kernels cover it, and a loaded weight serves
//! them all. Every output is the same chain of multiply-adds from the bias on, row by row of the kernel.
//!
//! The channels are cut into slices so narrow that the rows under the kernel stay in the first-level
//! cache from one output row to the next: every pixel comes from farther away just once.

use std::ops::Range;

use super::Depthwise;
use crate::{isa::Kernel, vector::Vector};

/// Input columns that the outputs of the longest run are apart: as many accumulators as that are in
/// registers at once with a row of the kernel, and no more places in memory are read at a time than can
/// be fetched ahead.
const LONGEST_RUN: usize = 8;
/// The largest kernel, in pixels.
const LARGEST_KERNEL: usize = 5;
/// Bytes of a slice's rows under the kernel: most of a first-level cache.
const SLICE_BYTES: usize = 24 << 10;
/// Slices are whole cache lines of channels.
const SLICE_STEP: usize = 16;
/// Channels of the narrowest slice. Of narrower ones memory would be read in pieces too far apart to
/// be fetched ahead; the channels are then taken all at once. So they are with stride 2, where an
/// output row has little to do with the next.
const NARROWEST_SLICE: usize = 32;

/// Rows of a depthwise convolution; see [`Depthwise::run_on_ring`].
pub(super) struct DepthwiseRows<'a> {
    pub(super) operator: &'a Depthwise,
    pub(super) input: &'a [f32],
    pub(super) ring: usize,
    pub(super) rows: Range<usize>,
    pub(super) output: &'a mut [f32],
}

impl Kernel for DepthwiseRows<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let window = self.operator.window;
        // SAFETY: the caller's promise; `Depthwise::new` lets no other kernels in.
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
    /// # Safety
    /// As [`Kernel::run`]; the kernel is `KERNEL` pixels wide and moves by `STRIDE`.
    #[inline(always)]
    unsafe fn run_window<V: Vector, const KERNEL: usize, const STRIDE: usize>(self) {
        let channels = self.operator.channels;
        let slice = self.slice();
        let output = self.output.as_mut_ptr();
        let mut first = 0;
        while first < channels {
            let slice = first..channels.min(first + slice);
            for (index, y) in self.rows.clone().enumerate() {
                let row = self.row(y, index, output);
                // SAFETY: the caller's promise; a slice begins at a whole number of vectors.
                unsafe { row.run::<V, KERNEL, STRIDE>(slice.clone()) };
            }
            first = slice.end;
        }
    }

    /// Channels that are taken at once.
    fn slice(&self) -> usize {
        let window = self.operator.window;
        let rows = window.kernel() + window.stride();
        let slice = SLICE_BYTES / (rows * window.input().width * size_of::<f32>());
        let slice = slice / SLICE_STEP * SLICE_STEP;
        let is_whole = window.stride() > 1 || slice < NARROWEST_SLICE;
        if is_whole { self.operator.channels } else { slice }
    }

    /// Row `y`, which is row `index` of `output`.
    #[inline(always)]
    fn row(&self, y: usize, index: usize, output: *mut f32) -> Row<'_> {
        let Depthwise { window, channels, .. } = self.operator;
        let pitch = window.input().width * channels;
        let kernel_rows = window.kernel_rows(y);
        let mut sources = [self.input.as_ptr(); LARGEST_KERNEL];
        for tap in kernel_rows.clone() {
            let row = window.input_row(y, tap) % self.ring;
            sources[tap] = self.input[row * pitch..].as_ptr();
        }
        // Inside of `output`, which has a row for each of `rows`.
        let output = output.wrapping_add(index * window.output().width * channels);
        Row { operator: self.operator, sources, kernel_rows, output }
    }
}

/// A row of the output.
struct Row<'a> {
    operator: &'a Depthwise,
    /// The input row under each row of the kernel; only those of `kernel_rows` are set.
    sources: [*const f32; LARGEST_KERNEL],
    /// The kernel's rows that meet the image.
    kernel_rows: Range<usize>,
    output: *mut f32,
}

impl Row<'_> {
    /// The channels `slice` of all columns.
    ///
    /// # Safety
    /// As [`DepthwiseRows::run_window`]; the slice begins at a whole vector of the channels.
    #[inline(always)]
    unsafe fn run<V: Vector, const KERNEL: usize, const STRIDE: usize>(&self, slice: Range<usize>) {
        let width = self.operator.window.output().width;
        let runs = width.div_ceil(LONGEST_RUN / STRIDE);
        let mut x = 0;
        for run in 0..runs {
            let columns = width / runs + usize::from(run < width % runs);
            let slice = slice.clone();
            // SAFETY: the caller's promise; the columns of all runs together are those of the row.
            unsafe {
                match columns {
                    8 if STRIDE == 1 => self.columns::<V, KERNEL, STRIDE, 8>(x, slice),
                    7 if STRIDE == 1 => self.columns::<V, KERNEL, STRIDE, 7>(x, slice),
                    6 if STRIDE == 1 => self.columns::<V, KERNEL, STRIDE, 6>(x, slice),
                    5 if STRIDE == 1 => self.columns::<V, KERNEL, STRIDE, 5>(x, slice),
                    4 => self.columns::<V, KERNEL, STRIDE, 4>(x, slice),
                    3 => self.columns::<V, KERNEL, STRIDE, 3>(x, slice),
                    // Only rows of a handful of columns are cut like this.
                    _ => {
                        for x in x..x + columns {
                            self.columns::<V, KERNEL, STRIDE, 1>(x, slice.clone());
                        }
                    }
                }
            }
            x += columns;
        }
    }

    /// The channels `slice` of `COLUMNS` columns from `x` on.
    ///
    /// # Safety
    /// As [`Self::run`]; the columns are inside the output.
    #[inline(always)]
    unsafe fn columns<V: Vector, const KERNEL: usize, const STRIDE: usize, const COLUMNS: usize>(
        &self,
        x: usize,
        slice: Range<usize>,
    ) {
        let inner = self.operator.window.inner_columns();
        let mut channel = slice.start;
        // SAFETY: the caller's promise; the lanes asked for are channels, and only for inner columns
        // is nothing under the kernels outside of the image.
        unsafe {
            if inner.start <= x && x + COLUMNS <= inner.end {
                while channel + V::LANES <= slice.end {
                    self.vector::<V, KERNEL, STRIDE, COLUMNS, true>(x, channel, V::LANES);
                    channel += V::LANES;
                }
            } else {
                while channel + V::LANES <= slice.end {
                    self.vector::<V, KERNEL, STRIDE, COLUMNS, false>(x, channel, V::LANES);
                    channel += V::LANES;
                }
            }
            if channel < slice.end {
                for x in x..x + COLUMNS {
                    self.vector::<V, KERNEL, STRIDE, 1, false>(x, channel, slice.end - channel);
                }
            }
        }
    }

    /// `lanes` channels from `channel` on, at most a vector, of `COLUMNS` columns from `x` on. Only
    /// where the columns are not `INNER` may the kernels hang over the edges of the image.
    ///
    /// # Safety
    /// As [`Self::columns`].
    #[inline(always)]
    unsafe fn vector<
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
        // The first column under the kernels, counted from where the padding begins.
        let begin = x * STRIDE;
        let image = left..left + width;
        // SAFETY: the caller's promise: only pixels of the image are read, and only lanes that are
        // channels are touched; weights and bias are filled up to whole vectors.
        unsafe {
            let mut sums = [V::load(bias.as_ptr().add(channel)); COLUMNS];
            for kernel_row in self.kernel_rows.clone() {
                let first_weight = weights.as_ptr().add(kernel_row * KERNEL * padded_channels + channel);
                let mut row_weights = [V::splat(0.0); KERNEL];
                for (tap, weight) in row_weights.iter_mut().enumerate() {
                    *weight = V::load(first_weight.add(tap * padded_channels));
                }
                // May be outside of the row, as the padding is.
                let source = self.sources[kernel_row].wrapping_add(begin * channels + channel);
                let source = source.wrapping_sub(left * channels);
                for column in 0..(COLUMNS - 1) * STRIDE + KERNEL {
                    if !INNER && !image.contains(&(begin + column)) {
                        continue;
                    }
                    let source = source.wrapping_add(column * channels);
                    let pixel = if lanes < V::LANES { V::load_first(source, lanes) } else { V::load(source) };
                    // The pixel is under the kernels of several outputs, and each has its own tap there.
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
                // The bound goes first: NaN comes out as NaN.
                let value = hi.min(lo.max(*sum));
                let target = target.add(index * channels);
                if lanes < V::LANES { value.store_first(target, lanes) } else { value.store(target) }
            }
        }
    }
}
