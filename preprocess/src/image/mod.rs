//! What happens to a picture: bytes in, one upright opaque RGB JPEG out. No input, no output, no
//! clock but for the timings; the same bytes under the same recipe always give the same picture.
//!
//! - [`inspect`]: format and size from the header, and whether the limits let it in
//! - [`process`]: the whole way: decode → resize → turn upright → encode
//! - [`pixels`]: the same, but for the encoding

mod decode;
mod encode;
mod error;
mod header;
mod resize;

use std::time::{Duration, Instant};

use bytes::Bytes;
use image::{DynamicImage, RgbImage};

pub use error::ImageError;
pub use header::{Format, Header};

/// Changed by hand whenever the code below would make another picture of the same upload under the
/// same settings: a stored image is then never taken for one that this version would make.
const VERSION: u32 = 1;

/// What is made of an upload, and which uploads are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Length of the shorter side in pixels; smaller pictures stay as they are.
    pub shorter_side: u32,
    /// JPEG quality, 1 to 100.
    pub jpeg_quality: u8,
    /// Which uploads are refused; no part of what is made.
    pub limits: Limits,
}

impl Recipe {
    /// The recipe as text, for [`platform::contract::ImageId::of`]: changes whenever the same upload
    /// would give another picture.
    pub fn id_text(&self) -> String {
        let Self { shorter_side, jpeg_quality, limits: _ } = self;
        let (filter, chroma) = (resize::FILTER, encode::CHROMA);
        format!("v{VERSION} shorter-side={shorter_side} filter={filter} jpeg={jpeg_quality} chroma={chroma}")
    }
}

/// Which uploads are refused by their size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most pixels.
    pub max_pixels: u64,
    /// Longest side in pixels.
    pub max_side: u32,
}

impl Limits {
    /// # Errors
    /// [`ImageError::TooManyPixels`], [`ImageError::SideTooLong`].
    fn check(&self, header: &Header) -> Result<(), ImageError> {
        let &Header { width, height, .. } = header;
        let max_side = self.max_side.min(encode::MAX_SIDE);
        if width.max(height) > max_side {
            return Err(ImageError::SideTooLong { width, height, limit: max_side });
        }
        if header.pixels() > self.max_pixels {
            return Err(ImageError::TooManyPixels { width, height, limit: self.max_pixels });
        }
        Ok(())
    }

    /// Bytes that a decoder may use: the largest picture with four 16-bit channels, and some room
    /// for its tables and metadata.
    fn decoder_bytes(&self) -> u64 {
        const BYTES_PER_PIXEL: u64 = 8;
        const TABLES: u64 = 16 << 20;
        self.max_pixels.saturating_mul(BYTES_PER_PIXEL).saturating_add(TABLES)
    }

    fn for_decoder(&self) -> image::Limits {
        let mut limits = image::Limits::default();
        limits.max_image_width = Some(self.max_side);
        limits.max_image_height = Some(self.max_side);
        limits.max_alloc = Some(self.decoder_bytes());
        limits
    }
}

/// A picture ready to be stored.
#[derive(Clone, Debug)]
pub struct Processed {
    /// The JPEG.
    pub jpeg: Bytes,
    /// Its width in pixels.
    pub width: u32,
    /// Its height in pixels.
    pub height: u32,
    /// What the upload was.
    pub source: Header,
    /// Where the time went.
    pub timings: Timings,
}

/// How long each step of [`process`] took.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Bytes to opaque RGB pixels.
    pub decode: Duration,
    /// Resizing and turning upright.
    pub resize: Duration,
    /// Pixels to JPEG.
    pub encode: Duration,
}

/// Reads format and size from the header and checks them against the limits. Costs next to nothing,
/// however large the upload.
///
/// # Errors
/// [`ImageError`], any but those of decoding.
pub fn inspect(bytes: &[u8], limits: &Limits) -> Result<Header, ImageError> {
    let header = header::read(bytes)?;
    limits.check(&header)?;
    Ok(header)
}

/// Makes the picture that `options` ask for out of an upload. Uses as much CPU as the upload has
/// pixels, and never panics, whatever the bytes.
///
/// # Errors
/// [`ImageError`]: all of them are about the upload, and permanent.
pub fn process(bytes: &[u8], options: &Recipe) -> Result<Processed, ImageError> {
    let source = inspect(bytes, &options.limits)?;
    let started = Instant::now();
    let decoded = decode::decode(bytes, &source, &options.limits)?;
    let decoded_at = Instant::now();

    let picture = shrink(decoded, &source, options)?;
    let resized_at = Instant::now();

    let jpeg = encode::jpeg(&picture, options.jpeg_quality)?;
    Ok(Processed {
        jpeg: jpeg.into(),
        width: picture.width(),
        height: picture.height(),
        source,
        timings: Timings {
            decode: decoded_at - started,
            resize: resized_at - decoded_at,
            encode: resized_at.elapsed(),
        },
    })
}

/// The picture as [`process`] encodes it, for comparing what becomes of the pixels.
///
/// # Errors
/// [`ImageError`], as [`process`].
pub fn pixels(bytes: &[u8], options: &Recipe) -> Result<RgbImage, ImageError> {
    let source = inspect(bytes, &options.limits)?;
    shrink(decode::decode(bytes, &source, &options.limits)?, &source, options)
}

/// Makes a picture small, and only then turns it upright.
fn shrink(decoded: decode::Decoded, source: &Header, options: &Recipe) -> Result<RgbImage, ImageError> {
    let size = resize::target(source.width, source.height, options.shorter_side);
    let window = resize::Window::whole(&decoded.pixels);
    let mut picture = DynamicImage::ImageRgb8(resize::resize(decoded.pixels, window, size)?);
    picture.apply_orientation(decoded.orientation);
    Ok(picture.into_rgb8())
}
