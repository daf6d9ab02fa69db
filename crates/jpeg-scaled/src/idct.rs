//! Inverse DCTs that transform a block to 1, 2×2, 4×4 or 8×8 samples.
//!
//! The samples are bit for bit the samples of libjpeg's "slow integer" method (`jidctred.c` and
//! `jidctint.c`). Like libjpeg, the transforms process the columns in a first pass and the rows in a second
//! pass, and round the intermediate values between the passes. Out-of-range coefficients, which only corrupt
//! files contain, overflow with wrap-around.
//!
//! Eight blocks are transformed at once. Each block is a lane of [`Lanes`], and every step is a loop over
//! contiguous lanes, which the compiler vectorises. `f0` to `f7` are the coefficients of a row or column, in
//! ascending order of frequency.
//!
//! # Shifts
//! The results of a pass are multiples of the samples. A shift divides the results by a power of two, whose
//! exponent consists of these terms:
//! - [`CONSTANT_BITS`], the fraction bits of the constants.
//! - [`PASS_BITS`], subtracted in the first pass, which leaves that many fraction bits in the results, and
//!   added in the second pass, which removes these fraction bits.
//! - 3 in the second pass, because the two passes together compute 8 times a sample.
//! - In both passes, 1 for [`idct_to_4`], which returns sums of two samples of the full transform, or 2 for
//!   [`idct_to_2`], which returns sums of four.

#![expect(clippy::needless_range_loop, reason = "one index addresses several arrays")]

use crate::header::QuantizationSteps;

/// Number of blocks that are transformed at once.
pub(crate) const LANES: usize = 8;

/// The coefficients of [`LANES`] neighbouring blocks: 8 rows of 8 coefficients, interleaved by block.
pub(crate) type BlockGroup = [[Lanes; 8]; 8];

/// The same coefficient of each block in a group.
pub(crate) type Lanes = [i16; LANES];

/// A group whose coefficients are all zero.
pub(crate) const EMPTY_GROUP: BlockGroup = [[[0; LANES]; 8]; 8];

/// Number of fraction bits of the constants.
const CONSTANT_BITS: u32 = 13;
/// Number of fraction bits of the intermediate values between the passes.
const PASS_BITS: u32 = 2;

/// The constants of libjpeg: sums of √2 · cos(kπ/16), as fixed-point numbers with 13 fraction bits.
mod fixed {
    pub(super) const F_0_211: i16 = 1730;
    pub(super) const F_0_298: i16 = 2446;
    pub(super) const F_0_390: i16 = 3196;
    pub(super) const F_0_509: i16 = 4176;
    pub(super) const F_0_541: i16 = 4433;
    pub(super) const F_0_601: i16 = 4926;
    pub(super) const F_0_720: i16 = 5906;
    pub(super) const F_0_765: i16 = 6270;
    pub(super) const F_0_850: i16 = 6967;
    pub(super) const F_0_899: i16 = 7373;
    pub(super) const F_1_061: i16 = 8697;
    pub(super) const F_1_175: i16 = 9633;
    pub(super) const F_1_272: i16 = 10426;
    pub(super) const F_1_451: i16 = 11893;
    pub(super) const F_1_501: i16 = 12299;
    pub(super) const F_1_847: i16 = 15137;
    pub(super) const F_1_961: i16 = 16069;
    pub(super) const F_2_053: i16 = 16819;
    pub(super) const F_2_172: i16 = 17799;
    pub(super) const F_2_562: i16 = 20995;
    pub(super) const F_3_072: i16 = 25172;
    pub(super) const F_3_624: i16 = 29692;
}
use fixed::*;

/// Multiplies two 16-bit numbers. The product always fits 32 bits.
///
/// Processors multiply vectors of 16-bit numbers faster than vectors of 32-bit numbers.
#[inline(always)]
fn multiply(value: i16, constant: i16) -> i32 {
    i32::from(value) * i32::from(constant)
}

/// Multiplies each value by its constant and returns the sum of the products.
#[inline(always)]
fn sum_products<const N: usize>(terms: [(i16, i16); N]) -> i32 {
    let mut sum = 0i32;
    for (value, constant) in terms {
        sum = sum.wrapping_add(multiply(value, constant));
    }
    sum
}

/// Removes `bits` fraction bits and rounds to the nearest integer.
#[inline(always)]
fn descale(value: i32, bits: u32) -> i32 {
    value.wrapping_add(1 << (bits - 1)) >> bits
}

/// Converts the result of a pass to 16 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "only out-of-range coefficients wrap around")]
fn wrap_to_i16(value: i32) -> i16 {
    value as i16
}

/// Converts a result of the second pass to a sample of 0 to 255. The results are centred on zero.
#[inline(always)]
#[expect(clippy::cast_sign_loss, reason = "clamped")]
fn to_sample(value: i32) -> u8 {
    wrap_to_i16(value).saturating_add(128).clamp(0, 255) as u8
}

/// Returns a coefficient multiplied by its quantiser step.
#[inline(always)]
fn dequantize(group: &BlockGroup, steps: &QuantizationSteps, row: usize, column: usize, lane: usize) -> i16 {
    // Columns are less than 8. The mask lets the compiler omit the bounds check.
    group[row][column & 7][lane].wrapping_mul(steps[8 * row + (column & 7)])
}

/// Transforms each block of a group to `side` × `side` samples and clears the group.
///
/// Writes the blocks side by side to the start of each row of `output`. Rows are `stride` samples apart.
#[inline(always)]
pub(crate) fn transform(
    group: &mut BlockGroup,
    steps: &QuantizationSteps,
    side: usize,
    output: &mut [u8],
    stride: usize,
) {
    match side {
        1 => write_samples(&to_1x1(group, steps), output, stride),
        2 => write_samples(&to_2x2(group, steps), output, stride),
        4 => write_samples(&to_4x4(group, steps), output, stride),
        _ => write_samples(&to_8x8(group, steps), output, stride),
    }
    *group = EMPTY_GROUP;
}

/// Copies each row of `samples` to the start of a row of `output`. Rows of `output` are `stride` samples
/// apart.
#[inline(always)]
fn write_samples<const WIDTH: usize, const HEIGHT: usize>(
    samples: &[[u8; WIDTH]; HEIGHT],
    output: &mut [u8],
    stride: usize,
) {
    for (to, from) in output.chunks_mut(stride).zip(samples) {
        to[..WIDTH].copy_from_slice(from);
    }
}

/// Transforms each block to one sample, which is the mean of the block.
#[inline(always)]
fn to_1x1(group: &BlockGroup, steps: &QuantizationSteps) -> [[u8; LANES]; 1] {
    let mut samples = [0; LANES];
    for lane in 0..LANES {
        samples[lane] = to_sample(descale(dequantize(group, steps, 0, 0, lane).into(), 3));
    }
    [samples]
}

/// Transforms each block to 2×2 samples.
#[inline(always)]
fn to_2x2(group: &BlockGroup, steps: &QuantizationSteps) -> [[u8; 2 * LANES]; 2] {
    const FIRST_PASS_SHIFT: u32 = CONSTANT_BITS - PASS_BITS + 2;
    const SECOND_PASS_SHIFT: u32 = CONSTANT_BITS + PASS_BITS + 3 + 2;
    let mut intermediate_rows = [[[0; LANES]; 5]; 2];
    for (index, column) in [0, 1, 3, 5, 7].into_iter().enumerate() {
        for lane in 0..LANES {
            let f = |row| dequantize(group, steps, row, column, lane);
            let values = idct_to_2([f(0), f(1), f(3), f(5), f(7)]);
            intermediate_rows[0][index][lane] = wrap_to_i16(descale(values[0], FIRST_PASS_SHIFT));
            intermediate_rows[1][index][lane] = wrap_to_i16(descale(values[1], FIRST_PASS_SHIFT));
        }
    }
    let mut samples = [[0; 2 * LANES]; 2];
    for (to, row) in samples.iter_mut().zip(&intermediate_rows) {
        for lane in 0..LANES {
            let [left, right] =
                idct_to_2([row[0][lane], row[1][lane], row[2][lane], row[3][lane], row[4][lane]]);
            to[2 * lane] = to_sample(descale(left, SECOND_PASS_SHIFT));
            to[2 * lane + 1] = to_sample(descale(right, SECOND_PASS_SHIFT));
        }
    }
    samples
}

/// Transforms a row or column of eight coefficients to two values, each the sum of four neighbouring samples.
/// `f2`, `f4` and `f6` do not contribute to these sums.
#[inline(always)]
fn idct_to_2([f0, f1, f3, f5, f7]: [i16; 5]) -> [i32; 2] {
    let dc = i32::from(f0) << (CONSTANT_BITS + 2);
    let odd = sum_products([(f7, -F_0_720), (f5, F_0_850), (f3, -F_1_272), (f1, F_3_624)]);
    [dc.wrapping_add(odd), dc.wrapping_sub(odd)]
}

/// Transforms each block to 4×4 samples.
#[inline(always)]
fn to_4x4(group: &BlockGroup, steps: &QuantizationSteps) -> [[u8; 4 * LANES]; 4] {
    const FIRST_PASS_SHIFT: u32 = CONSTANT_BITS - PASS_BITS + 1;
    const SECOND_PASS_SHIFT: u32 = CONSTANT_BITS + PASS_BITS + 3 + 1;
    let mut intermediate_rows = [[[0; LANES]; 7]; 4];
    for (index, column) in [0, 1, 2, 3, 5, 6, 7].into_iter().enumerate() {
        for lane in 0..LANES {
            let f = |row| dequantize(group, steps, row, column, lane);
            let values = idct_to_4([f(0), f(1), f(2), f(3), f(5), f(6), f(7)]);
            for (row, value) in intermediate_rows.iter_mut().zip(values) {
                row[index][lane] = wrap_to_i16(descale(value, FIRST_PASS_SHIFT));
            }
        }
    }
    let mut samples = [[0; 4 * LANES]; 4];
    for (to, row) in samples.iter_mut().zip(&intermediate_rows) {
        for lane in 0..LANES {
            let row_values = idct_to_4([
                row[0][lane],
                row[1][lane],
                row[2][lane],
                row[3][lane],
                row[4][lane],
                row[5][lane],
                row[6][lane],
            ]);
            for index in 0..4 {
                to[4 * lane + index] = to_sample(descale(row_values[index], SECOND_PASS_SHIFT));
            }
        }
    }
    samples
}

/// Transforms a row or column of eight coefficients to four values, each the sum of two neighbouring samples.
/// `f4` does not contribute to these sums.
#[inline(always)]
fn idct_to_4([f0, f1, f2, f3, f5, f6, f7]: [i16; 7]) -> [i32; 4] {
    let dc = i32::from(f0) << (CONSTANT_BITS + 1);
    let even = sum_products([(f2, F_1_847), (f6, -F_0_765)]);
    let (outer, inner) = (dc.wrapping_add(even), dc.wrapping_sub(even));
    let odd_inner = sum_products([(f7, -F_0_211), (f5, F_1_451), (f3, -F_2_172), (f1, F_1_061)]);
    let odd_outer = sum_products([(f7, -F_0_509), (f5, -F_0_601), (f3, F_0_899), (f1, F_2_562)]);
    [
        outer.wrapping_add(odd_outer),
        inner.wrapping_add(odd_inner),
        inner.wrapping_sub(odd_inner),
        outer.wrapping_sub(odd_outer),
    ]
}

/// Transforms each block to 8×8 samples.
#[inline(always)]
fn to_8x8(group: &BlockGroup, steps: &QuantizationSteps) -> [[u8; 8 * LANES]; 8] {
    const FIRST_PASS_SHIFT: u32 = CONSTANT_BITS - PASS_BITS;
    const SECOND_PASS_SHIFT: u32 = CONSTANT_BITS + PASS_BITS + 3;
    let mut intermediate_rows = [[[0; LANES]; 8]; 8];
    for column in 0..8 {
        for lane in 0..LANES {
            let f = |row| dequantize(group, steps, row, column, lane);
            let values = idct_to_8([f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)]);
            for (row, value) in intermediate_rows.iter_mut().zip(values) {
                row[column][lane] = wrap_to_i16(descale(value, FIRST_PASS_SHIFT));
            }
        }
    }
    let mut samples = [[0; 8 * LANES]; 8];
    for (to, row) in samples.iter_mut().zip(&intermediate_rows) {
        for lane in 0..LANES {
            let row_values = idct_to_8([
                row[0][lane],
                row[1][lane],
                row[2][lane],
                row[3][lane],
                row[4][lane],
                row[5][lane],
                row[6][lane],
                row[7][lane],
            ]);
            for index in 0..8 {
                to[8 * lane + index] = to_sample(descale(row_values[index], SECOND_PASS_SHIFT));
            }
        }
    }
    samples
}

/// Transforms a row or column of eight coefficients to eight samples.
#[inline(always)]
fn idct_to_8([f0, f1, f2, f3, f4, f5, f6, f7]: [i16; 8]) -> [i32; 8] {
    let (f0, f4) = (i32::from(f0), i32::from(f4));
    let outer = sum_products([(f2, F_0_541 + F_0_765), (f6, F_0_541)]);
    let inner = sum_products([(f2, F_0_541), (f6, F_0_541 - F_1_847)]);
    let (plus, minus) = ((f0 + f4) << CONSTANT_BITS, (f0 - f4) << CONSTANT_BITS);
    let even = [
        plus.wrapping_add(outer),
        minus.wrapping_add(inner),
        minus.wrapping_sub(inner),
        plus.wrapping_sub(outer),
    ];
    // libjpeg adds coefficients before it multiplies, to save multiplications. The results are the same.
    let odd = [
        sum_products([
            (f1, F_1_175 + F_1_501 - F_0_899 - F_0_390),
            (f3, F_1_175),
            (f5, F_1_175 - F_0_390),
            (f7, F_1_175 - F_0_899),
        ]),
        sum_products([
            (f1, F_1_175),
            (f3, F_3_072 - F_2_562 + F_1_175 - F_1_961),
            (f5, F_1_175 - F_2_562),
            (f7, F_1_175 - F_1_961),
        ]),
        sum_products([
            (f1, F_1_175 - F_0_390),
            (f3, F_1_175 - F_2_562),
            (f5, F_1_175 + F_2_053 - F_2_562 - F_0_390),
            (f7, F_1_175),
        ]),
        sum_products([
            (f1, F_1_175 - F_0_899),
            (f3, F_1_175 - F_1_961),
            (f5, F_1_175),
            (f7, F_1_175 + F_0_298 - F_0_899 - F_1_961),
        ]),
    ];
    [
        even[0].wrapping_add(odd[0]),
        even[1].wrapping_add(odd[1]),
        even[2].wrapping_add(odd[2]),
        even[3].wrapping_add(odd[3]),
        even[3].wrapping_sub(odd[3]),
        even[2].wrapping_sub(odd[2]),
        even[1].wrapping_sub(odd[1]),
        even[0].wrapping_sub(odd[0]),
    ]
}
