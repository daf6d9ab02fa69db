//! Encodes RGB pixels to the stored JPEG.
//!
//! The stored image is the image that is classified, so encoding must not change predictions. The default is
//! quality 95 with full colour resolution (4:4:4).
//!
//! `docs/formats.md` has the measurements of other qualities and of chroma subsampling. At the same number of
//! bytes, 4:4:4 at a lower quality changes no more predictions than 4:2:0 at a higher quality. Chroma
//! subsampling is therefore not a setting.
//!
//! With the feature `turbo`, libjpeg-turbo encodes the image. Without the feature, jpeg-encoder does. Both
//! encoders use the same quantization tables and give about the same quality and number of bytes.

#[cfg(any(test, not(feature = "turbo")))]
mod jpeg_encoder;
#[cfg(feature = "turbo")]
mod libjpeg_turbo;

#[cfg(not(feature = "turbo"))]
pub(super) use self::jpeg_encoder::encode_jpeg;
#[cfg(feature = "turbo")]
pub(super) use self::libjpeg_turbo::encode_jpeg;

/// Chroma subsampling, as named in the recipe text.
pub(super) const CHROMA_SUBSAMPLING: &str = "4:4:4";

/// Maximum length of a side in pixels. This is the limit of libjpeg-turbo, slightly below the limit of the
/// format.
pub(super) const MAX_SIDE: u32 = 65_500;

/// Returns the maximum number of bytes of an encoded `width` × `height` image, headers included.
///
/// The formula comes from libjpeg-turbo. It counts six bytes per pixel, with the sides rounded up to whole
/// blocks.
pub(super) fn max_bytes((width, height): (u32, u32)) -> u64 {
    const BLOCK_SIDE: u64 = 8;
    const BYTES_PER_PIXEL: u64 = 6;
    const HEADER_BYTES: u64 = 2048;
    let [columns, rows] = [width, height].map(|side| u64::from(side).next_multiple_of(BLOCK_SIDE));
    columns * rows * BYTES_PER_PIXEL + HEADER_BYTES
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};
    use jpeg_scaled::Segments;

    use super::*;
    use crate::image::error::ImageError;

    /// Returns a gradient with noise. The width of the image is not a multiple of the block size.
    fn test_image() -> RgbImage {
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

    /// Returns the payloads of the segments with this marker before the first scan.
    fn payloads(file: &[u8], marker: u8) -> Vec<&[u8]> {
        Segments::before_first_scan(file)
            .filter(|segment| segment.marker == marker)
            .map(|segment| segment.payload)
            .collect()
    }

    #[test]
    fn encoded_image_is_close_to_its_source_and_has_no_chroma_subsampling() {
        let mut buffer = Vec::new();
        let file = encode_jpeg(&test_image(), 95, &mut buffer).unwrap();
        let decoded = image::load_from_memory(file).unwrap().into_rgb8();
        let decibels = psnr(&decoded, &test_image());
        assert!(decibels >= 40.0, "{decibels:.1} dB");
        // At these offsets, the frame header (SOF0) has the sampling factors of its three components. The
        // value 0x11 stands for the factors 1×1.
        let frame = payloads(file, 0xC0)[0];
        assert_eq!((frame[7], frame[10], frame[13]), (0x11, 0x11, 0x11));
    }

    #[test]
    fn previous_content_of_the_buffer_does_not_change_the_encoded_bytes() {
        let encoded = |buffer: &mut Vec<u8>| encode_jpeg(&test_image(), 95, buffer).unwrap().to_vec();
        let first = encoded(&mut Vec::new());
        let mut buffer = Vec::new();
        encode_jpeg(&RgbImage::from_pixel(600, 500, Rgb([200, 0, 0])), 30, &mut buffer).unwrap();
        assert_eq!(encoded(&mut buffer), first);
        buffer.fill(7);
        assert_eq!(encoded(&mut buffer), first);
    }

    #[test]
    fn noise_at_the_highest_quality_fits_into_max_bytes() {
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
            let file = encode_jpeg(&noise, 100, &mut buffer).unwrap();
            assert!(file.len() as u64 <= max_bytes(noise.dimensions()), "{side}: {}", file.len());
        }
    }

    #[test]
    fn sides_of_zero_or_above_the_limit_of_the_format_are_refused() {
        let mut buffer = Vec::new();
        let mut encode = |width| encode_jpeg(&RgbImage::new(width, 1), 95, &mut buffer).map(<[u8]>::len);
        assert!(encode(MAX_SIDE).is_ok());
        for wrong in [0, 65_536] {
            let refused = encode(wrong).unwrap_err();
            assert!(matches!(refused, ImageError::Encode(_)), "{refused:?}");
        }
    }

    #[cfg(feature = "turbo")]
    #[test]
    fn both_encoders_give_the_same_quantization_tables_and_about_the_same_quality_and_size() {
        for quality in [50, 90, 95, 100] {
            let (mut turbo_buffer, mut rust_buffer) = (Vec::new(), Vec::new());
            let turbo = encode_jpeg(&test_image(), quality, &mut turbo_buffer).unwrap();
            let rust = jpeg_encoder::encode_jpeg(&test_image(), quality, &mut rust_buffer).unwrap();
            let quantization_tables = |file: &[u8]| payloads(file, 0xDB).concat();
            assert_eq!(quantization_tables(turbo), quantization_tables(rust), "quality {quality}");
            let [turbo_psnr, rust_psnr] = [turbo, rust]
                .map(|file| psnr(&image::load_from_memory(file).unwrap().into_rgb8(), &test_image()));
            let [turbo_bytes, rust_bytes] = [turbo, rust].map(<[u8]>::len);
            println!(
                "{quality}: {turbo_bytes} and {rust_bytes} bytes, {turbo_psnr:.2} and {rust_psnr:.2} dB"
            );
            assert!((turbo_psnr - rust_psnr).abs() < 0.2, "{quality}: {turbo_psnr:.2} and {rust_psnr:.2} dB");
            assert!(turbo_bytes.abs_diff(rust_bytes) * 100 <= rust_bytes, "{turbo_bytes} and {rust_bytes}");
        }
    }
}
