//! RGB pixels to the JPEG that is stored.
//!
//! Quality 95 with full colour resolution (4:4:4) is the default because what is stored is what gets
//! classified. Measured on 126 labelled photos with a shorter side of 256: how many change their
//! top-1 class when the picture goes through the JPEG, and by how much the probability of the class
//! moves (median), for MobileNetV2 / EfficientNet-Lite0; at most 3 % may change.
//!
//! | quality | chroma          | bytes  | top-1 changes | in %      | median change |
//! |--------:|-----------------|-------:|--------------:|----------:|--------------:|
//! |      85 | 4:2:0, averaged | 18,800 |        11 / 9 | 8.7 / 7.1 | 0.033 / 0.029 |
//! |      85 | 4:4:4           | 23,500 |         6 / 6 | 4.8 / 4.8 | 0.022 / 0.024 |
//! |      90 | 4:2:0, averaged | 23,400 |         7 / 4 | 5.6 / 3.2 | 0.024 / 0.023 |
//! |      90 | 4:4:4           | 29,600 |         2 / 4 | 1.6 / 3.2 | 0.011 / 0.015 |
//! |      92 | 4:2:0, averaged | 25,800 |         4 / 2 | 3.2 / 1.6 | 0.014 / 0.016 |
//! |      92 | 4:4:4           | 32,800 |         3 / 2 | 2.4 / 1.6 | 0.009 / 0.012 |
//! |      95 | 4:2:0, averaged | 33,200 |         2 / 3 | 1.6 / 2.4 | 0.011 / 0.016 |
//! |  **95** | **4:4:4**       | 42,800 |         1 / 1 | 0.8 / 0.8 | 0.006 / 0.009 |
//! |      97 | 4:2:0, averaged | 41,200 |         1 / 1 | 0.8 / 0.8 | 0.006 / 0.013 |
//! |      97 | 4:4:4           | 55,300 |         2 / 0 | 1.6 / 0.0 | 0.004 / 0.006 |
//!
//! At the same number of bytes full colour at a lower quality does as well as averaged colour at a
//! higher one or better, so there is no setting for it.
//!
//! With the feature `turbo` libjpeg-turbo encodes, else jpeg-encoder: the same tables, and as good a
//! picture in about as many bytes.

#[cfg(any(test, not(feature = "turbo")))]
mod jpeg_encoder;
#[cfg(feature = "turbo")]
mod libjpeg_turbo;

#[cfg(not(feature = "turbo"))]
pub(super) use self::jpeg_encoder::encode as jpeg;
#[cfg(feature = "turbo")]
pub(super) use self::libjpeg_turbo::encode as jpeg;

/// How colour is stored, for the recipe.
pub(super) const CHROMA: &str = "4:4:4";

/// Longest side that an encoder takes: libjpeg-turbo's limit, which is a little below the format's.
pub(super) const MAX_SIDE: u32 = 65_500;

/// Most bytes of a JPEG of `width` × `height`, tables and all: six for each pixel of its whole blocks, as
/// libjpeg-turbo reckons.
pub(super) fn bytes((width, height): (u32, u32)) -> u64 {
    const BLOCK: u64 = 8;
    const BYTES_A_PIXEL: u64 = 6;
    const HEAD_BYTES: u64 = 2048;
    let [across, down] = [width, height].map(|side| u64::from(side).next_multiple_of(BLOCK));
    across * down * BYTES_A_PIXEL + HEAD_BYTES
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;
    use crate::image::ImageError;

    /// A shade with grain, of a width that is no whole number of blocks.
    fn picture() -> RgbImage {
        let mut state = 1u32;
        RgbImage::from_fn(341, 256, |x, y| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = state >> 28;
            Rgb([x / 2, y / 2 + 60, (x + y) / 4].map(|level| u8::try_from(level + grain).unwrap()))
        })
    }

    fn psnr(found: &RgbImage, expected: &RgbImage) -> f64 {
        let squares: u64 =
            found.iter().zip(expected.iter()).map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
        10.0 * (255.0f64.powi(2) * found.len() as f64 / squares as f64).log10()
    }

    /// The segments with that marker before the pixels.
    fn segments(file: &[u8], marker: u8) -> Vec<&[u8]> {
        let mut found = Vec::new();
        let mut at = 2;
        while file[at + 1] != 0xDA {
            let end = at + 2 + usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]]));
            if file[at + 1] == marker {
                found.push(&file[at + 4..end]);
            }
            at = end;
        }
        found
    }

    #[test]
    fn a_picture_comes_back_at_full_colour_resolution() {
        let mut buffer = Vec::new();
        let file = jpeg(&picture(), 95, &mut buffer).unwrap();
        let decoded = image::load_from_memory(file).unwrap().into_rgb8();
        let psnr = psnr(&decoded, &picture());
        assert!(psnr >= 40.0, "{psnr:.1} dB");
        let frame = segments(file, 0xC0)[0];
        assert_eq!((frame[7], frame[10], frame[13]), (0x11, 0x11, 0x11));
    }

    #[test]
    fn what_was_in_the_memory_before_changes_nothing() {
        let encoded = |buffer: &mut Vec<u8>| jpeg(&picture(), 95, buffer).unwrap().to_vec();
        let first = encoded(&mut Vec::new());
        let mut buffer = Vec::new();
        jpeg(&RgbImage::from_pixel(600, 500, Rgb([200, 0, 0])), 30, &mut buffer).unwrap();
        assert_eq!(encoded(&mut buffer), first);
        buffer.fill(7);
        assert_eq!(encoded(&mut buffer), first);
    }

    #[test]
    fn noise_at_the_highest_quality_has_room() {
        let mut state = 1u32;
        let noise = RgbImage::from_fn(67, 33, |_, _| {
            Rgb([8, 16, 24].map(|shift| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> shift).to_le_bytes()[0]
            }))
        });
        for side in [1, 8, 33] {
            let noise = image::imageops::crop_imm(&noise, 0, 0, 2 * side + 1, side).to_image();
            let mut buffer = Vec::new();
            let file = jpeg(&noise, 100, &mut buffer).unwrap();
            assert!(file.len() as u64 <= bytes(noise.dimensions()), "{side}: {}", file.len());
        }
    }

    #[test]
    fn sides_are_checked() {
        let mut buffer = Vec::new();
        let mut encode = |width| jpeg(&RgbImage::new(width, 1), 95, &mut buffer).map(<[u8]>::len);
        assert!(encode(MAX_SIDE).is_ok());
        for wrong in [0, 65_536] {
            let refused = encode(wrong).unwrap_err();
            assert!(matches!(refused, ImageError::Encode(_)), "{refused:?}");
        }
    }

    #[cfg(feature = "turbo")]
    #[test]
    fn both_encoders_make_as_good_a_picture_of_as_many_bytes() {
        for quality in [50, 90, 95, 100] {
            let (mut first, mut second) = (Vec::new(), Vec::new());
            let c = jpeg(&picture(), quality, &mut first).unwrap();
            let rust = jpeg_encoder::encode(&picture(), quality, &mut second).unwrap();
            let tables = |file: &[u8]| segments(file, 0xDB).concat();
            assert_eq!(tables(c), tables(rust), "quantization at {quality}");
            let [c_psnr, rust_psnr] =
                [c, rust].map(|file| psnr(&image::load_from_memory(file).unwrap().into_rgb8(), &picture()));
            println!("{quality}: {} and {} bytes, {c_psnr:.2} and {rust_psnr:.2} dB", c.len(), rust.len());
            assert!((c_psnr - rust_psnr).abs() < 0.2, "{quality}: {c_psnr:.2} and {rust_psnr:.2} dB");
            assert!(c.len().abs_diff(rust.len()) * 100 <= rust.len(), "{} and {}", c.len(), rust.len());
        }
    }
}
