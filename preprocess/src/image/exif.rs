//! The orientation that the metadata of an image state.

use image::metadata::Orientation;

/// Converts the number of an orientation.
///
/// An image whose orientation is missing or cannot be read is treated as upright, because damaged metadata is
/// no reason to refuse an image.
pub(super) fn to_orientation(number: Option<u8>) -> Orientation {
    number.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}
