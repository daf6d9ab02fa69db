//! Decodes a JPEG or PNG into the square crop that is the network's input.
//!
//! The steps are the same as in the models' reference evaluation. A triangle filter (Pillow's BILINEAR, whose
//! radius grows with the reduction) resizes the image so that its shorter side has a given length. The crop
//! is the centre of the resized image. One pass resizes and crops the image and computes only the pixels of
//! the crop, so an image of extreme proportions needs no more memory than a square image.

use std::{cell::RefCell, io::Cursor};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, metadata::Orientation};
use resize::{Channels, CropWindow, FilterType, Resizer, Source};

mod jpeg;

use jpeg::JpegHeader;

/// Maximum number of bytes that a decoder may allocate in addition to the pixels.
const MAX_DECODER_OVERHEAD: u64 = 16 << 20;

/// Maximum size in bytes of the resize buffers that a thread keeps.
const MAX_KEPT_BUFFER_BYTES: usize = 4 << 20;

thread_local! {
    /// Resizer of this thread.
    ///
    /// The resizer keeps its buffers for the next image, because allocating the buffers takes as long as the
    /// resize.
    static RESIZER: RefCell<Resizer> = RefCell::default();
}

/// Resize and crop that turn an image into the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Length of the shorter side after the resize, in pixels.
    pub resize: u32,
    /// Side of the square crop at the centre, in pixels. It is at most `resize`.
    pub crop: u32,
}

/// A square of RGB pixels, 8 bits per channel, in row-major order `[side, side, 3]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crop {
    rgb: Vec<u8>,
}

impl Crop {
    /// Creates a crop from the bytes of its pixels.
    ///
    /// Returns `None` unless `rgb` has `side * side` pixels of three bytes.
    pub fn new(rgb: Vec<u8>, side: u32) -> Option<Self> {
        let side = usize::try_from(side).ok()?;
        (rgb.len() == side.checked_mul(side)?.checked_mul(3)?).then_some(Self { rgb })
    }

    /// Creates a black crop, for the warm-up and for tests.
    pub fn black(side: u32) -> Self {
        Self { rgb: RgbImage::new(side, side).into_raw() }
    }

    /// Returns the pixels, three bytes per pixel in the order red, green, blue.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// Reason why an image cannot be decoded. The same bytes always fail again.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The bytes are not an image, or the image is corrupt.
    #[error("the bytes are not a readable image")]
    NotAnImage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The image is neither a JPEG nor a PNG.
    #[error("{0} images are not supported")]
    UnsupportedFormat(&'static str),
    /// The image has too many pixels.
    #[error("the image has {pixels} pixels; the limit is {limit}")]
    TooManyPixels {
        /// Width times height.
        pixels: u64,
        /// Maximum number of pixels.
        limit: u64,
    },
}

impl ImageError {
    fn corrupt(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::NotAnImage(source.into())
    }
}

/// Returns true if `bytes` begin with the signature of an image format, supported or not.
pub(crate) fn looks_like_image(bytes: &[u8]) -> bool {
    image::guess_format(bytes).is_ok()
}

/// Format and size of an image, read from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    format: ImageFormat,
    width: u32,
    height: u32,
}

impl ImageHeader {
    /// Reads the header without decoding pixels. This is cheap enough for an async worker.
    ///
    /// # Errors
    /// Returns [`ImageError::NotAnImage`] when the header cannot be read, [`ImageError::UnsupportedFormat`]
    /// when the image is neither a JPEG nor a PNG, and [`ImageError::TooManyPixels`] when the image has
    /// more than `max_pixels` pixels.
    pub fn read(bytes: &[u8], max_pixels: u64) -> Result<Self, ImageError> {
        let format = image::guess_format(bytes).map_err(ImageError::corrupt)?;
        let (width, height) = match format {
            ImageFormat::Png => {
                read_png_size(bytes).ok_or_else(|| ImageError::corrupt("the PNG has no IHDR"))?
            }
            ImageFormat::Jpeg => match JpegHeader::read(bytes) {
                Some(JpegHeader { is_complete: false, .. }) => {
                    return Err(ImageError::corrupt("the JPEG is truncated: it has no end marker"));
                }
                Some(JpegHeader { width, height, .. }) => (width, height),
                // The segments violate the standard, but the decoder may accept them.
                None => ImageReader::with_format(Cursor::new(bytes), format)
                    .into_dimensions()
                    .map_err(ImageError::corrupt)?,
            },
            other => {
                let name = other.extensions_str().first().copied().unwrap_or("such");
                return Err(ImageError::UnsupportedFormat(name));
            }
        };
        let header = Self { format, width, height };
        match header.pixels() {
            0 => Err(ImageError::corrupt("the image has no pixels")),
            pixels if pixels > max_pixels => Err(ImageError::TooManyPixels { pixels, limit: max_pixels }),
            _ => Ok(header),
        }
    }

    /// Returns the number of pixels. The cost of decoding is proportional to this number.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Reads the width and height from the first chunk of a PNG, IHDR.
///
/// The crate `image` is not used, because it decompresses colour profiles and texts before it returns the
/// size.
fn read_png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    // The signature has 8 bytes. The chunk begins with its length, its name, the width and the height.
    let chunk = bytes.get(8..24)?;
    let (name, rest) = chunk.get(4..)?.split_first_chunk::<4>()?;
    let (width, rest) = rest.split_first_chunk::<4>()?;
    let (height, _) = rest.split_first_chunk::<4>()?;
    (name == b"IHDR").then(|| (u32::from_be_bytes(*width), u32::from_be_bytes(*height)))
}

/// Decodes `bytes`, resizes and crops the image to `geometry`, and applies the EXIF orientation.
///
/// `header` must be the header of `bytes`. Transparent pixels are blended with white. This function takes
/// milliseconds of CPU time, so it must not run on an async worker.
///
/// # Errors
/// Returns [`ImageError::NotAnImage`] when the image cannot be decoded.
pub fn crop(bytes: &[u8], header: &ImageHeader, geometry: Geometry) -> Result<Crop, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), header.format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(header.width);
    limits.max_image_height = Some(header.height);
    // The largest pixel has eight bytes, because it is RGBA with 16 bits per channel.
    limits.max_alloc = Some(header.pixels() * 8 + MAX_DECODER_OVERHEAD);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(ImageError::corrupt)?;
    // Corrupt EXIF metadata is ignored, because the pixels may be intact.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let picture = blend_with_white(DynamicImage::from_decoder(decoder).map_err(ImageError::corrupt)?);
    let centre = resize_centre(&picture, geometry)?;
    Ok(Crop { rgb: apply_orientation(centre, geometry.crop, orientation)? })
}

/// Converts `picture` to RGB. Transparent pixels are blended with white.
fn blend_with_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    let mut rgb = RgbImage::new(picture.width(), picture.height());
    for (to, from) in rgb.pixels_mut().zip(picture.pixels()) {
        let [red, green, blue, alpha] = from.0;
        to.0 = [red, green, blue].map(|channel| blend_channel(channel, alpha));
    }
    rgb
}

/// Blends one channel of a pixel with white.
fn blend_channel(channel: u8, alpha: u8) -> u8 {
    let (channel, alpha) = (u32::from(channel), u32::from(alpha));
    // Adding 127 rounds the quotient to the nearest integer.
    u8::try_from((channel * alpha + 255 * (255 - alpha) + 127) / 255).unwrap_or(u8::MAX)
}

/// Computes the crop at the centre of the resized image, as RGB bytes.
fn resize_centre(picture: &RgbImage, geometry: Geometry) -> Result<Vec<u8>, ImageError> {
    let (width, height) = (picture.width(), picture.height());
    let shorter = width.min(height);
    let (left, box_width) = crop_span(width, shorter, geometry);
    let (top, box_height) = crop_span(height, shorter, geometry);
    let source = Source {
        pixels: picture,
        width,
        height,
        channels: Channels::Rgb,
        crop: CropWindow { left, top, width: box_width, height: box_height },
    };
    let mut square = RgbImage::new(geometry.crop, geometry.crop);
    RESIZER.with_borrow_mut(|resizer| {
        let resized =
            resizer.resize(&source, FilterType::Bilinear, (geometry.crop, geometry.crop), &mut square);
        if resizer.buffer_bytes() > MAX_KEPT_BUFFER_BYTES {
            resizer.free_buffer();
        }
        resized.map_err(ImageError::corrupt)
    })?;
    Ok(square.into_raw())
}

/// Computes the start and the length of the crop along one side, in pixels of the original image.
///
/// `length` is the length of this side, and `shorter` is the length of the image's shorter side. Numbers are
/// rounded as in the reference evaluation: the resized length is rounded down, and a start that ends in half
/// a pixel is rounded to the nearest even number. The result is exact if the image is not resized.
fn crop_span(length: u32, shorter: u32, geometry: Geometry) -> (f64, f64) {
    let resized = u64::from(geometry.resize) * u64::from(length) / u64::from(shorter);
    let margin = resized.saturating_sub(u64::from(geometry.crop));
    let half = margin / 2;
    let start = if margin % 2 == 1 && half % 2 == 1 { half + 1 } else { half };
    // The conversion to f64 is exact, because the numbers are far below 2^53.
    let scale = |pixels: u64| pixels as f64 * f64::from(length) / resized as f64;
    (scale(start), scale(u64::from(geometry.crop)))
}

/// Turns the crop upright, according to the EXIF orientation.
///
/// The crop is turned after the resize, because it has fewer pixels than the image.
fn apply_orientation(rgb: Vec<u8>, side: u32, orientation: Orientation) -> Result<Vec<u8>, ImageError> {
    if orientation == Orientation::NoTransforms {
        return Ok(rgb);
    }
    let square =
        RgbImage::from_raw(side, side, rgb).ok_or_else(|| ImageError::corrupt("the crop is incomplete"))?;
    let mut square = DynamicImage::ImageRgb8(square);
    square.apply_orientation(orientation);
    Ok(square.into_rgb8().into_raw())
}

#[cfg(test)]
mod tests;
