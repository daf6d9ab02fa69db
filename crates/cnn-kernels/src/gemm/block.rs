//! Implements the innermost loops of the matrix product, which compute a block of the output in registers.

use super::operands::Gemm;
use crate::vector::Vector;

/// A panel of the right matrix, and the rows of the left matrix that are multiplied by it.
pub(super) struct Panel<'a> {
    pub(super) gemm: &'a Gemm<'a>,
    /// Pointer to the first element of the whole output.
    pub(super) output: *mut f32,
    /// The weights of the panel, row by row. The weights of later panels may follow.
    pub(super) weights: &'a [f32],
    /// Column of the right matrix at which the panel begins.
    pub(super) first_column: usize,
    /// Number of vectors per row of the panel.
    pub(super) vectors_per_row: usize,
    /// First of the rows that are multiplied by the panel.
    pub(super) start_row: usize,
    /// The row after the last of these rows.
    pub(super) end_row: usize,
}

/// Multiplies the rows by the panel, in blocks of as many rows as the registers allow.
///
/// The registers hold the accumulators of a block, one row of the panel and one value of the left matrix. A
/// block has at most twelve rows, whose sums are enough to hide the latency of a multiply-add. If at most
/// half of the panel's last vector contains columns, only that half is computed.
///
/// # Safety
/// - The CPU supports the instructions of `V`, and the right matrix was packed for `V`.
/// - The bounds that [`Gemm::run`] asserts hold.
/// - `panel` describes a panel of the right matrix and rows of the output, and `panel.output` points to the
///   output.
#[inline(always)]
pub(super) unsafe fn multiply_panel<V: Vector>(panel: &Panel<'_>) {
    let last_columns = panel.gemm.right.width() - panel.first_column - (panel.vectors_per_row - 1) * V::LANES;
    let last_is_half = V::Half::LANES < V::LANES && last_columns <= V::Half::LANES;
    // SAFETY: the caller guarantees that the CPU supports `V` and that the panel is valid. `VECTORS + HALVES`
    // is the panel's number of vectors per row in each arm, and `HALVES` is 1 only if at most half of the
    // last vector contains columns. A wildcard in the second element of a pattern stands for 1 vector,
    // because no panel has more than `V::MAX_PANEL_VECTORS`.
    unsafe {
        match (V::REGISTERS, panel.vectors_per_row, last_is_half) {
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

/// Multiplies the rows in blocks of `ROWS` rows and blocks of `SHORT_ROWS` rows.
///
/// `SHORT_ROWS` is `ROWS - 1`. It is a parameter because Rust cannot compute one const argument from another.
///
/// A mixture of both sizes usually covers all rows. Remaining rows are computed in smaller blocks. These are
/// slower, because they have too few independent sums to keep the multipliers busy.
///
/// # Safety
/// The requirements of [`multiply_panel`] hold. The panel has `VECTORS` whole vectors, followed by a half
/// vector if `HALVES` is 1.
#[inline(always)]
unsafe fn multiply_rows<
    V: Vector,
    const ROWS: usize,
    const SHORT_ROWS: usize,
    const VECTORS: usize,
    const HALVES: usize,
>(
    panel: &Panel<'_>,
) {
    let mut row = panel.start_row;
    let row_count = panel.end_row - panel.start_row;
    let block_count = row_count.div_ceil(ROWS);
    let short_block_count = block_count * ROWS - row_count;
    // If there are too few rows for a mixture that covers all rows, there are as many full blocks as
    // possible.
    let full_block_count =
        if short_block_count <= block_count { block_count - short_block_count } else { row_count / ROWS };
    // SAFETY: the caller guarantees that the CPU supports `V` and that the panel is valid. No block reaches
    // beyond `panel.end_row`: the full blocks have at most `row_count` rows together, and each loop checks
    // that its block fits.
    unsafe {
        for _ in 0..full_block_count {
            multiply_block::<V, ROWS, VECTORS, HALVES>(panel, row);
            row += ROWS;
        }
        while row + SHORT_ROWS <= panel.end_row {
            multiply_block::<V, SHORT_ROWS, VECTORS, HALVES>(panel, row);
            row += SHORT_ROWS;
        }
        while row + 4 <= panel.end_row {
            multiply_block::<V, 4, VECTORS, HALVES>(panel, row);
            row += 4;
        }
        while row + 2 <= panel.end_row {
            multiply_block::<V, 2, VECTORS, HALVES>(panel, row);
            row += 2;
        }
        while row < panel.end_row {
            multiply_block::<V, 1, VECTORS, HALVES>(panel, row);
            row += 1;
        }
    }
}

/// Computes all columns of the panel for `ROWS` rows of the output, beginning with `row`.
///
/// # Safety
/// The requirements of [`multiply_rows`] hold. `row + ROWS` is at most `panel.end_row`.
#[inline(always)]
unsafe fn multiply_block<V: Vector, const ROWS: usize, const VECTORS: usize, const HALVES: usize>(
    panel: &Panel<'_>,
    row: usize,
) {
    let Gemm { left, right, right_rows, .. } = panel.gemm;
    let panel_width = panel.vectors_per_row * V::LANES;
    // Column of the panel at which the half vector begins.
    let half_column = VECTORS * V::LANES;
    // SAFETY: `Gemm::run` has asserted that all runs of all rows are inside `left.data` and that `right_rows`
    // are rows of the right matrix. The panel's rows and the bias are padded to whole vectors, so every
    // vector that is loaded is inside them. The caller guarantees that the CPU supports `V`.
    unsafe {
        let bias = right.bias().as_ptr().add(panel.first_column);
        let mut sums = [load_row::<V, VECTORS>(bias); ROWS];
        let mut half_sums = [load_row::<V::Half, HALVES>(bias.add(half_column)); ROWS];

        for run in 0..left.runs_per_row {
            let run_start = left.data.as_ptr().add(row * left.row_stride + run * left.run_stride);
            let weights_start = panel
                .weights
                .as_ptr()
                .add((right_rows.first_row + run * right_rows.run_stride) * panel_width);
            for offset in 0..left.run_len {
                let weights_row = weights_start.add(offset * panel_width);
                let weights = load_row::<V, VECTORS>(weights_row);
                let half_weights = load_row::<V::Half, HALVES>(weights_row.add(half_column));
                for block_row in 0..ROWS {
                    let value = V::splat(*run_start.add(block_row * left.row_stride + offset));
                    multiply_add(&mut sums[block_row], value, &weights);
                    multiply_add(&mut half_sums[block_row], value.half(), &half_weights);
                }
            }
        }

        write_sums(panel, row, 0, sums);
        write_sums(panel, row, half_column, half_sums);
    }
}

/// Loads `VECTORS` consecutive vectors.
///
/// # Safety
/// The CPU supports the instructions of `V`, and `VECTORS` vectors are readable at `source`.
#[inline(always)]
unsafe fn load_row<V: Vector, const VECTORS: usize>(source: *const f32) -> [V; VECTORS] {
    // SAFETY: the caller guarantees that the CPU supports `V` and that `VECTORS` vectors are readable.
    unsafe {
        let mut vectors = [V::splat(0.0); VECTORS];
        for (index, vector) in vectors.iter_mut().enumerate() {
            *vector = V::load(source.add(index * V::LANES));
        }
        vectors
    }
}

/// Adds `value * weights` to `sums`.
///
/// # Safety
/// The CPU supports the instructions of `V`.
#[inline(always)]
unsafe fn multiply_add<V: Vector, const VECTORS: usize>(
    sums: &mut [V; VECTORS],
    value: V,
    weights: &[V; VECTORS],
) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        // SAFETY: the caller guarantees that the CPU supports `V`.
        *sum = unsafe { value.mul_add(*weight, *sum) };
    }
}

/// Adds the residual to the sums, clamps them and writes them to the output.
///
/// The sums begin at row `row` of the output and at column `column` of the panel. The padding lanes of the
/// panel's last vector are not written.
///
/// # Safety
/// The requirements of [`multiply_block`], which calls this function, hold.
#[inline(always)]
unsafe fn write_sums<V: Vector, const ROWS: usize, const VECTORS: usize>(
    panel: &Panel<'_>,
    row: usize,
    column: usize,
    sums: [[V; VECTORS]; ROWS],
) {
    if VECTORS == 0 {
        return;
    }
    let columns_left = panel.gemm.right.width() - panel.first_column - column;
    // SAFETY: the caller guarantees that the CPU supports `V` and that the rows are rows of the output.
    // `FULL` is true only if all lanes of all vectors are columns of the output.
    unsafe {
        if columns_left >= VECTORS * V::LANES {
            write_block::<V, ROWS, VECTORS, true>(panel, row, column, sums);
        } else {
            write_block::<V, ROWS, VECTORS, false>(panel, row, column, sums);
        }
    }
}

/// Implements [`write_sums`] for at least one vector. If `FULL` is false, the last vector has padding lanes.
///
/// # Safety
/// The requirements of [`write_sums`] hold. If `FULL` is true, every lane is a column of the output.
#[inline(always)]
unsafe fn write_block<V: Vector, const ROWS: usize, const VECTORS: usize, const FULL: bool>(
    panel: &Panel<'_>,
    row: usize,
    column: usize,
    mut sums: [[V; VECTORS]; ROWS],
) {
    let Gemm { right, residual, clamp, .. } = panel.gemm;
    let width = right.width();
    let first_column = panel.first_column + column;
    let first_element = row * width + first_column;
    // Column of the block at which the last vector begins.
    let last_offset = (VECTORS - 1) * V::LANES;
    // SAFETY: the block's rows and columns are inside the output. `Gemm::run` has asserted that the residual
    // has the size of the output. If the last vector has padding lanes, only its other lanes are read and
    // written. The caller guarantees that the CPU supports `V`.
    unsafe {
        if let Some(residual) = residual {
            for (block_row, sums) in sums.iter_mut().enumerate() {
                let source = residual.as_ptr().add(first_element + block_row * width);
                for (vector, sum) in sums.iter_mut().enumerate() {
                    let addend = if FULL || vector + 1 < VECTORS {
                        V::load(source.add(vector * V::LANES))
                    } else {
                        V::load_first(source.add(last_offset), width - first_column - last_offset)
                    };
                    *sum = sum.add(addend);
                }
            }
        }
        let (lo, hi) = (V::splat(clamp.lo), V::splat(clamp.hi));
        for (block_row, sums) in sums.iter().enumerate() {
            let target = panel.output.add(first_element + block_row * width);
            for (vector, sum) in sums.iter().enumerate() {
                // `max` and `min` return their second operand if either is NaN, so a NaN sum stays NaN.
                let value = hi.min(lo.max(*sum));
                if FULL || vector + 1 < VECTORS {
                    value.store(target.add(vector * V::LANES));
                } else {
                    value.store_first(target.add(last_offset), width - first_column - last_offset);
                }
            }
        }
    }
}
