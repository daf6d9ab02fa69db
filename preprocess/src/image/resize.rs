//! Making a picture smaller: how large it becomes, and the filter that does it.

use std::f64::consts::PI;

use fast_image_resize::{
    Filter, FilterType, PixelTrait, ResizeAlg, ResizeOptions,
    images::{TypedImage, TypedImageRef},
    pixels::{U8, U8x3},
};

use super::{Header, ImageError, decode::Decoded, scratch::Scratch};

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
    pub(super) fn whole(width: u32, height: u32) -> Self {
        Self { left: 0.0, top: 0.0, width: f64::from(width), height: f64::from(height) }
    }

    /// What shows the picture once it is decoded to a `denominator`th of its size: sides are rounded up
    /// to whole pixels.
    pub(super) fn scaled(header: &Header, denominator: u32) -> Self {
        let [width, height] =
            [header.width, header.height].map(|side| f64::from(side) / f64::from(denominator));
        Self { left: 0.0, top: 0.0, width, height }
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

/// Bytes that resizing takes: what is small in one direction only, the picture as it becomes, and copies
/// of that to convert its colours and to turn it.
pub(super) fn bytes(source: (u32, u32), target: (u32, u32)) -> u64 {
    const CHANNELS: u64 = 3;
    let half_way = u64::from(target.0) * u64::from(source.1);
    let small = u64::from(target.0) * u64::from(target.1);
    CHANNELS * (half_way + 3 * small)
}

/// Resizes what the window shows of the decoded pixels to `width` × `height`, into `scratch.small`.
///
/// # Errors
/// When the window is not inside the picture.
pub(super) fn resize(
    decoded: &Decoded,
    (width, height): (u32, u32),
    scratch: &mut Scratch,
) -> Result<(), ImageError> {
    if decoded.grey {
        resize_pixels::<U8>(decoded, (width, height), scratch)
    } else {
        resize_pixels::<U8x3>(decoded, (width, height), scratch)
    }
}

/// By the type of pixel: `Resizer::resize` compiles the loops of thirteen types here, of which two are
/// used.
fn resize_pixels<P: PixelTrait>(
    decoded: &Decoded,
    (width, height): (u32, u32),
    scratch: &mut Scratch,
) -> Result<(), ImageError> {
    let channels = P::size();
    let Window { left, top, width: shown_width, height: shown_height } = decoded.window;
    let filter =
        Filter::new(FILTER, lanczos3, LANCZOS3_SUPPORT).map_or(FilterType::Lanczos3, FilterType::Custom);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).crop(
        left,
        top,
        shown_width,
        shown_height,
    );
    let (pixels, resizer, small) = scratch.for_resizing();
    small.clear();
    small.resize(area(width, height) * channels, 0);
    let pixels = pixels.get(..area(decoded.width, decoded.height) * channels).unwrap_or_default();
    let from = TypedImageRef::<P>::from_buffer(decoded.width, decoded.height, pixels)?;
    let mut to = TypedImage::<P>::from_buffer(width, height, small)?;
    resizer.resize_typed(&from, &mut to, &options)?;
    Ok(())
}

/// Where the filter ends, in pixels from its centre.
const LANCZOS3_SUPPORT: f64 = 3.0;

/// sinc(x) · sinc(x / 3), as fast_image_resize has it too, but with one sine instead of two: of a small
/// picture the weights took a twentieth of the time. sin(3a) is 3 sin(a) - 4 sin³(a).
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

fn area(width: u32, height: u32) -> usize {
    usize::try_from(u64::from(width) * u64::from(height)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use image::metadata::Orientation;

    use super::*;

    /// A picture of `width` × `height` whose pixels are given by their place.
    fn resized(
        (width, height): (u32, u32),
        window: Window,
        target: (u32, u32),
        pixel: impl Fn(u32, u32) -> [u8; 3],
    ) -> Vec<[u8; 3]> {
        Scratch::with(0, |scratch| {
            let pixels = scratch.pixels(area(width, height) * 3);
            for (index, to) in (0..).zip(pixels.chunks_exact_mut(3)) {
                to.copy_from_slice(&pixel(index % width, index / width));
            }
            let decoded = Decoded {
                width,
                height,
                grey: false,
                window,
                orientation: Orientation::NoTransforms,
                profile: None,
            };
            resize(&decoded, target, scratch).unwrap();
            scratch.small.as_chunks::<3>().0.to_vec()
        })
    }

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
        let right = Window { left: 32.0, top: 0.0, width: 32.0, height: 32.0 };
        let shown = resized((64, 32), right, (16, 16), |x, _| if x < 32 { [255, 0, 0] } else { [0, 0, 255] });
        // The filter reaches over the window's edge by a few pixels; the middle is pure.
        assert_eq!(shown[8 * 16 + 8], [0, 0, 255]);
        assert_eq!(shown.len(), 16 * 16);
    }

    #[test]
    fn an_unchanged_size_changes_no_pixel() {
        let pixel = |x: u32, y: u32| [u8::try_from(x * 30).unwrap(), u8::try_from(y * 40).unwrap(), 9];
        let shown = resized((7, 5), Window::whole(7, 5), (7, 5), pixel);
        let expected: Vec<[u8; 3]> =
            (0..5).flat_map(|y| (0..7).map(move |x| (x, y))).map(|(x, y)| pixel(x, y)).collect();
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_filter_is_lanczos() {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
        for step in -350..=350 {
            let x = f64::from(step) / 100.0;
            let expected = if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 };
            assert!((lanczos3(x) - expected).abs() < 1e-14, "{x}");
        }
    }
}
