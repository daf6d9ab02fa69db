//! Rows of samples to rows of RGB, with the numbers of libjpeg.

/// Pixels that are converted at once, so that compilers make vector instructions of every step.
const PIXELS: usize = 16;

/// Writes a row of RGB from rows of brightness and the two differences of colour, which are at least as
/// long.
#[inline(always)]
pub(crate) fn from_ycbcr(y: &[u8], cb: &[u8], cr: &[u8], rgb: &mut [u8]) {
    let (chunks, rest) = rgb.as_chunks_mut::<{ 3 * PIXELS }>();
    let converted = chunks.len() * PIXELS;
    let samples = (y.as_chunks().0.iter()).zip(cb.as_chunks().0).zip(cr.as_chunks().0);
    for (to, ((y, cb), cr)) in chunks.iter_mut().zip(samples) {
        *to = interleaved(&packed(y, cb, cr));
    }
    let samples = (y.iter().zip(cb).zip(cr)).skip(converted);
    for (to, ((&y, &cb), &cr)) in rest.as_chunks_mut::<3>().0.iter_mut().zip(samples) {
        *to = pixel(y, cb, cr);
    }
}

/// One pixel.
///
/// libjpeg's factors 1.402, 1.772 and 0.71414, in 1/65536, are whole ones and a rest here: a product of
/// 16-bit numbers is one instruction for eight of them.
#[inline(always)]
fn pixel(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    const RED_CR: i16 = 26345; // 1.402 - 1
    const GREEN_CB: i16 = -22554; // -0.34414
    const GREEN_CR: i16 = 18734; // -0.71414 + 1
    const BLUE_CB: i16 = -14942; // 1.772 - 2
    let (y, cb, cr) = (i16::from(y), i16::from(cb) - 128, i16::from(cr) - 128);
    let red = y + cr + rounded(cr, RED_CR);
    let green = y - cr + whole(product(cb, GREEN_CB) + product(cr, GREEN_CR) + HALF);
    let blue = y + 2 * cb + rounded(cb, BLUE_CB);
    [clamped(red), clamped(green), clamped(blue)]
}

#[inline(always)]
fn product(value: i16, factor: i16) -> i32 {
    i32::from(value) * i32::from(factor)
}

/// `whole(product + HALF)` within 16 bits: the half is added to one bit more than is wanted.
#[inline(always)]
fn rounded(value: i16, factor: i16) -> i16 {
    (whole(product(2 * value, factor)) + 1) >> 1
}

#[inline(always)]
fn whole(value: i32) -> i16 {
    (value >> 16) as i16
}

#[inline(always)]
#[expect(clippy::cast_sign_loss, reason = "clamped")]
fn clamped(value: i16) -> u8 {
    value.clamp(0, 255) as u8
}

/// Pixels in 32 bits each, red lowest, the highest byte zero.
#[inline(always)]
fn packed(y: &[u8; PIXELS], cb: &[u8; PIXELS], cr: &[u8; PIXELS]) -> [u32; PIXELS] {
    let mut packed = [0; PIXELS];
    for at in 0..PIXELS {
        let [red, green, blue] = pixel(y[at], cb[at], cr[at]);
        packed[at] = u32::from_le_bytes([red, green, blue, 0]);
    }
    packed
}

/// Pixels without the byte between them: three words of four.
#[inline(always)]
fn interleaved(packed: &[u32; PIXELS]) -> [u8; 3 * PIXELS] {
    let mut bytes = [0; 3 * PIXELS];
    let fours = packed.as_chunks::<4>().0;
    for (to, &[first, second, third, fourth]) in bytes.as_chunks_mut::<12>().0.iter_mut().zip(fours) {
        let words = [first | second << 24, second >> 8 | third << 16, third >> 16 | fourth << 8];
        for (to, word) in to.as_chunks_mut().0.iter_mut().zip(words) {
            *to = word.to_le_bytes();
        }
    }
    bytes
}

/// Writes a row of RGB from rows of it.
#[inline(always)]
pub(crate) fn from_rgb(red: &[u8], green: &[u8], blue: &[u8], rgb: &mut [u8]) {
    for (((to, &red), &green), &blue) in rgb.as_chunks_mut().0.iter_mut().zip(red).zip(green).zip(blue) {
        *to = [red, green, blue];
    }
}
