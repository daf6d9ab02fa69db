//! Rows of samples to rows of RGB, with the numbers of libjpeg.

/// Writes a row of RGB from rows of brightness and the two differences of colour. All have the same
/// number of pixels.
pub(crate) fn from_ycbcr(y: &[u8], cb: &[u8], cr: &[u8], rgb: &mut [u8]) {
    for (((to, &y), &cb), &cr) in rgb.chunks_exact_mut(3).zip(y).zip(cb).zip(cr) {
        to.copy_from_slice(&pixel(y, cb, cr));
    }
}

/// One pixel.
#[inline(always)]
fn pixel(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = y + ((91881 * cr + HALF) >> 16);
    let green = y + ((-22554 * cb - 46802 * cr + HALF) >> 16);
    let blue = y + ((116130 * cb + HALF) >> 16);
    [red, green, blue].map(clamped)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn clamped(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

/// Writes a row of RGB from rows of it.
pub(crate) fn from_rgb(red: &[u8], green: &[u8], blue: &[u8], rgb: &mut [u8]) {
    for (((to, &red), &green), &blue) in rgb.chunks_exact_mut(3).zip(red).zip(green).zip(blue) {
        to.copy_from_slice(&[red, green, blue]);
    }
}

/// Writes a row of RGB from a row of brightness.
pub(crate) fn from_grey(grey: &[u8], rgb: &mut [u8]) {
    for (to, &grey) in rgb.chunks_exact_mut(3).zip(grey) {
        to.fill(grey);
    }
}
