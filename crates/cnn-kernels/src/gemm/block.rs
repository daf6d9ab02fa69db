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
/// row of the panel and one value of the left matrix are in registers at once. Where the panel's last
/// vector is no more than half full, only that half is computed.
///
/// # Safety
/// As [`crate::isa::Kernel::run`] for the product that the panel belongs to.
#[inline(always)]
pub(super) unsafe fn multiply_panel<V: Vector>(panel: &Panel<'_>) {
    let last = panel.gemm.right.width() - panel.first - (panel.vectors - 1) * V::LANES;
    let is_half = V::Half::LANES < V::LANES && last <= V::Half::LANES;
    // SAFETY: the caller's promise; each arm is for panels of just that many vectors.
    unsafe {
        match (V::REGISTERS, panel.vectors, is_half) {
            (32, 4, false) => multiply_rows::<V, 6, 5, 4, 0>(panel),
            (32, 3, false) => multiply_rows::<V, 8, 7, 3, 0>(panel),
            (32, 2, false) => multiply_rows::<V, 12, 11, 2, 0>(panel),
            (32, _, false) => multiply_rows::<V, 12, 11, 1, 0>(panel),
            (32, 4, true) => multiply_rows::<V, 6, 5, 3, 1>(panel),
            (32, 3, true) => multiply_rows::<V, 8, 7, 2, 1>(panel),
            (32, 2, true) => multiply_rows::<V, 12, 11, 1, 1>(panel),
            (32, _, true) => multiply_rows::<V, 12, 11, 0, 1>(panel),
            (16, 2, _) => multiply_rows::<V, 6, 5, 2, 0>(panel),
            (16, _, _) => multiply_rows::<V, 12, 11, 1, 0>(panel),
            (_, 2, _) => multiply_rows::<V, 4, 3, 2, 0>(panel),
            (_, _, _) => multiply_rows::<V, 8, 7, 1, 0>(panel),
        }
    }
}

/// In blocks of `ROWS` rows and, so that no thin block is left over where that can be, of `SHORT`,
/// one row less: a block of few rows has too few sums to keep the multipliers busy.
///
/// # Safety
/// As [`multiply_panel`]; the panel has `VECTORS` vectors, and behind them a half one if `HALVES` is 1.
#[inline(always)]
unsafe fn multiply_rows<
    V: Vector,
    const ROWS: usize,
    const SHORT: usize,
    const VECTORS: usize,
    const HALVES: usize,
>(
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
            multiply_block::<V, ROWS, VECTORS, HALVES>(panel, row);
            row += ROWS;
        }
        while row + SHORT <= panel.end {
            multiply_block::<V, SHORT, VECTORS, HALVES>(panel, row);
            row += SHORT;
        }
        while row + 4 <= panel.end {
            multiply_block::<V, 4, VECTORS, HALVES>(panel, row);
            row += 4;
        }
        while row + 2 <= panel.end {
            multiply_block::<V, 2, VECTORS, HALVES>(panel, row);
            row += 2;
        }
        while row < panel.end {
            multiply_block::<V, 1, VECTORS, HALVES>(panel, row);
            row += 1;
        }
    }
}

/// The block of `ROWS` rows from `row` on and all columns of the panel.
///
/// # Safety
/// As [`multiply_rows`]; `ROWS` rows are left.
#[inline(always)]
unsafe fn multiply_block<V: Vector, const ROWS: usize, const VECTORS: usize, const HALVES: usize>(
    panel: &Panel<'_>,
    row: usize,
) {
    let Gemm { left, right, depth, .. } = panel.gemm;
    let columns = panel.vectors * V::LANES;
    let tail = VECTORS * V::LANES;
    // SAFETY: rows, runs and depth are inside their matrices (`Gemm::run` has checked), and the bias is
    // filled up to whole vectors.
    unsafe {
        let bias = right.bias().as_ptr().add(panel.first);
        let mut sums = [load_row::<V, VECTORS>(bias); ROWS];
        let mut half_sums = [load_row::<V::Half, HALVES>(bias.add(tail)); ROWS];

        for run in 0..left.runs {
            let run_start = left.data.as_ptr().add(row * left.row_stride + run * left.run_stride);
            let weights_start = panel.weights.as_ptr().add((depth.first + run * depth.run_stride) * columns);
            for step in 0..left.run_len {
                let weights_row = weights_start.add(step * columns);
                let weights = load_row::<V, VECTORS>(weights_row);
                let half_weights = load_row::<V::Half, HALVES>(weights_row.add(tail));
                for block_row in 0..ROWS {
                    let value = V::splat(*run_start.add(block_row * left.row_stride + step));
                    multiply_add(&mut sums[block_row], value, &weights);
                    multiply_add(&mut half_sums[block_row], value.half(), &half_weights);
                }
            }
        }

        finish(panel, row, 0, sums);
        finish(panel, row, tail, half_sums);
    }
}

/// Vectors that lie one behind the other.
///
/// # Safety
/// The CPU has the instructions of `V`, and `VECTORS` vectors are readable at `source`.
#[inline(always)]
unsafe fn load_row<V: Vector, const VECTORS: usize>(source: *const f32) -> [V; VECTORS] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut vectors = [V::splat(0.0); VECTORS];
        for (index, vector) in vectors.iter_mut().enumerate() {
            *vector = V::load(source.add(index * V::LANES));
        }
        vectors
    }
}

/// `sums += value * weights`.
///
/// # Safety
/// The CPU has the instructions of `V`.
#[inline(always)]
unsafe fn multiply_add<V: Vector, const VECTORS: usize>(
    sums: &mut [V; VECTORS],
    value: V,
    weights: &[V; VECTORS],
) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        // SAFETY: the caller's promise.
        *sum = unsafe { value.mul_add(*weight, *sum) };
    }
}

/// Adds the residual to the sums of the block's columns from `column` of the panel on, clamps them and
/// writes them to the output. Only the last vector of the panel may stick out of the output's rows.
///
/// # Safety
/// As [`multiply_block`], whose sums these are.
#[inline(always)]
unsafe fn finish<V: Vector, const ROWS: usize, const VECTORS: usize>(
    panel: &Panel<'_>,
    row: usize,
    column: usize,
    sums: [[V; VECTORS]; ROWS],
) {
    if VECTORS == 0 {
        return;
    }
    let left = panel.gemm.right.width() - panel.first - column;
    // SAFETY: the caller's promise.
    unsafe {
        if left >= VECTORS * V::LANES {
            write::<V, ROWS, VECTORS, true>(panel, row, column, sums);
        } else {
            write::<V, ROWS, VECTORS, false>(panel, row, column, sums);
        }
    }
}

/// As [`finish`]; only where the sums are not `WHOLE`, the last vector sticks out.
///
/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn write<V: Vector, const ROWS: usize, const VECTORS: usize, const WHOLE: bool>(
    panel: &Panel<'_>,
    row: usize,
    column: usize,
    mut sums: [[V; VECTORS]; ROWS],
) {
    let Gemm { right, residual, clamp, .. } = panel.gemm;
    let width = right.width();
    let first = panel.first + column;
    let corner = row * width + first;
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
                        V::load_first(source.add(last), width - first - last)
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
                    value.store_first(target.add(last), width - first - last);
                }
            }
        }
    }
}
