//! Inverse DCTs that make 1, 2×2, 4×4 or 8×8 samples of a block, to the bit those of libjpeg
//! (`jidctred.c` and `jidctint.c`, its "slow integer" method).
//!
//! The two passes are the definition: columns first, and a rounding between the passes. Where a file
//! goes beyond what an encoder can make, values wrap around or saturate.

use crate::{block::Coefficients, header::Quantization};

/// Fraction bits of the constants.
const CONSTANT_BITS: u32 = 13;
/// Fraction bits between the passes.
const PASS_BITS: u32 = 2;

/// √2 · cos, in sums that libjpeg's derivation gives, with 13 fraction bits.
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

/// The product of two 16-bit numbers, which cannot overflow. (And which is one or two instructions for
/// eight of them, where one of 32-bit numbers is many more.)
#[inline(always)]
fn multiply(value: i16, constant: i16) -> i32 {
    i32::from(value) * i32::from(constant)
}

/// The sum of products.
#[inline(always)]
fn sum<const N: usize>(terms: [(i16, i16); N]) -> i32 {
    terms.into_iter().fold(0, |sum: i32, (value, constant)| sum.wrapping_add(multiply(value, constant)))
}

/// `value` with `bits` fewer bits, rounded.
#[inline(always)]
fn descale(value: i32, bits: u32) -> i32 {
    value.wrapping_add(1 << (bits - 1)) >> bits
}

/// A number between the passes.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "clamped")]
fn between(value: i32) -> i16 {
    value.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// A sample, which is stored around zero.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn sample(value: i32) -> u8 {
    value.wrapping_add(128).clamp(0, 255) as u8
}

/// Row `row` of the coefficients before quantisation.
#[inline(always)]
fn row(block: &Coefficients, steps: &Quantization, row: usize) -> [i16; 8] {
    let at = 8 * row;
    std::array::from_fn(|column| block[at + column].wrapping_mul(steps[at + column]))
}

/// The one sample of a block: its mean.
#[inline(always)]
pub(crate) fn to_1(dc: i16, step: i16) -> u8 {
    sample(descale(dc.wrapping_mul(step).into(), 3))
}

/// 2×2 samples.
pub(crate) fn to_2x2(block: &Coefficients, steps: &Quantization) -> [[u8; 2]; 2] {
    const PASS_1: u32 = CONSTANT_BITS - PASS_BITS + 2;
    const PASS_2: u32 = CONSTANT_BITS + PASS_BITS + 3 + 2;
    let [r0, r1, r3, r5, r7] = [0, 1, 3, 5, 7].map(|at| row(block, steps, at));
    let mut rows = [[0; 8]; 2];
    for c in 0..8 {
        let even = i32::from(r0[c]) << (CONSTANT_BITS + 2);
        let odd = sum([(r7[c], -F_0_720), (r5[c], F_0_850), (r3[c], -F_1_272), (r1[c], F_3_624)]);
        rows[0][c] = between(descale(even.wrapping_add(odd), PASS_1));
        rows[1][c] = between(descale(even.wrapping_sub(odd), PASS_1));
    }
    rows.map(|row| {
        let even = i32::from(row[0]) << (CONSTANT_BITS + 2);
        let odd = sum([(row[7], -F_0_720), (row[5], F_0_850), (row[3], -F_1_272), (row[1], F_3_624)]);
        [even.wrapping_add(odd), even.wrapping_sub(odd)].map(|value| sample(descale(value, PASS_2)))
    })
}

/// 4×4 samples.
pub(crate) fn to_4x4(block: &Coefficients, steps: &Quantization) -> [[u8; 4]; 4] {
    const PASS_1: u32 = CONSTANT_BITS - PASS_BITS + 1;
    const PASS_2: u32 = CONSTANT_BITS + PASS_BITS + 3 + 1;
    let [r0, r1, r2, r3, r5, r6, r7] = [0, 1, 2, 3, 5, 6, 7].map(|at| row(block, steps, at));
    let mut rows = [[0; 8]; 4];
    for c in 0..8 {
        let sums = four_of_eight(r0[c], r1[c], r2[c], r3[c], r5[c], r6[c], r7[c]);
        for (row, sum) in rows.iter_mut().zip(sums) {
            row[c] = between(descale(sum, PASS_1));
        }
    }
    rows.map(|row| {
        let sums = four_of_eight(row[0], row[1], row[2], row[3], row[5], row[6], row[7]);
        sums.map(|sum| sample(descale(sum, PASS_2)))
    })
}

/// Four samples of the frequencies 0 to 7 but 4, which has no part in them.
#[inline(always)]
fn four_of_eight(f0: i16, f1: i16, f2: i16, f3: i16, f5: i16, f6: i16, f7: i16) -> [i32; 4] {
    let mean = i32::from(f0) << (CONSTANT_BITS + 1);
    let even = sum([(f2, F_1_847), (f6, -F_0_765)]);
    let (outer, inner) = (mean.wrapping_add(even), mean.wrapping_sub(even));
    let odd_inner = sum([(f7, -F_0_211), (f5, F_1_451), (f3, -F_2_172), (f1, F_1_061)]);
    let odd_outer = sum([(f7, -F_0_509), (f5, -F_0_601), (f3, F_0_899), (f1, F_2_562)]);
    [
        outer.wrapping_add(odd_outer),
        inner.wrapping_add(odd_inner),
        inner.wrapping_sub(odd_inner),
        outer.wrapping_sub(odd_outer),
    ]
}

/// 8×8 samples.
pub(crate) fn to_8x8(block: &Coefficients, steps: &Quantization) -> [[u8; 8]; 8] {
    const PASS_1: u32 = CONSTANT_BITS - PASS_BITS;
    const PASS_2: u32 = CONSTANT_BITS + PASS_BITS + 3;
    let frequencies: [[i16; 8]; 8] = std::array::from_fn(|at| row(block, steps, at));
    // Both passes work on columns, eight at once; the second one on columns that were rows.
    let rows = transposed(&eight(&frequencies).map(|row| row.map(|sum| between(descale(sum, PASS_1)))));
    transposed(&eight(&rows).map(|row| row.map(|sum| sample(descale(sum, PASS_2)))))
}

/// Eight samples of eight frequencies, for eight columns.
#[inline(always)]
fn eight(f: &[[i16; 8]; 8]) -> [[i32; 8]; 8] {
    let mut samples = [[0; 8]; 8];
    for c in 0..8 {
        let (mean, quarter) = (i32::from(f[0][c]), i32::from(f[4][c]));
        let even = sum([(f[2][c], F_0_541 + F_0_765), (f[6][c], F_0_541)]);
        let odd = sum([(f[2][c], F_0_541), (f[6][c], F_0_541 - F_1_847)]);
        let (plus, minus) = ((mean + quarter) << CONSTANT_BITS, (mean - quarter) << CONSTANT_BITS);
        let even = [
            plus.wrapping_add(even),
            minus.wrapping_add(odd),
            minus.wrapping_sub(odd),
            plus.wrapping_sub(even),
        ];
        // libjpeg takes sums of frequencies first, to save multiplications; the products are the same.
        let (f1, f3, f5, f7) = (f[1][c], f[3][c], f[5][c], f[7][c]);
        let odd = [
            sum([
                (f1, F_1_175 + F_1_501 - F_0_899 - F_0_390),
                (f3, F_1_175),
                (f5, F_1_175 - F_0_390),
                (f7, F_1_175 - F_0_899),
            ]),
            sum([
                (f1, F_1_175),
                (f3, F_3_072 - F_2_562 + F_1_175 - F_1_961),
                (f5, F_1_175 - F_2_562),
                (f7, F_1_175 - F_1_961),
            ]),
            sum([
                (f1, F_1_175 - F_0_390),
                (f3, F_1_175 - F_2_562),
                (f5, F_1_175 + F_2_053 - F_2_562 - F_0_390),
                (f7, F_1_175),
            ]),
            sum([
                (f1, F_1_175 - F_0_899),
                (f3, F_1_175 - F_1_961),
                (f5, F_1_175),
                (f7, F_1_175 + F_0_298 - F_0_899 - F_1_961),
            ]),
        ];
        for at in 0..4 {
            samples[at][c] = even[at].wrapping_add(odd[at]);
            samples[7 - at][c] = even[at].wrapping_sub(odd[at]);
        }
    }
    samples
}

#[inline(always)]
fn transposed<T: Copy + Default>(rows: &[[T; 8]; 8]) -> [[T; 8]; 8] {
    std::array::from_fn(|row| std::array::from_fn(|column| rows[column][row]))
}
