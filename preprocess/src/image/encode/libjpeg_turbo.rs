//! Encoding in C, by libjpeg-turbo.

use image::RgbImage;
use turbojpeg::{Compressor, Error, Image, PixelFormat, Subsamp};

use crate::image::{ImageError, length};

/// Encodes `pixels` as a baseline JPEG of `quality` (1 to 100), in the memory of `buffer`.
///
/// # Errors
/// [`ImageError::Encode`] where a side is 0, or longer than [`super::MAX_SIDE`].
pub(in crate::image) fn encode<'a>(
    pixels: &RgbImage,
    quality: u8,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], ImageError> {
    let failed = |error: Error| ImageError::Encode(error.into());
    let (width, height) = pixels.dimensions();
    let most = length(super::bytes((width, height)));
    if buffer.len() < most {
        // New zeros are not there before they are written to; nor are the old ones beside them.
        *buffer = Vec::new();
        *buffer = vec![0; most];
    }
    // A new one each time: using one again would give the same bytes in the same time.
    let mut compressor = Compressor::new().map_err(failed)?;
    compressor.set_quality(quality.into()).map_err(failed)?;
    compressor.set_subsamp(Subsamp::None).map_err(failed)?;
    let (width, height) = (length(width.into()), length(height.into()));
    let pixels = pixels.as_raw().as_slice();
    let image = Image { pixels, width, pitch: 3 * width, height, format: PixelFormat::RGB };
    let written = compressor.compress_to_slice(image, buffer).map_err(failed)?;
    Ok(&buffer[..written])
}
