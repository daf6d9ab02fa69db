//! Encoding in Rust, by jpeg-encoder.

use image::RgbImage;
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::image::ImageError;

/// Encodes `pixels` as a baseline JPEG of `quality` (1 to 100), in the memory of `buffer`.
///
/// # Errors
/// [`ImageError::Encode`] where a side is 0, or longer than [`super::MAX_SIDE`].
pub(in crate::image) fn encode<'a>(
    pixels: &RgbImage,
    quality: u8,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], ImageError> {
    // A side that does not fit becomes 0, which the encoder refuses.
    let side = |length: u32| u16::try_from(length).unwrap_or(0);
    buffer.clear();
    let mut encoder = Encoder::new(&mut *buffer, quality);
    encoder.set_sampling_factor(SamplingFactor::R_4_4_4);
    encoder
        .encode(pixels.as_raw(), side(pixels.width()), side(pixels.height()), ColorType::Rgb)
        .map_err(|error| ImageError::Encode(error.into()))?;
    Ok(buffer)
}
