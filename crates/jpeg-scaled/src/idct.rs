//! Inverse DCTs that make 1, 2×2, 4×4 or 8×8 samples of a block, to the bit those of libjpeg
//! (`jidctred.c` and `jidctint.c`, its "slow integer" method).
//!
//! The two passes are the definition: columns first, and a rounding between the passes. Where a file
//! goes beyond what an encoder can make, values wrap around.
//!
//! Eight blocks are transformed at once, one in each lane, so that every step is the same for eight
//! numbers that lie side by side: compilers make vector instructions of that.

#![expect(clippy::needless_range_loop, reason = "a lane is the same in many arrays")]

use crate::header::Quantization;

/// Blocks that are transformed at once.
pub(crate) const LANES: usize = 8;

/// The coefficients of neighbouring blocks: 8 rows of 8, each for every block.
pub(crate) type Band = [[Lanes; 8]; 8];

/// The same number of each block.
pub(crate) type Lanes = [i16; LANES];

/// No coefficients.
pub(crate) const EMPTY_BAND: Band = [[[0; LANES]; 8]; 8];

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

/// The product of two 16-bit numbers, which cannot overflow. (And which is a few instructions for eight
/// of them, where one of 32-bit numbers is many more.)
#[inline(always)]
fn multiply(value: i16, constant: i16) -> i32 {
    i32::from(value) * i32::from(constant)
}

/// The sum of products.
#[inline(always)]
fn sum<const N: usize>(terms: [(i16, i16); N]) -> i32 {
    let mut sum = 0i32;
    for (value, constant) in terms {
        sum = sum.wrapping_add(multiply(value, constant));
    }
    sum
}

/// `value` with `bits` fewer bits, rounded.
#[inline(always)]
fn descale(value: i32, bits: u32) -> i32 {
    value.wrapping_add(1 << (bits - 1)) >> bits
}

/// A number between the passes.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "it fits, or wraps around")]
fn between(value: i32) -> i16 {
    value as i16
}

/// A sample, which is stored around zero.
#[inline(always)]
#[expect(clippy::cast_sign_loss, reason = "clamped")]
fn sample(value: i32) -> u8 {
    between(value).saturating_add(128).clamp(0, 255) as u8
}

/// A coefficient before quantisation.
#[inline(always)]
fn frequency(band: &Band, steps: &Quantization, row: usize, column: usize, lane: usize) -> i16 {
    band[row][column & 7][lane].wrapping_mul(steps[8 * row + (column & 7)])
}

/// Writes the samples of eight blocks, `side` × `side` of each, to the start of rows that are `stride`
/// long, and leaves zeros in `band`.
#[inline(always)]
pub(crate) fn transform(band: &mut Band, steps: &Quantization, side: usize, rows: &mut [u8], stride: usize) {
    match side {
        1 => write(&to_1(band, steps), rows, stride),
        2 => write(&to_2x2(band, steps), rows, stride),
        4 => write(&to_4x4(band, steps), rows, stride),
        _ => write(&to_8x8(band, steps), rows, stride),
    }
    *band = EMPTY_BAND;
}

#[inline(always)]
fn write<const WIDTH: usize, const HEIGHT: usize>(
    samples: &[[u8; WIDTH]; HEIGHT],
    rows: &mut [u8],
    stride: usize,
) {
    for (to, from) in rows.chunks_mut(stride).zip(samples) {
        to[..WIDTH].copy_from_slice(from);
    }
}

/// The one sample of each block: its mean.
#[inline(always)]
fn to_1(band: &Band, steps: &Quantization) -> [[u8; LANES]; 1] {
    let mut samples = [0; LANES];
    for lane in 0..LANES {
        samples[lane] = sample(descale(frequency(band, steps, 0, 0, lane).into(), 3));
    }
    [samples]
}

/// 2×2 samples.
#[inline(always)]
fn to_2x2(band: &Band, steps: &Quantization) -> [[u8; 2 * LANES]; 2] {
    const PASS_1: u32 = CONSTANT_BITS - PASS_BITS + 2;
    const PASS_2: u32 = CONSTANT_BITS + PASS_BITS + 3 + 2;
    let mut rows = [[[0; LANES]; 5]; 2];
    for (place, column) in [0, 1, 3, 5, 7].into_iter().enumerate() {
        for lane in 0..LANES {
            let f = |row| frequency(band, steps, row, column, lane);
            let samples = two_of_eight([f(0), f(1), f(3), f(5), f(7)]);
            rows[0][place][lane] = between(descale(samples[0], PASS_1));
            rows[1][place][lane] = between(descale(samples[1], PASS_1));
        }
    }
    let mut samples = [[0; 2 * LANES]; 2];
    for (to, row) in samples.iter_mut().zip(&rows) {
        for lane in 0..LANES {
            let [left, right] =
                two_of_eight([row[0][lane], row[1][lane], row[2][lane], row[3][lane], row[4][lane]]);
            to[2 * lane] = sample(descale(left, PASS_2));
            to[2 * lane + 1] = sample(descale(right, PASS_2));
        }
    }
    samples
}

/// Two samples of the frequencies 0, 1, 3, 5 and 7; the others have no part in them.
#[inline(always)]
fn two_of_eight([f0, f1, f3, f5, f7]: [i16; 5]) -> [i32; 2] {
    let even = i32::from(f0) << (CONSTANT_BITS + 2);
    let odd = sum([(f7, -F_0_720), (f5, F_0_850), (f3, -F_1_272), (f1, F_3_624)]);
    [even.wrapping_add(odd), even.wrapping_sub(odd)]
}

/// 4×4 samples.
#[inline(always)]
fn to_4x4(band: &Band, steps: &Quantization) -> [[u8; 4 * LANES]; 4] {
    const PASS_1: u32 = CONSTANT_BITS - PASS_BITS + 1;
    const PASS_2: u32 = CONSTANT_BITS + PASS_BITS + 3 + 1;
    let mut rows = [[[0; LANES]; 7]; 4];
    for (place, column) in [0, 1, 2, 3, 5, 6, 7].into_iter().enumerate() {
        for lane in 0..LANES {
            let f = |row| frequency(band, steps, row, column, lane);
            let samples = four_of_eight([f(0), f(1), f(2), f(3), f(5), f(6), f(7)]);
            for (row, sample) in rows.iter_mut().zip(samples) {
                row[place][lane] = between(descale(sample, PASS_1));
            }
        }
    }
    let mut samples = [[0; 4 * LANES]; 4];
    for (to, row) in samples.iter_mut().zip(&rows) {
        for lane in 0..LANES {
            let four = four_of_eight([
                row[0][lane],
                row[1][lane],
                row[2][lane],
                row[3][lane],
                row[4][lane],
                row[5][lane],
                row[6][lane],
            ]);
            for at in 0..4 {
                to[4 * lane + at] = sample(descale(four[at], PASS_2));
            }
        }
    }
    samples
}

/// Four samples of the frequencies 0 to 7 but 4, which has no part in them.
#[inline(always)]
fn four_of_eight([f0, f1, f2, f3, f5, f6, f7]: [i16; 7]) -> [i32; 4] {
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
#[inline(always)]
fn to_8x8(band: &Band, steps: &Quantization) -> [[u8; 8 * LANES]; 8] {
    const PASS_1: u32 = CONSTANT_BITS - PASS_BITS;
    const PASS_2: u32 = CONSTANT_BITS + PASS_BITS + 3;
    let mut rows = [[[0; LANES]; 8]; 8];
    for column in 0..8 {
        for lane in 0..LANES {
            let f = |row| frequency(band, steps, row, column, lane);
            let samples = eight([f(0), f(1), f(2), f(3), f(4), f(5), f(6), f(7)]);
            for (row, sample) in rows.iter_mut().zip(samples) {
                row[column][lane] = between(descale(sample, PASS_1));
            }
        }
    }
    let mut samples = [[0; 8 * LANES]; 8];
    for (to, row) in samples.iter_mut().zip(&rows) {
        for lane in 0..LANES {
            let eight = eight([
                row[0][lane],
                row[1][lane],
                row[2][lane],
                row[3][lane],
                row[4][lane],
                row[5][lane],
                row[6][lane],
                row[7][lane],
            ]);
            for at in 0..8 {
                to[8 * lane + at] = sample(descale(eight[at], PASS_2));
            }
        }
    }
    samples
}

/// Eight samples of eight frequencies.
#[inline(always)]
fn eight([f0, f1, f2, f3, f4, f5, f6, f7]: [i16; 8]) -> [i32; 8] {
    let (mean, quarter) = (i32::from(f0), i32::from(f4));
    let even = sum([(f2, F_0_541 + F_0_765), (f6, F_0_541)]);
    let odd = sum([(f2, F_0_541), (f6, F_0_541 - F_1_847)]);
    let (plus, minus) = ((mean + quarter) << CONSTANT_BITS, (mean - quarter) << CONSTANT_BITS);
    let even =
        [plus.wrapping_add(even), minus.wrapping_add(odd), minus.wrapping_sub(odd), plus.wrapping_sub(even)];
    // libjpeg takes sums of frequencies first, to save multiplications; the products are the same.
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
