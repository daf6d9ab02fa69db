//! Multiplies a matrix by packed weights. Bias, residual and clamp are applied to the sums in registers.
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
/// next.
const RESIDENT_BYTES: usize = 512 << 10;

/// Approximate size in bytes of a group of rows of the left matrix.
///
/// A group stays in the first-level cache, together with the current panel, while it is multiplied by all
/// panels.
const GROUP_BYTES: usize = 16 << 10;

impl Gemm<'_> {
    /// Computes the product.
    pub(crate) fn run(self) {
        if self.rows == 0 {
            return;
        }
        let Self { left, rows, right, right_rows, .. } = &self;
        // Callers guarantee these bounds. The bounds are checked again because the unsafe code relies on them
        // and the check is cheap.
        assert!(
            left.runs == 0 || {
                let last_run = left.runs - 1;
                let end = (rows - 1) * left.row_stride + last_run * left.run_stride + left.run_len;
                end <= left.data.len()
                    && right_rows.first + last_run * right_rows.run_stride + left.run_len <= right.depth()
            }
        );
        assert!(rows * right.width() == self.output.len());
        assert!(self.residual.is_none_or(|residual| residual.len() == self.output.len()));
        let isa = right.isa();
        // SAFETY: `isa` is the instruction set for which `right` was packed, and the assertions above
        // guarantee that every element that is read or written is inside its slice.
        unsafe { isa.run(self) }
    }

    /// Returns the number of rows in a group. A group is multiplied by all panels before the next group.
    fn rows_per_group(&self) -> usize {
        if self.right.byte_count() > RESIDENT_BYTES {
            // The panels do not stay in the second-level cache. A single group loads each panel only once.
            return self.rows;
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
        while start_row < self.rows {
            let end_row = self.rows.min(start_row + rows_per_group);
            let (mut first_column, mut offset) = (0, 0);
            for index in 0..self.right.panel_count() {
                let vectors = self.right.panel_vectors(index);
                let weights = self.right.weights_from(offset);
                let panel = Panel { gemm: &self, output, weights, first_column, vectors, start_row, end_row };
                // SAFETY: the caller guarantees that the CPU supports `V` and that the right matrix was
                // packed for it. `weights`, `first_column` and `vectors` describe panel `index` of that
                // matrix. `start_row..end_row` are rows of the output.
                unsafe { multiply_panel::<V>(&panel) };
                first_column += vectors * V::LANES;
                offset += vectors * V::LANES * self.right.depth();
            }
            start_row = end_row;
        }
    }
}
