//! Resizing of decoded images: the target size, and the filter that computes the pixels.

use std::f64::consts::PI;

use resize::{Filter, FilterType, Source};

use super::{
    decode::DecodedImage,
    error::ImageError,
    scratch::Scratch,
    size::{pixel_count, to_usize},
};

/// Name of the filter in the recipe text.
pub(super) const FILTER_NAME: &str = "lanczos3";

/// Returns the size of a `width` × `height` image resized so that its shorter side is `shorter_side`.
///
/// The target size keeps the aspect ratio, never exceeds the size of the image, and has no side of 0.
pub(super) fn target_size(width: u32, height: u32, shorter_side: u32) -> (u32, u32) {
    let short = width.min(height);
    if short <= shorter_side {
        return (width, height);
    }
    let scaled = |side: u32| {
        let rounded = (u64::from(side) * u64::from(shorter_side) + u64::from(short) / 2) / u64::from(short);
        // The result fits into 32 bits. It does not exceed `side`, because `shorter_side` < `short`.
        u32::try_from(rounded).unwrap_or(side).max(1)
    };
    (scaled(width), scaled(height))
}

/// Returns the maximum number of bytes held while resizing.
///
/// Counts the intermediate image (resized in width only), the resized image, and two copies of the resized
/// image for converting its colours and applying the orientation. A pixel has `channel_count` bytes.
pub(super) fn max_bytes(source: (u32, u32), target: (u32, u32), channel_count: u8) -> u64 {
    let intermediate = u64::from(target.0) * u64::from(source.1);
    let resized = pixel_count(target.0, target.1);
    u64::from(channel_count) * (intermediate + 3 * resized)
}

/// Resizes the crop window of the decoded pixels to `target_size`, and writes the result to
/// `scratch.resized`.
///
/// # Errors
/// Returns [`ImageError::Resize`] when the crop window is not inside the image, or when the decoder returned
/// fewer pixels than the image has.
pub(super) fn resize(
    decoded: &DecodedImage,
    target_size: (u32, u32),
    scratch: &mut Scratch,
) -> Result<(), ImageError> {
    let (width, height) = target_size;
    let bytes_per_pixel = usize::from(decoded.channels.count());
    let source_length = to_usize(pixel_count(decoded.width, decoded.height)) * bytes_per_pixel;
    let filter =
        Filter::new(FILTER_NAME, lanczos3, LANCZOS3_SUPPORT).map_or(FilterType::Lanczos3, FilterType::Custom);
    let (pixels, resizer, resized) = scratch.for_resizing();
    resized.clear();
    resized.resize(to_usize(pixel_count(width, height)) * bytes_per_pixel, 0);
    let mut source = Source {
        pixels: pixels.get_mut(..source_length).unwrap_or_default(),
        width: decoded.width,
        height: decoded.height,
        channels: decoded.channels,
        crop: decoded.crop,
    };
    Ok(resizer.resize(&mut source, filter, target_size, resized)?)
}

/// Distance from the centre, in pixels, beyond which the filter is zero.
const LANCZOS3_SUPPORT: f64 = 3.0;

/// Returns sinc(x) · sinc(x / 3) inside the support, and 0 outside.
///
/// The values are those of the Lanczos filter in fast_image_resize. This function computes one sine instead
/// of two, because sin(3a) = 3 sin(a) - 4 sin³(a). For small images, computing the weights with two sines
/// took a twentieth of the processing time.
fn lanczos3(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    if x.abs() >= LANCZOS3_SUPPORT {
        return 0.0;
    }
    let third = PI * x / 3.0;
    let ratio = third.sin() / third;
    ratio * ratio * (1.0 - ratio * ratio * third * third * 4.0 / 3.0)
}

#[cfg(test)]
mod tests {
    use ::resize::Channels;
    use image::metadata::Orientation;

    use super::{super::crop::CropWindow, *};

    /// Resizes a `width` × `height` image whose pixel at (x, y) is `pixel(x, y)`.
    fn resize_generated_image(
        (width, height): (u32, u32),
        crop: CropWindow,
        target: (u32, u32),
        pixel: impl Fn(u32, u32) -> [u8; 3],
    ) -> Vec<[u8; 3]> {
        Scratch::with(0, |scratch| {
            let pixels = scratch.zeroed_pixels(to_usize(pixel_count(width, height)) * 3);
            for (index, to) in (0..).zip(pixels.chunks_exact_mut(3)) {
                to.copy_from_slice(&pixel(index % width, index / width));
            }
            let decoded = DecodedImage {
                width,
                height,
                channels: Channels::Rgb,
                crop,
                orientation: Orientation::NoTransforms,
                icc_profile: None,
            };
            resize(&decoded, target, scratch).unwrap();
            scratch.resized.as_chunks::<3>().0.to_vec()
        })
    }

    #[test]
    fn target_size_has_the_given_shorter_side_and_the_same_aspect_ratio() {
        assert_eq!(target_size(4000, 3000, 256), (341, 256));
        assert_eq!(target_size(3000, 4000, 256), (256, 341));
        assert_eq!(target_size(512, 512, 256), (256, 256));
        assert_eq!(target_size(257, 600, 256), (256, 598));
        assert_eq!(target_size(u32::MAX, u32::MAX, 256), (256, 256));
    }

    #[test]
    fn target_size_of_a_small_image_is_its_own_size() {
        assert_eq!(target_size(256, 9000, 256), (256, 9000));
        assert_eq!(target_size(1, 1, 256), (1, 1));
        assert_eq!(target_size(1, 16_384, 256), (1, 16_384));
    }

    #[test]
    fn pixels_outside_the_crop_window_are_not_read() {
        let right = CropWindow { left: 32.0, top: 0.0, width: 32.0, height: 32.0 };
        let cropped =
            resize_generated_image(
                (64, 32),
                right,
                (16, 16),
                |x, _| if x < 32 { [255, 0, 0] } else { [0, 0, 255] },
            );
        // Near the edge of the window, the filter may reach outside, so only the centre is checked.
        assert_eq!(cropped[8 * 16 + 8], [0, 0, 255]);
        assert_eq!(cropped.len(), 16 * 16);
    }

    #[test]
    fn resizing_to_the_same_size_changes_no_pixel() {
        let pixel = |x: u32, y: u32| [u8::try_from(x * 30).unwrap(), u8::try_from(y * 40).unwrap(), 9];
        let same_size = resize_generated_image((7, 5), CropWindow::whole(7, 5), (7, 5), pixel);
        let expected: Vec<[u8; 3]> =
            (0..5).flat_map(|y| (0..7).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect();
        assert_eq!(same_size, expected);
    }

    #[test]
    fn lanczos3_equals_its_definition_with_two_sines() {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
        for step in -350..=350 {
            let x = f64::from(step) / 100.0;
            let expected = if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 };
            assert!((lanczos3(x) - expected).abs() < 1e-14, "{x}");
        }
    }
}
