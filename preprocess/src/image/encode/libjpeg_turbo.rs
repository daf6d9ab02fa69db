//! JPEG encoder that uses the C library libjpeg-turbo through the `turbojpeg` crate.

use image::RgbImage;
use turbojpeg::{Compressor, Error, Image, PixelFormat, Subsamp};

use crate::image::{error::ImageError, size::to_usize};

/// Encodes `pixels` as a baseline JPEG of `quality` (1 to 100).
///
/// Returns the file, which is a slice of `buffer`.
///
/// # Errors
/// Returns [`ImageError::Encode`] when a side is 0 or longer than [`super::MAX_SIDE`].
pub(in crate::image) fn encode_jpeg<'a>(
    pixels: &RgbImage,
    quality: u8,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], ImageError> {
    let to_image_error = |error: Error| ImageError::Encode(error.into());
    let (width, height) = pixels.dimensions();
    let max_bytes = to_usize(super::max_bytes((width, height)));
    if buffer.len() < max_bytes {
        // The old buffer is dropped before the new one is allocated, so that the two never exist at the same
        // time. Zeroed memory uses no pages until it is written to.
        *buffer = Vec::new();
        *buffer = vec![0; max_bytes];
    }
    // Each image gets a new compressor. Reusing a compressor is no faster and gives the same bytes.
    let mut compressor = Compressor::new().map_err(to_image_error)?;
    compressor.set_quality(quality.into()).map_err(to_image_error)?;
    // Chroma subsampling would change predictions, as the measurements in `docs/formats.md` show.
    compressor.set_subsamp(Subsamp::None).map_err(to_image_error)?;
    let (width, height) = (to_usize(width.into()), to_usize(height.into()));
    let pixels = pixels.as_raw().as_slice();
    let image = Image { pixels, width, pitch: 3 * width, height, format: PixelFormat::RGB };
    let length = compressor.compress_to_slice(image, buffer).map_err(to_image_error)?;
    Ok(&buffer[..length])
}
