//! Matrix times packed matrix, with bias, residual and clamp on the way out.
//!
//! Every convolution that mixes channels is this product. A row of the left matrix is one pixel: its
//! channels for a 1×1 convolution, and the pixels under the kernel for a larger one (see [`Left`]).
//! The right matrix is the weights, packed in panels (see [`pack`]). Both are read in place; nothing is
//! copied.
//!
//! A result is a sum over the depth in ascending order from the bias on, in one accumulator, whatever
//! the blocking: how the rows are split changes no bit of it.

mod block;
mod pack;

pub(crate) use pack::PackedMatrix;

use crate::{isa::Kernel, shape::Clamp, vector::Vector};
use block::{Panel, multiply_panel};

/// Weights up to this many bytes stay in the second-level cache while rows go by.
const RESIDENT_BYTES: usize = 512 << 10;
/// Bytes of left rows that go through all panels before the next ones: they stay in the first-level
/// cache beside the panel that passes by.
const GROUP_BYTES: usize = 16 << 10;

/// The left matrix: rows that are runs of consecutive elements in `data`.
///
/// Row `i` is the runs that begin at `i * row_stride + j * run_stride`. Rows may overlap, as the
/// pixels under a kernel do from one step to the next.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row_stride: usize,
    pub(crate) runs: usize,
    pub(crate) run_stride: usize,
    pub(crate) run_len: usize,
}

impl<'a> Left<'a> {
    /// Rows of `depth` elements, one after another.
    pub(crate) fn dense(data: &'a [f32], depth: usize) -> Self {
        Self { data, row_stride: depth, runs: 1, run_stride: 0, run_len: depth }
    }
}

/// The part of the right matrix's depth that the runs of the left one meet: run `j` meets the rows from
/// `first + j * run_stride` on.
#[derive(Clone, Copy)]
pub(crate) struct Depth {
    pub(crate) first: usize,
    pub(crate) run_stride: usize,
}

/// `output = clamp(left × right + bias + residual)`, `rows` rows as wide as the right matrix.
pub(crate) struct Gemm<'a> {
    pub(crate) left: Left<'a>,
    pub(crate) rows: usize,
    pub(crate) right: &'a PackedMatrix,
    pub(crate) depth: Depth,
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) clamp: Clamp,
    pub(crate) output: &'a mut [f32],
}

impl Gemm<'_> {
    /// Computes it.
    pub(crate) fn run(self) {
        if self.rows == 0 {
            return;
        }
        let Self { left, rows, right, depth, .. } = &self;
        // What the callers have seen to: memory safety hangs on it, and it costs next to nothing.
        assert!(
            left.runs == 0 || {
                let last_run = left.runs - 1;
                let last = (rows - 1) * left.row_stride + last_run * left.run_stride + left.run_len;
                last <= left.data.len()
                    && depth.first + last_run * depth.run_stride + left.run_len <= right.depth()
            }
        );
        assert!(rows * right.width() == self.output.len());
        assert!(self.residual.is_none_or(|residual| residual.len() == self.output.len()));
        let isa = right.isa();
        // SAFETY: the matrix was packed for this instruction set, and the lengths were checked above.
        unsafe { isa.run(self) }
    }

    /// Rows that go through all panels before the next rows do.
    fn group(&self) -> usize {
        if self.right.bytes() > RESIDENT_BYTES {
            // Each panel comes from far and is used for all rows.
            return self.rows;
        }
        let row_bytes = (self.left.row_stride * size_of::<f32>()).max(1);
        // A multiple of the heights of all blocks.
        (GROUP_BYTES / row_bytes).next_multiple_of(24)
    }
}

impl Kernel for Gemm<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let output = self.output.as_mut_ptr();
        let group = self.group();
        let mut start = 0;
        while start < self.rows {
            let end = self.rows.min(start + group);
            let (mut first, mut offset) = (0, 0);
            for index in 0..self.right.panels() {
                let vectors = self.right.panel_vectors(index);
                let weights = self.right.panel(offset);
                let panel = Panel { gemm: &self, output, weights, first, vectors, start, end };
                // SAFETY: the caller's promise, and the panel is the matrix's own.
                unsafe { multiply_panel::<V>(&panel) };
                first += vectors * V::LANES;
                offset += vectors * V::LANES * self.right.depth();
            }
            start = end;
        }
    }
}
