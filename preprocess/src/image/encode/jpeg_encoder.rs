//! JPEG encoder that uses the pure-Rust `jpeg-encoder` crate.

use image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::image::error::ImageError;

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
    // A side that does not fit into 16 bits becomes 0, because the encoder refuses a side of 0.
    let u16_or_zero = |side: u32| u16::try_from(side).unwrap_or(0);
    buffer.clear();
    let mut encoder = Encoder::new(&mut *buffer, quality);
    // Chroma subsampling would change predictions, as the measurements in `docs/formats.md` show.
    encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
    encoder
        .encode(pixels.as_raw(), u16_or_zero(pixels.width()), u16_or_zero(pixels.height()), ColorType::Rgb)
        .map_err(|error| ImageError::Encode(error.into()))?;
    Ok(buffer)
}
