//! Converts rows of samples to rows of RGB pixels, bit for bit as libjpeg does.

/// Number of pixels that are converted per iteration. The number is a constant, so that the compiler
/// vectorises every step.
const CHUNK_PIXELS: usize = 16;

/// Converts a row of Y, Cb and Cr samples to a row of RGB pixels.
///
/// `y`, `cb` and `cr` must have at least as many samples as `rgb` has pixels.
#[inline(always)]
pub(crate) fn convert_ycbcr_row(y: &[u8], cb: &[u8], cr: &[u8], rgb: &mut [u8]) {
    let (chunks, rest) = rgb.as_chunks_mut::<{ 3 * CHUNK_PIXELS }>();
    let converted_count = chunks.len() * CHUNK_PIXELS;
    let samples = (y.as_chunks().0.iter()).zip(cb.as_chunks().0).zip(cr.as_chunks().0);
    for (to, ((y, cb), cr)) in chunks.iter_mut().zip(samples) {
        *to = remove_fourth_bytes(&convert_to_words(y, cb, cr));
    }
    let samples = (y.iter().zip(cb).zip(cr)).skip(converted_count);
    for (to, ((&y, &cb), &cr)) in rest.as_chunks_mut::<3>().0.iter_mut().zip(samples) {
        *to = convert_pixel(y, cb, cr);
    }
}

/// Converts one pixel from YCbCr to RGB.
///
/// libjpeg multiplies by 1.402, 1.772, -0.34414 and -0.71414, as fixed-point numbers with 16 fraction bits.
/// Three of these factors do not fit in an `i16`, so an integer is split off: `1.402 * cr` is
/// `cr + 0.402 * cr`. With 16-bit factors, one vector instruction computes eight products.
#[inline(always)]
fn convert_pixel(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    const RED_CR: i16 = 26345; // 1.402 - 1
    const GREEN_CB: i16 = -22554; // -0.34414
    const GREEN_CR: i16 = 18734; // -0.71414 + 1
    const BLUE_CB: i16 = -14942; // 1.772 - 2
    let (y, cb, cr) = (i16::from(y), i16::from(cb) - 128, i16::from(cr) - 128);
    let red = y + cr + multiply_rounded(cr, RED_CR);
    let green = y - cr + integer_part(multiply(cb, GREEN_CB) + multiply(cr, GREEN_CR) + HALF);
    let blue = y + 2 * cb + multiply_rounded(cb, BLUE_CB);
    [clamp_to_byte(red), clamp_to_byte(green), clamp_to_byte(blue)]
}

#[inline(always)]
fn multiply(value: i16, factor: i16) -> i32 {
    i32::from(value) * i32::from(factor)
}

/// Returns `integer_part(multiply(value, factor) + HALF)` without a 32-bit addition.
///
/// The function keeps one fraction bit of the product, so that adding 1 adds a half, and then drops the
/// fraction bit.
#[inline(always)]
fn multiply_rounded(value: i16, factor: i16) -> i16 {
    (integer_part(multiply(2 * value, factor)) + 1) >> 1
}

/// Returns the integer part of a number with 16 fraction bits.
#[inline(always)]
fn integer_part(value: i32) -> i16 {
    (value >> 16) as i16
}

#[inline(always)]
#[expect(clippy::cast_sign_loss, reason = "clamped")]
fn clamp_to_byte(value: i16) -> u8 {
    value.clamp(0, 255) as u8
}

/// Converts pixels to words of 32 bits: red in the lowest byte, zero in the highest.
#[inline(always)]
fn convert_to_words(
    y: &[u8; CHUNK_PIXELS],
    cb: &[u8; CHUNK_PIXELS],
    cr: &[u8; CHUNK_PIXELS],
) -> [u32; CHUNK_PIXELS] {
    let mut words = [0; CHUNK_PIXELS];
    for index in 0..CHUNK_PIXELS {
        let [red, green, blue] = convert_pixel(y[index], cb[index], cr[index]);
        words[index] = u32::from_le_bytes([red, green, blue, 0]);
    }
    words
}

/// Removes the zero byte of each pixel, so that four words become three.
#[inline(always)]
fn remove_fourth_bytes(words: &[u32; CHUNK_PIXELS]) -> [u8; 3 * CHUNK_PIXELS] {
    let mut bytes = [0; 3 * CHUNK_PIXELS];
    let groups = words.as_chunks::<4>().0;
    for (to, &[first, second, third, fourth]) in bytes.as_chunks_mut::<12>().0.iter_mut().zip(groups) {
        let packed = [first | second << 24, second >> 8 | third << 16, third >> 16 | fourth << 8];
        for (to, word) in to.as_chunks_mut().0.iter_mut().zip(packed) {
            *to = word.to_le_bytes();
        }
    }
    bytes
}

/// Interleaves the rows of samples of `N` components to a row of pixels with `N` bytes each.
///
/// Each row of `samples` must have at least as many samples as `row` has pixels.
#[inline(always)]
pub(crate) fn interleave_row<const N: usize>(samples: [&[u8]; N], row: &mut [u8]) {
    let pixels = row.as_chunks_mut::<N>().0;
    let samples = samples.map(|samples| &samples[..pixels.len()]);
    for (index, pixel) in pixels.iter_mut().enumerate() {
        *pixel = samples.map(|samples| samples[index]);
    }
}
