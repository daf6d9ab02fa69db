//! Converts decoded pixels, in place, to opaque pixels with 8 bits per channel. The background is white.
//!
//! The conversion runs before resizing. Otherwise the colours of transparent pixels would bleed into their
//! neighbours.

/// Channels of decoded pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PixelLayout {
    Grey,
    GreyAlpha,
    Rgb,
    Rgba,
}

impl PixelLayout {
    /// Returns the bytes per pixel with 8 bits per channel.
    pub(super) fn bytes_per_pixel(self) -> u64 {
        match self {
            Self::Grey => 1,
            Self::GreyAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// Blends `pixels` with white and removes the alpha channel. Returns true for grey pixels.
///
/// The opaque pixels fill the start of the slice, because they need fewer bytes. The content of the rest of
/// the slice is unspecified.
pub(super) fn make_opaque(pixels: &mut [u8], layout: PixelLayout) -> bool {
    match layout {
        PixelLayout::Grey => true,
        PixelLayout::Rgb => false,
        PixelLayout::GreyAlpha => {
            map_compacting(pixels, |[grey, alpha]: [u8; 2]| [blend_with_white(grey, alpha)]);
            true
        }
        PixelLayout::Rgba => {
            map_compacting(pixels, |[red, green, blue, alpha]: [u8; 4]| {
                [red, green, blue].map(|colour| blend_with_white(colour, alpha))
            });
            false
        }
    }
}

/// Replaces each group of `N` bytes by `M` bytes, without gaps. `M` must not exceed `N`.
///
/// Copies a block of groups at a time to a buffer, so that the bytes read and the bytes written do not
/// overlap and the compiler vectorises the loop.
pub(super) fn map_compacting<const N: usize, const M: usize>(
    bytes: &mut [u8],
    convert: impl Fn([u8; N]) -> [u8; M],
) {
    const GROUPS_PER_BLOCK: usize = 256;
    let mut block = [[0; N]; GROUPS_PER_BLOCK];
    let group_count = bytes.len() / N;
    for first_group in (0..group_count).step_by(GROUPS_PER_BLOCK) {
        let block_len = GROUPS_PER_BLOCK.min(group_count - first_group);
        let source = &mut block[..block_len];
        source.as_flattened_mut().copy_from_slice(&bytes[N * first_group..][..N * block_len]);
        let target = bytes[M * first_group..][..M * block_len].as_chunks_mut().0;
        for (to, &from) in target.iter_mut().zip(&*source) {
            *to = convert(from);
        }
    }
}

/// Returns `colour` with opacity `alpha` over white, rounded to the nearest level.
pub(super) fn blend_with_white(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    let mixed = (colour * alpha + 255 * (255 - alpha) + 127) / 255;
    u8::try_from(mixed).unwrap_or(u8::MAX)
}

/// Returns a colour over white. `premultiplied` is the colour multiplied with its opacity `alpha`.
pub(super) fn blend_premultiplied_with_white(premultiplied: u8, alpha: u8) -> u8 {
    premultiplied.saturating_add(u8::MAX - alpha)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blending_is_exact_for_opaque_and_transparent_pixels_and_rounded_in_between() {
        for colour in 0..=255 {
            assert_eq!(blend_with_white(colour, 255), colour);
            assert_eq!(blend_with_white(colour, 0), 255);
        }
        assert_eq!(blend_with_white(0, 128), 127);
        assert_eq!(blend_with_white(100, 51), 224);
        assert_eq!(blend_premultiplied_with_white(20, 51), 224);
        // A colour cannot be larger than its opacity. Such a colour becomes white.
        assert_eq!(blend_premultiplied_with_white(200, 51), 255);
    }

    #[test]
    fn opaque_pixels_fill_the_start_of_the_slice() {
        let mut pixels = [1, 2, 3, 255, 4, 5, 6, 255, 7, 8, 9, 0];
        assert!(!make_opaque(&mut pixels, PixelLayout::Rgba));
        assert_eq!(pixels[..9], [1, 2, 3, 4, 5, 6, 255, 255, 255]);
        let mut pixels = [1, 255, 2, 255, 3, 0];
        assert!(make_opaque(&mut pixels, PixelLayout::GreyAlpha));
        assert_eq!(pixels[..3], [1, 2, 255]);
    }

    #[test]
    fn opaque_pixels_have_no_gaps_between_blocks() {
        let mut pixels: Vec<u8> = (0..1000u16).flat_map(|index| [index.to_le_bytes()[0], 255]).collect();
        make_opaque(&mut pixels, PixelLayout::GreyAlpha);
        let expected: Vec<u8> = (0..1000u16).map(|index| index.to_le_bytes()[0]).collect();
        assert_eq!(pixels[..1000], expected);
    }
}
