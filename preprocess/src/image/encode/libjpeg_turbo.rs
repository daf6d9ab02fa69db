//! Encoder in C: libjpeg-turbo.

use image::RgbImage;
use turbojpeg::{Compressor, Error, Image, PixelFormat, Subsamp};

use crate::image::{error::ImageError, size::to_usize};

/// Encodes `pixels` as a baseline JPEG of `quality` (1 to 100) into `buffer`.
///
/// # Errors
/// [`ImageError::Encode`] when a side is 0 or longer than [`super::MAX_SIDE`].
pub(in crate::image) fn encode_jpeg<'a>(
    pixels: &RgbImage,
    quality: u8,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], ImageError> {
    let failed = |error: Error| ImageError::Encode(error.into());
    let (width, height) = pixels.dimensions();
    let max_bytes = to_usize(super::max_bytes((width, height)));
    if buffer.len() < max_bytes {
        // Zeroed memory uses no pages until it is written to. The old buffer is dropped before, so that the
        // two never exist at the same time.
        *buffer = Vec::new();
        *buffer = vec![0; max_bytes];
    }
    // A new compressor for each image: reusing one is no faster and gives the same bytes.
    let mut compressor = Compressor::new().map_err(failed)?;
    compressor.set_quality(quality.into()).map_err(failed)?;
    compressor.set_subsamp(Subsamp::None).map_err(failed)?;
    let (width, height) = (to_usize(width.into()), to_usize(height.into()));
    let pixels = pixels.as_raw().as_slice();
    let image = Image { pixels, width, pitch: 3 * width, height, format: PixelFormat::RGB };
    let written = compressor.compress_to_slice(image, buffer).map_err(failed)?;
    Ok(&buffer[..written])
}
