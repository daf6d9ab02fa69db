//! The part of a decoded image that is resized.

use super::header::ImageHeader;

/// A rectangle of a decoded image, in pixels. The edges of the rectangle may cut through pixels.
///
/// The resizer reads only the pixels inside the rectangle, so cropping needs no separate pass over the
/// pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CropWindow {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl CropWindow {
    /// Returns the window that covers a whole `width` × `height` image.
    pub(super) fn whole(width: u32, height: u32) -> Self {
        Self { left: 0.0, top: 0.0, width: f64::from(width), height: f64::from(height) }
    }

    /// Returns the window of an image that was decoded at 1/`denominator` of its size.
    ///
    /// Decoders round the scaled sides up to whole pixels. The window has the exact, fractional size, so that
    /// the aspect ratio of the image does not change.
    pub(super) fn scaled(header: &ImageHeader, denominator: u32) -> Self {
        let [width, height] =
            [header.width, header.height].map(|side| f64::from(side) / f64::from(denominator));
        Self { left: 0.0, top: 0.0, width, height }
    }
}
