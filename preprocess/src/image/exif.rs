//! The EXIF orientation of an image.
//!
//! An image whose orientation is missing or cannot be read is treated as upright, because damaged metadata is
//! no reason to refuse an image.

use image::{ImageDecoder, metadata::Orientation};

/// Reads the orientation from an EXIF block, which is a TIFF structure without the prefix `Exif\0\0`.
pub(super) fn orientation_from_block(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

/// Reads the orientation through a decoder of the `image` crate.
///
/// Used for GIF, BMP and TIFF, because the module `header` does not locate the EXIF block in these formats.
pub(super) fn orientation_from_decoder(decoder: &mut dyn ImageDecoder) -> Orientation {
    decoder.orientation().unwrap_or(Orientation::NoTransforms)
}
