//! Multiplies a matrix by packed weights. Bias, residual and clamp are applied before the sums are stored.
//!
//! Every convolution that combines channels is computed as such a product. A row of the left matrix holds the
//! values from which one output pixel is computed: the channels of the input pixel for a 1×1 convolution, the
//! pixels under the kernel for a larger one. The right matrix holds the weights. Its columns are divided into
//! panels, which are stored one after another.
//!
//! Each element of the output is summed in one accumulator: first the bias, then the products in the order of
//! the right matrix's rows. This order does not depend on the other elements, so computing some of the rows
//! in a separate call gives bit-identical results.

mod block;
mod operands;
mod pack;

pub(crate) use operands::{Gemm, LeftMatrix, RightRows};
pub(crate) use pack::PackedMatrix;

use crate::{isa::SimdKernel, vector::Vector};
use block::{Panel, multiply_panel};

/// Maximum size in bytes of a right matrix that stays in the second-level cache from one group of rows to the
/// next. It is half of a cache of 1 MiB.
const MAX_CACHED_BYTES: usize = 512 << 10;

/// Approximate size in bytes of a group of rows of the left matrix.
///
/// A group stays in the first-level cache, together with the current panel, while it is multiplied by all
/// panels. The size is half of a cache of 32 KiB.
const GROUP_BYTES: usize = 16 << 10;

impl Gemm<'_> {
    /// Computes the product.
    pub(crate) fn run(self) {
        if self.row_count == 0 {
            return;
        }
        let Self { left, row_count, right, right_rows, .. } = &self;
        // Callers guarantee these bounds. The bounds are checked again because the unsafe code relies on them
        // and the check is cheap.
        assert!(
            left.runs_per_row == 0 || {
                let last_run = left.runs_per_row - 1;
                let end = (row_count - 1) * left.row_stride + last_run * left.run_stride + left.run_len;
                end <= left.data.len()
                    && right_rows.first_row + last_run * right_rows.run_stride + left.run_len <= right.depth()
            }
        );
        assert!(row_count * right.width() == self.output.len());
        assert!(self.residual.is_none_or(|residual| residual.len() == self.output.len()));
        let isa = right.isa();
        // SAFETY: `isa` is the instruction set for which `right` was packed, and the assertions above
        // guarantee that every element that is read or written is inside its slice.
        unsafe { isa.run(self) }
    }

    /// Returns the number of rows in a group. A group is multiplied by all panels before the next group.
    fn rows_per_group(&self) -> usize {
        if self.right.byte_count() > MAX_CACHED_BYTES {
            // The panels do not stay in the second-level cache. A single group loads each panel only once.
            return self.row_count;
        }
        let row_bytes = (self.left.row_stride * size_of::<f32>()).max(1);
        // 24 is a multiple of the number of rows in a full block on every instruction set: 4, 6, 8 or 12.
        (GROUP_BYTES / row_bytes).next_multiple_of(24)
    }
}

impl SimdKernel for Gemm<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let output = self.output.as_mut_ptr();
        let rows_per_group = self.rows_per_group();
        let mut start_row = 0;
        while start_row < self.row_count {
            let end_row = self.row_count.min(start_row + rows_per_group);
            let (mut first_column, mut offset) = (0, 0);
            for index in 0..self.right.panel_count() {
                let vectors_per_row = self.right.vectors_per_panel_row(index);
                let weights = self.right.weights_from(offset);
                let panel =
                    Panel { gemm: &self, output, weights, first_column, vectors_per_row, start_row, end_row };
                // SAFETY: the caller guarantees that the CPU supports `V` and that the right matrix was
                // packed for it. `weights`, `first_column` and `vectors_per_row` describe panel `index` of
                // that matrix. `start_row..end_row` are rows of the output.
                unsafe { multiply_panel::<V>(&panel) };
                first_column += vectors_per_row * V::LANES;
                offset += vectors_per_row * V::LANES * self.right.depth();
            }
            start_row = end_row;
        }
    }
}
