//! The EXIF orientation of an image.

use image::metadata::Orientation;

/// Reads the orientation from an EXIF block, which is a TIFF structure or a whole TIFF file.
///
/// An image whose orientation is missing or cannot be read is treated as upright, because damaged metadata is
/// no reason to refuse an image.
pub(super) fn read_orientation(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(exif_orientation::read_orientation)
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}
