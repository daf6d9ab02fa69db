//! Making a picture smaller: how large it becomes, and the filter that does it.

use fast_image_resize::{FilterType, ResizeAlg, ResizeError, ResizeOptions, Resizer};
use image::RgbImage;

/// Name of the filter, for the recipe.
pub(super) const FILTER: &str = "lanczos3";

/// A rectangle of a picture in pixels; edges may fall between pixels. A crop costs no pass of its
/// own: only what lies inside is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Window {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Window {
    /// The whole of a picture.
    pub(super) fn whole(pixels: &RgbImage) -> Self {
        Self { left: 0.0, top: 0.0, width: f64::from(pixels.width()), height: f64::from(pixels.height()) }
    }
}

/// Size of a `width` × `height` picture once its shorter side is `shorter_side`: same shape, never
/// larger than it was, no side below 1.
pub(super) fn target(width: u32, height: u32, shorter_side: u32) -> (u32, u32) {
    let short = width.min(height);
    if short <= shorter_side {
        return (width, height);
    }
    let scaled = |side: u32| {
        let rounded = (u64::from(side) * u64::from(shorter_side) + u64::from(short) / 2) / u64::from(short);
        // Smaller than `side`, because `shorter_side` is smaller than `short`.
        u32::try_from(rounded).unwrap_or(side).max(1)
    };
    (scaled(width), scaled(height))
}

/// Resizes what `window` shows of `pixels` to `width` × `height`.
///
/// # Errors
/// When the window is not inside the picture.
pub(super) fn resize(
    pixels: RgbImage,
    window: Window,
    (width, height): (u32, u32),
) -> Result<RgbImage, ResizeError> {
    if window == Window::whole(&pixels) && (width, height) == pixels.dimensions() {
        return Ok(pixels);
    }
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3)).crop(
        window.left,
        window.top,
        window.width,
        window.height,
    );
    let mut resized = RgbImage::new(width, height);
    Resizer::new().resize(&pixels, &mut resized, &options)?;
    Ok(resized)
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn the_shorter_side_decides_and_the_shape_stays() {
        assert_eq!(target(4000, 3000, 256), (341, 256));
        assert_eq!(target(3000, 4000, 256), (256, 341));
        assert_eq!(target(512, 512, 256), (256, 256));
        assert_eq!(target(257, 600, 256), (256, 598));
        assert_eq!(target(u32::MAX, u32::MAX, 256), (256, 256));
    }

    #[test]
    fn nothing_is_ever_enlarged() {
        assert_eq!(target(256, 9000, 256), (256, 9000));
        assert_eq!(target(1, 1, 256), (1, 1));
        assert_eq!(target(1, 16_384, 256), (1, 16_384));
    }

    #[test]
    fn a_window_shows_only_what_is_inside_it() {
        let halves =
            RgbImage::from_fn(64, 32, |x, _| if x < 32 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
        let right = Window { left: 32.0, top: 0.0, width: 32.0, height: 32.0 };
        let shown = resize(halves, right, (16, 16)).unwrap();
        // The filter reaches over the window's edge by a few pixels; the middle is pure.
        assert_eq!(*shown.get_pixel(8, 8), Rgb([0, 0, 255]));
        assert_eq!(shown.dimensions(), (16, 16));
    }

    #[test]
    fn an_unchanged_size_changes_no_pixel() {
        let image = RgbImage::from_fn(7, 5, |x, y| {
            Rgb([u8::try_from(x * 30).unwrap(), u8::try_from(y * 40).unwrap(), 9])
        });
        let whole = Window::whole(&image);
        assert_eq!(resize(image.clone(), whole, (7, 5)).unwrap(), image);
    }
}
