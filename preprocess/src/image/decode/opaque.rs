//! Decoders' pixels to opaque 8-bit pixels, in place: transparency shows white.
//!
//! Done before resizing: the colours that hide under transparent pixels would bleed into their
//! neighbours otherwise.

/// How a decoder has written its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Grey,
    GreyAlpha,
    Rgb,
    Rgba,
}

impl Layout {
    /// Bytes a pixel.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Grey => 1,
            Self::GreyAlpha => 2,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// Makes `pixels` opaque; what alpha took is left over at the end. Whether they are grey.
pub(super) fn make_opaque(pixels: &mut [u8], layout: Layout) -> bool {
    match layout {
        Layout::Grey => true,
        Layout::Rgb => false,
        Layout::GreyAlpha => {
            compact(pixels, |[grey, alpha]: [u8; 2]| [blend(grey, alpha)]);
            true
        }
        Layout::Rgba => {
            compact(pixels, |[red, green, blue, alpha]: [u8; 4]| {
                [blend(red, alpha), blend(green, alpha), blend(blue, alpha)]
            });
            false
        }
    }
}

/// 16-bit samples, as the machine writes them, to 8 bits, at the beginning of `samples`.
pub(super) fn from_16_bits(samples: &mut [u8]) {
    compact(samples, |sample: [u8; 2]| {
        let rounded = (u32::from(u16::from_ne_bytes(sample)) + 128) / 257;
        [u8::try_from(rounded).unwrap_or(u8::MAX)]
    });
}

/// Samples from 0 to 1, as the machine writes them, to 8 bits, at the beginning of `samples`.
pub(super) fn from_floats(samples: &mut [u8]) {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the value is from 0 to 255"
    )]
    compact(samples, |sample: [u8; 4]| [(f32::from_ne_bytes(sample).clamp(0.0, 1.0) * 255.0).round() as u8]);
}

/// Replaces every `N` bytes by `M`, which must not be more, and moves them together. By way of a copy of
/// a few at a time: what is read and what is written then never overlap, and the compiler can do many at
/// once.
fn compact<const N: usize, const M: usize>(bytes: &mut [u8], change: impl Fn([u8; N]) -> [u8; M]) {
    const AT_ONCE: usize = 256;
    let mut copy = [[0; N]; AT_ONCE];
    let count = bytes.len() / N;
    for first in (0..count).step_by(AT_ONCE) {
        let here = AT_ONCE.min(count - first);
        let from = &mut copy[..here];
        from.as_flattened_mut().copy_from_slice(&bytes[N * first..][..N * here]);
        let to = bytes[M * first..][..M * here].as_chunks_mut().0;
        for (to, &from) in to.iter_mut().zip(&*from) {
            *to = change(from);
        }
    }
}

/// `colour` at opacity `alpha` over white, rounded to nearest.
fn blend(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    let mixed = (colour * alpha + 255 * (255 - alpha) + 127) / 255;
    u8::try_from(mixed).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blending_is_exact_at_both_ends_and_rounds_between() {
        for colour in 0..=255 {
            assert_eq!(blend(colour, 255), colour);
            assert_eq!(blend(colour, 0), 255);
        }
        assert_eq!(blend(0, 128), 127);
        assert_eq!(blend(100, 51), 224);
    }

    #[test]
    fn pixels_move_together() {
        let mut pixels = [1, 2, 3, 255, 4, 5, 6, 255, 7, 8, 9, 0];
        assert!(!make_opaque(&mut pixels, Layout::Rgba));
        assert_eq!(pixels[..9], [1, 2, 3, 4, 5, 6, 255, 255, 255]);
        let mut pixels = [1, 255, 2, 255, 3, 0];
        assert!(make_opaque(&mut pixels, Layout::GreyAlpha));
        assert_eq!(pixels[..3], [1, 2, 255]);
    }

    #[test]
    fn long_rows_move_together_too() {
        let mut pixels: Vec<u8> = (0..1000u16).flat_map(|at| [at.to_le_bytes()[0], 255]).collect();
        make_opaque(&mut pixels, Layout::GreyAlpha);
        let expected: Vec<u8> = (0..1000u16).map(|at| at.to_le_bytes()[0]).collect();
        assert_eq!(pixels[..1000], expected);
    }

    #[test]
    fn deep_samples_are_rounded() {
        let mut samples: Vec<u8> =
            [0u16, 128, 129, 257, 65_535].into_iter().flat_map(u16::to_ne_bytes).collect();
        from_16_bits(&mut samples);
        assert_eq!(samples[..5], [0, 0, 1, 1, 255]);
        let mut samples: Vec<u8> =
            [-1.0f32, 0.5, 1.0, f32::NAN, 7.0].into_iter().flat_map(f32::to_ne_bytes).collect();
        from_floats(&mut samples);
        assert_eq!(samples[..5], [0, 128, 255, 0, 255]);
    }
}
