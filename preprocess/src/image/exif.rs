//! EXIF orientation.
//!
//! An orientation that is missing or cannot be read counts as upright: metadata is no reason to refuse an
//! image.

use image::{ImageDecoder, metadata::Orientation};

/// Reads the orientation from an EXIF block, the TIFF structure without the prefix `Exif\0\0`.
pub(super) fn orientation_from_block(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms)
}

/// Reads the orientation through a decoder of the `image` crate.
///
/// Of the formats decoded by that crate, this covers those whose EXIF block this crate does not locate
/// itself.
pub(super) fn orientation_from_decoder(decoder: &mut dyn ImageDecoder) -> Orientation {
    decoder.orientation().unwrap_or(Orientation::NoTransforms)
}
