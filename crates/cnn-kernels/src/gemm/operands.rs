//! Defines the operands of a matrix product.

use super::pack::PackedMatrix;
use crate::shape::Clamp;

/// The left matrix. Each row consists of runs of consecutive elements of `data`.
///
/// Run `j` of row `i` begins at element `i * row_stride + j * run_stride`. Rows may overlap, because
/// neighbouring positions of a convolution's kernel have pixels in common.
#[derive(Clone, Copy)]
pub(crate) struct LeftMatrix<'a> {
    pub(crate) data: &'a [f32],
    /// Number of elements from the start of a row to the start of the next row.
    pub(crate) row_stride: usize,
    pub(crate) runs_per_row: usize,
    /// Number of elements from the start of a run to the start of the row's next run.
    pub(crate) run_stride: usize,
    /// Number of elements per run.
    pub(crate) run_len: usize,
}

impl<'a> LeftMatrix<'a> {
    /// Creates a matrix whose rows have `depth` elements and are stored one after another.
    pub(crate) fn contiguous(data: &'a [f32], depth: usize) -> Self {
        Self { data, row_stride: depth, runs_per_row: 1, run_stride: 0, run_len: depth }
    }
}

/// The rows of the right matrix by which the runs of the left matrix are multiplied.
///
/// Run `j` is multiplied by the consecutive rows that begin with row `first_row + j * run_stride`.
#[derive(Clone, Copy)]
pub(crate) struct RightRows {
    pub(crate) first_row: usize,
    /// Number of rows from the first row of a run to the first row of the next run.
    pub(crate) run_stride: usize,
}

impl RightRows {
    /// All rows, for a left matrix with one run per row.
    pub(crate) const ALL: Self = Self { first_row: 0, run_stride: 0 };
}

/// The matrix product `output = clamp(left × right + bias + residual)`.
///
/// The bias is stored in `right`. The output has `row_count` rows and as many columns as `right`.
pub(crate) struct Gemm<'a> {
    pub(crate) left: LeftMatrix<'a>,
    pub(crate) row_count: usize,
    pub(crate) right: &'a PackedMatrix,
    pub(crate) right_rows: RightRows,
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) clamp: Clamp,
    pub(crate) output: &'a mut [f32],
}
