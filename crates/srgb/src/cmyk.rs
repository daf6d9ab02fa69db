//! Conversions of CMYK and of YCbCr that need no profile.

/// Converts the amounts of four inks, of which 0 means none, without a profile.
pub fn cmyk_to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    [cyan, magenta, yellow].map(|ink| {
        let light = u32::from(u8::MAX - ink) * u32::from(u8::MAX - black);
        u8::try_from((light + 127) / 255).unwrap_or(u8::MAX)
    })
}

/// Converts a colour with the coefficients of JFIF, which are also the default of TIFF.
pub fn ycbcr_to_rgb([luma, blue, red]: [u8; 3]) -> [u8; 3] {
    // The coefficients are multiplied with 65,536.
    let (blue, red) = (i32::from(blue) - 128, i32::from(red) - 128);
    [91_881 * red, -22_554 * blue - 46_802 * red, 116_130 * blue].map(|difference| {
        let level = i32::from(luma) + ((difference + (1 << 15)) >> 16);
        u8::try_from(level.clamp(0, 255)).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ycbcr_is_converted_with_the_coefficients_of_jfif() {
        assert_eq!(
            [[0, 128, 128], [255, 128, 128], [100, 128, 128]].map(ycbcr_to_rgb),
            [[0; 3], [255; 3], [100; 3]]
        );
        assert_eq!(
            [[76, 85, 255], [150, 44, 21], [29, 255, 107]].map(ycbcr_to_rgb),
            [[254, 0, 0], [0, 255, 1], [0, 0, 254]]
        );
    }

    #[test]
    fn inks_without_a_profile_darken_each_other() {
        let inks = [[0; 4], [255, 0, 0, 0], [0, 0, 255, 51], [0, 0, 0, 255]];
        assert_eq!(inks.map(cmyk_to_rgb), [[255; 3], [0, 255, 255], [204, 204, 0], [0; 3]]);
    }
}
