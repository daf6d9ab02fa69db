//! Multiplies a matrix by packed weights. Bias, residual and clamp are applied to the sums in registers.
//!
//! Every convolution that combines channels is such a product. A row of the left matrix is the input of one
//! output pixel: a pixel's channels for a 1×1 convolution, the pixels under the kernel for a larger one. The
//! right matrix contains the weights, packed into panels. Both matrices are read in place.
//!
//! Each result is summed in one accumulator, which starts with the bias and adds products in ascending order
//! of the depth. The blocking does not change that order, so splitting the rows between calls does not change
//! a bit of the result.

mod block;
mod operands;
mod pack;

pub(crate) use operands::{Gemm, LeftMatrix, RightRows};
pub(crate) use pack::PackedMatrix;

use crate::{isa::Kernel, vector::Vector};
use block::{Panel, multiply_panel};

/// Maximum size in bytes of weights that stay in the second-level cache from one group of rows to the next.
const RESIDENT_BYTES: usize = 512 << 10;

/// Size in bytes of a group of left rows. A group stays in the first-level cache, beside the panel in use,
/// while it is multiplied by all panels.
const GROUP_BYTES: usize = 16 << 10;

impl Gemm<'_> {
    /// Computes the product.
    pub(crate) fn run(self) {
        if self.rows == 0 {
            return;
        }
        let Self { left, rows, right, right_rows, .. } = &self;
        // Callers guarantee these bounds. They are checked again, because the unsafe code relies on them and
        // the check is cheap.
        assert!(
            left.runs == 0 || {
                let last_run = left.runs - 1;
                let last = (rows - 1) * left.row_stride + last_run * left.run_stride + left.run_len;
                last <= left.data.len()
                    && right_rows.first + last_run * right_rows.run_stride + left.run_len <= right.depth()
            }
        );
        assert!(rows * right.width() == self.output.len());
        assert!(self.residual.is_none_or(|residual| residual.len() == self.output.len()));
        let isa = right.isa();
        // SAFETY: `isa` is the instruction set for which `right` was packed, and the assertions above
        // guarantee that every element that the kernel reads or writes is inside its slice.
        unsafe { isa.run(self) }
    }

    /// Returns the number of rows that are multiplied by all panels before the next rows.
    fn rows_per_group(&self) -> usize {
        if self.right.byte_count() > RESIDENT_BYTES {
            // The panels do not stay in the second-level cache, so each is loaded once and used for all rows.
            return self.rows;
        }
        let row_bytes = (self.left.row_stride * size_of::<f32>()).max(1);
        // 24 is a multiple of the number of rows in a full block on every instruction set: 4, 6, 8 or 12.
        (GROUP_BYTES / row_bytes).next_multiple_of(24)
    }
}

impl Kernel for Gemm<'_> {
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
                let weights = self.right.panel(offset);
                let panel = Panel { gemm: &self, output, weights, first_column, vectors, start_row, end_row };
                // SAFETY: the caller guarantees that the CPU supports `V` and that the matrix was packed for
                // it. `weights`, `first_column` and `vectors` describe panel `index` of that matrix, and the
                // rows are rows of the output.
                unsafe { multiply_panel::<V>(&panel) };
                first_column += vectors * V::LANES;
                offset += vectors * V::LANES * self.right.depth();
            }
            start_row = end_row;
        }
    }
}
