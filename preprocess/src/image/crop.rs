//! The part of a decoded image that is resized.

pub(super) use resize::CropWindow;

use super::header::ImageHeader;

/// Returns the window of an image that was decoded at 1/`denominator` of its size.
///
/// Decoders round the scaled sides up to whole pixels. The window has the exact, fractional size, so that the
/// aspect ratio of the image does not change.
pub(super) fn scaled_window(header: &ImageHeader, denominator: u32) -> CropWindow {
    let [width, height] = [header.width, header.height].map(|side| f64::from(side) / f64::from(denominator));
    CropWindow { left: 0.0, top: 0.0, width, height }
}
