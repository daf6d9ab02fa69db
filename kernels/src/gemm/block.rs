//! The innermost loops: a block of the result that stays in registers.

use super::Gemm;
use crate::vector::Vector;

/// A panel of the right matrix, and the rows that meet it.
pub(super) struct Panel<'a> {
    pub(super) gemm: &'a Gemm<'a>,
    /// The whole result.
    pub(super) output: *mut f32,
    /// The panel's weights, row by row.
    pub(super) weights: &'a [f32],
    /// Its first column.
    pub(super) first: usize,
    /// Vectors in one of its rows.
    pub(super) vectors: usize,
    /// First row.
    pub(super) start: usize,
    /// Row behind the last.
    pub(super) end: usize,
}

/// Multiplies the rows with the panel, in blocks as high as the registers allow: the accumulators, one
/// row of the panel and one value of the left matrix are in registers at once.
///
/// # Safety
/// As [`crate::isa::Kernel::run`] for the product that the panel belongs to.
#[inline(always)]
pub(super) unsafe fn multiply_panel<V: Vector>(panel: &Panel<'_>) {
    // SAFETY: the caller's promise; each arm is for panels of just that many vectors.
    unsafe {
        match (V::REGISTERS, panel.vectors) {
            (32, 4) => multiply_rows::<V, 6, 5, 4>(panel),
            (32, 3) => multiply_rows::<V, 8, 7, 3>(panel),
            (32, 2) => multiply_rows::<V, 12, 11, 2>(panel),
            (32, _) => multiply_rows::<V, 12, 11, 1>(panel),
            (16, 2) => multiply_rows::<V, 6, 5, 2>(panel),
            (16, _) => multiply_rows::<V, 12, 11, 1>(panel),
            (_, 2) => multiply_rows::<V, 4, 3, 2>(panel),
            (_, _) => multiply_rows::<V, 8, 7, 1>(panel),
        }
    }
}

/// In blocks of `ROWS` rows and, so that no thin block is left over where that can be, of `SHORT`,
/// one row less: a block of few rows has too few sums to keep the multipliers busy.
///
/// # Safety
/// As [`multiply_panel`]; the panel has `VECTORS` vectors.
#[inline(always)]
unsafe fn multiply_rows<V: Vector, const ROWS: usize, const SHORT: usize, const VECTORS: usize>(
    panel: &Panel<'_>,
) {
    let mut row = panel.start;
    let rows = panel.end - panel.start;
    let blocks = rows.div_ceil(ROWS);
    let short_blocks = blocks * ROWS - rows;
    let whole_blocks = if short_blocks <= blocks { blocks - short_blocks } else { rows / ROWS };
    // SAFETY: the caller's promise; no block goes beyond the last row.
    unsafe {
        for _ in 0..whole_blocks {
            multiply_block::<V, ROWS, VECTORS>(panel, row);
            row += ROWS;
        }
        while row + SHORT <= panel.end {
            multiply_block::<V, SHORT, VECTORS>(panel, row);
            row += SHORT;
        }
        while row + 4 <= panel.end {
            multiply_block::<V, 4, VECTORS>(panel, row);
            row += 4;
        }
        while row + 2 <= panel.end {
            multiply_block::<V, 2, VECTORS>(panel, row);
            row += 2;
        }
        while row < panel.end {
            multiply_block::<V, 1, VECTORS>(panel, row);
            row += 1;
        }
    }
}

/// The block of `ROWS` rows from `row` on and all columns of the panel.
///
/// # Safety
/// As [`multiply_rows`]; `ROWS` rows are left.
#[inline(always)]
unsafe fn multiply_block<V: Vector, const ROWS: usize, const VECTORS: usize>(panel: &Panel<'_>, row: usize) {
    let Gemm { left, right, depth, .. } = panel.gemm;
    let columns = VECTORS * V::LANES;
    // SAFETY: rows, runs and depth are inside their matrices (`Gemm::run` has checked), and the bias is
    // filled up to whole vectors.
    unsafe {
        let mut bias = [V::splat(0.0); VECTORS];
        for (vector, bias) in bias.iter_mut().enumerate() {
            *bias = V::load(right.bias().as_ptr().add(panel.first + vector * V::LANES));
        }
        let mut sums = [bias; ROWS];

        for run in 0..left.runs {
            let run_start = left.data.as_ptr().add(row * left.row_stride + run * left.run_stride);
            let weights_start = panel.weights.as_ptr().add((depth.first + run * depth.run_stride) * columns);
            for step in 0..left.run_len {
                let mut weights = [V::splat(0.0); VECTORS];
                for (vector, weight) in weights.iter_mut().enumerate() {
                    *weight = V::load(weights_start.add(step * columns + vector * V::LANES));
                }
                for (block_row, sums) in sums.iter_mut().enumerate() {
                    let value = V::splat(*run_start.add(block_row * left.row_stride + step));
                    for (sum, weight) in sums.iter_mut().zip(&weights) {
                        *sum = value.mul_add(*weight, *sum);
                    }
                }
            }
        }

        if right.width() - panel.first >= columns {
            finish::<V, ROWS, VECTORS, true>(panel, row, sums);
        } else {
            finish::<V, ROWS, VECTORS, false>(panel, row, sums);
        }
    }
}

/// Adds the residual to the sums of a block, clamps them and writes them to the output. Only where
/// the panel is not `WHOLE`, its last vector sticks out of the rows of the output.
///
/// # Safety
/// As [`multiply_block`], whose sums these are.
#[inline(always)]
unsafe fn finish<V: Vector, const ROWS: usize, const VECTORS: usize, const WHOLE: bool>(
    panel: &Panel<'_>,
    row: usize,
    mut sums: [[V; VECTORS]; ROWS],
) {
    let Gemm { right, residual, clamp, .. } = panel.gemm;
    let width = right.width();
    let corner = row * width + panel.first;
    let last = (VECTORS - 1) * V::LANES;
    // SAFETY: the block is inside of the output and of the residual, which is as large; of a vector
    // that sticks out of their rows only the lanes inside are touched.
    unsafe {
        if let Some(residual) = residual {
            for (block_row, sums) in sums.iter_mut().enumerate() {
                let source = residual.as_ptr().add(corner + block_row * width);
                for (vector, sum) in sums.iter_mut().enumerate() {
                    let more = if WHOLE || vector + 1 < VECTORS {
                        V::load(source.add(vector * V::LANES))
                    } else {
                        V::load_first(source.add(last), width - panel.first - last)
                    };
                    *sum = sum.add(more);
                }
            }
        }
        let (lo, hi) = (V::splat(clamp.lo), V::splat(clamp.hi));
        for (block_row, sums) in sums.iter().enumerate() {
            let target = panel.output.add(corner + block_row * width);
            for (vector, sum) in sums.iter().enumerate() {
                // The bound goes first: NaN comes out as NaN.
                let value = hi.min(lo.max(*sum));
                if WHOLE || vector + 1 < VECTORS {
                    value.store(target.add(vector * V::LANES));
                } else {
                    value.store_first(target.add(last), width - panel.first - last);
                }
            }
        }
    }
}
