//! Reads the header of a PNG and decodes the PNG with the `png` crate.

use std::io::Cursor;

use platform::buffer::ZeroedBuffer;
use png::{ColorType, Decoder, Limits, Transformations};
use resize::Channels;

use super::{ImageError, Picture, Pixels, to_orientation};

/// Maximum number of bytes that the decoder may allocate besides the pixels and rows.
const MAX_TABLE_BYTES: usize = 1 << 20;

/// Colour types of a PNG that have other than three colour channels, as numbered in the chunk IHDR.
const GREY: u8 = 0;
const GREY_ALPHA: u8 = 4;

/// Properties of a PNG, read from its chunks before the pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PngHeader {
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    colour_type: u8,
    /// Length of the ICC profile in bytes, or 0 for none.
    pub(super) profile_bytes: u64,
}

impl PngHeader {
    /// Reads the header. Returns `None` if the file does not begin with an IHDR chunk.
    ///
    /// The decoder is not used, because it inflates every chunk before the pixels. Only the ICC profile is inflated
    /// here.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        // The signature has 8 bytes. The chunk begins with its length and its name. Its data begin with the
        // width, the height, the number of bits per sample and the colour type.
        let chunk = bytes.get(8..26)?;
        let (name, rest) = chunk.get(4..)?.split_first_chunk::<4>()?;
        let (width, rest) = rest.split_first_chunk::<4>()?;
        let (height, rest) = rest.split_first_chunk::<4>()?;
        let &[_, colour_type] = rest else { return None };
        let (width, height) = (u32::from_be_bytes(*width), u32::from_be_bytes(*height));
        let profile_bytes = srgb::png_profile_bytes(bytes);
        (name == b"IHDR").then_some(Self { width, height, colour_type, profile_bytes })
    }

    /// Returns the maximum number of bytes that [`Self::decode`] allocates.
    ///
    /// Counts the pixels with 8 bits per channel, four rows of RGBA with 16 bits per channel, and tables.
    /// Samples of 16 bits are reduced to 8 bits row by row, so they are never in memory together.
    pub(super) fn max_decoding_bytes(&self) -> u64 {
        // A chunk tRNS adds an alpha channel to the colour types without one.
        let channel_count = if matches!(self.colour_type, GREY | GREY_ALPHA) { 2 } else { 4 };
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        width * height * channel_count + width * 8 * 4 + MAX_TABLE_BYTES as u64
    }

    /// Decodes the PNG `bytes`, whose header is `self`. Transparent pixels are blended with white.
    ///
    /// # Errors
    /// Returns [`ImageError::NotAnImage`] when the PNG cannot be decoded.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Picture, ImageError> {
        // Compressed XMP is inflated here, before the decoder allocates its tables.
        let orientation = to_orientation(exif_orientation::read_png_orientation(bytes));
        let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: MAX_TABLE_BYTES });
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().map_err(ImageError::corrupt)?;
        let length = reader.output_buffer_size().unwrap_or(usize::MAX);
        if (reader.info().width, reader.info().height) != (self.width, self.height)
            || length as u64 > self.max_decoding_bytes()
        {
            return Err(ImageError::corrupt("the PNG has several headers that differ"));
        }
        let mut buffer = ZeroedBuffer::new(length);
        let frame = reader.next_frame(&mut buffer).map_err(ImageError::corrupt)?;
        if (frame.width, frame.height) != (self.width, self.height) {
            return Err(ImageError::corrupt("the first frame of the PNG is smaller than the image"));
        }
        let (length, channels) = match frame.color_type {
            ColorType::Grayscale => (length, Channels::Grey),
            ColorType::GrayscaleAlpha => {
                let blend = |[grey, alpha]: [u8; 2]| [blend_with_white(grey, alpha)];
                (blend_pixels(&mut buffer, blend), Channels::Grey)
            }
            ColorType::Rgb => (length, Channels::Rgb),
            ColorType::Rgba => {
                let blend = |[red, green, blue, alpha]: [u8; 4]| {
                    [red, green, blue].map(|colour| blend_with_white(colour, alpha))
                };
                (blend_pixels(&mut buffer, blend), Channels::Rgb)
            }
            ColorType::Indexed => return Err(ImageError::corrupt("the palette is missing")),
        };
        Ok(Picture {
            pixels: Pixels { buffer, length },
            channels,
            orientation,
            icc_profile: srgb::read_png_profile(bytes),
        })
    }
}

/// Replaces every pixel of `IN` bytes with one of `OUT` bytes, in place. Returns the new length in bytes.
fn blend_pixels<const IN: usize, const OUT: usize>(
    pixels: &mut [u8],
    blend: impl Fn([u8; IN]) -> [u8; OUT],
) -> usize {
    let pixel_count = pixels.len() / IN;
    for index in 0..pixel_count {
        let mut pixel = [0; IN];
        pixel.copy_from_slice(&pixels[index * IN..][..IN]);
        pixels[index * OUT..][..OUT].copy_from_slice(&blend(pixel));
    }
    pixel_count * OUT
}

/// Blends one channel of a pixel with white.
fn blend_with_white(colour: u8, alpha: u8) -> u8 {
    let (colour, alpha) = (u32::from(colour), u32::from(alpha));
    // Adding 127 rounds the quotient to the nearest integer.
    u8::try_from((colour * alpha + 255 * (255 - alpha) + 127) / 255).unwrap_or(u8::MAX)
}
