//! Decodes a JPEG or PNG into the square crop that is the network's input.
//!
//! The steps are the same as in the models' reference evaluation. A triangle filter (Pillow's BILINEAR, whose
//! radius grows with the reduction) resizes the image so that its shorter side has a given length. The crop
//! is the centre of the resized image. One pass resizes and crops the image and computes only the pixels of
//! the crop, so an image of extreme proportions needs no more memory than a square image.

use image::{DynamicImage, ImageFormat, RgbImage, metadata::Orientation};
use platform::buffer::ZeroedBuffer;
use resize::{Channels, CropWindow, FilterType, Resizer, Source};

mod jpeg;
mod png;
mod scratch;

use self::{jpeg::JpegHeader, png::PngHeader, scratch::Scratch};

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
    /// Decoding the image needs too much memory.
    #[error("decoding the image needs up to {bytes} bytes; the limit is {limit}")]
    TooMuchMemory {
        /// Maximum number of bytes that decoding needs.
        bytes: u64,
        /// Maximum number of bytes for one image.
        limit: u64,
    },
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

/// Limits on an image that are checked before and while it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Maximum number of pixels.
    pub max_pixels: u64,
    /// Maximum number of scans of a JPEG. The decoder passes over the whole image for each of them.
    pub max_scans: u32,
}

/// Format and size of an image, read from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    width: u32,
    height: u32,
    format: FormatHeader,
}

/// The part of a header that depends on the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FormatHeader {
    Jpeg(JpegHeader),
    Png(PngHeader),
}

impl ImageHeader {
    /// Returns true if [`Self::read`] takes so little time for this image that it can run on an async worker.
    ///
    /// The longer the image, the longer its header can take. The profile of a PNG is inflated to learn its length, and
    /// a few kilobytes can inflate to megabytes.
    pub(crate) fn is_cheap(bytes: &[u8]) -> bool {
        const MAX_BYTES: usize = 64 << 10;
        bytes.len() <= MAX_BYTES && !srgb::has_png_profile(bytes)
    }

    /// Reads the header without decoding pixels. A header that is crafted to be expensive takes tens of milliseconds.
    ///
    /// # Errors
    /// Returns [`ImageError::NotAnImage`] when the header cannot be read, [`ImageError::UnsupportedFormat`]
    /// when the image is neither a JPEG nor a PNG, and [`ImageError::TooManyPixels`] when the image has
    /// more pixels than `limits` allow.
    pub fn read(bytes: &[u8], limits: &ImageLimits) -> Result<Self, ImageError> {
        let header = match image::guess_format(bytes).map_err(ImageError::corrupt)? {
            ImageFormat::Png => {
                let png = PngHeader::read(bytes).ok_or_else(|| ImageError::corrupt("the PNG has no IHDR"))?;
                Self { width: png.width, height: png.height, format: FormatHeader::Png(png) }
            }
            ImageFormat::Jpeg => {
                let jpeg = JpegHeader::read(bytes, limits.max_scans).map_err(ImageError::corrupt)?;
                Self { width: jpeg.width, height: jpeg.height, format: FormatHeader::Jpeg(jpeg) }
            }
            other => {
                let name = other.extensions_str().first().copied().unwrap_or("such");
                return Err(ImageError::UnsupportedFormat(name));
            }
        };
        match header.pixels() {
            0 => Err(ImageError::corrupt("the image has no pixels")),
            pixels if pixels > limits.max_pixels => {
                Err(ImageError::TooManyPixels { pixels, limit: limits.max_pixels })
            }
            _ => Ok(header),
        }
    }

    /// Returns the number of pixels. The cost of decoding is proportional to this number.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Returns the maximum number of bytes that [`crop`] allocates.
    ///
    /// The file itself is not counted.
    pub fn max_crop_bytes(&self, geometry: Geometry) -> u64 {
        let (decoding_bytes, profile_bytes, channels) = match self.format {
            FormatHeader::Jpeg(jpeg) => (jpeg.max_decoding_bytes(), jpeg.profile_bytes, jpeg.channels()),
            FormatHeader::Png(png) => (png.max_decoding_bytes(), png.profile_bytes, Channels::Rgb),
        };
        let colour_bytes = if profile_bytes == 0 { 0 } else { srgb::max_bytes(profile_bytes, channels) };
        // The resizer first resizes every row of the crop window to the width of the crop. The filter also
        // reads a few rows around the window.
        let crop_row_bytes = u64::from(geometry.crop) * u64::from(channels.count());
        let row_count = u64::from(self.width.min(self.height)) + 16;
        decoding_bytes + colour_bytes + crop_row_bytes * (row_count + 3 * u64::from(geometry.crop))
    }
}

/// The pixels of a decoded image, of which the first `length` bytes are used.
struct Pixels {
    buffer: ZeroedBuffer,
    length: usize,
}

/// A decoded image with 8 bits per channel.
struct Picture {
    /// Opaque pixels in row-major order, `[height, width, channels]`.
    pixels: Pixels,
    channels: Channels,
    orientation: Orientation,
    /// The ICC profile of the pixels.
    icc_profile: Option<Vec<u8>>,
}

/// Decodes `bytes`, resizes and crops the image to `geometry`, converts the colours to sRGB, and applies the EXIF
/// orientation.
///
/// `header` must be the header of `bytes`. Transparent pixels are blended with white. This function takes
/// milliseconds of CPU time, so it must not run on an async worker. It allocates at most
/// [`ImageHeader::max_crop_bytes`].
///
/// # Errors
/// Returns [`ImageError::NotAnImage`] when the image cannot be decoded.
pub fn crop(bytes: &[u8], header: &ImageHeader, geometry: Geometry) -> Result<Crop, ImageError> {
    Scratch::with(|scratch| {
        let picture = match header.format {
            FormatHeader::Jpeg(jpeg) => jpeg.decode(bytes, &mut scratch.jpeg_decoder)?,
            FormatHeader::Png(png) => png.decode(bytes)?,
        };
        let centre = resize_centre(&picture, header, geometry, &mut scratch.resizer)?;
        let rgb = scratch.converter.convert(centre, picture.channels, picture.icc_profile.as_deref());
        Ok(Crop { rgb: apply_orientation(rgb, geometry.crop, picture.orientation)? })
    })
}

/// Returns the EXIF orientation. Corrupt metadata is ignored, because the pixels may be intact.
fn read_orientation(exif: Option<&[u8]>) -> Orientation {
    exif.and_then(exif_orientation::read_orientation)
        .and_then(Orientation::from_exif)
        .unwrap_or(Orientation::NoTransforms)
}

/// Computes the crop at the centre of the resized image, with the channels of the image.
fn resize_centre(
    picture: &Picture,
    header: &ImageHeader,
    geometry: Geometry,
    resizer: &mut Resizer,
) -> Result<Vec<u8>, ImageError> {
    let ImageHeader { width, height, .. } = *header;
    let shorter = width.min(height);
    let (left, box_width) = crop_span(width, shorter, geometry);
    let (top, box_height) = crop_span(height, shorter, geometry);
    let Picture { pixels, channels, .. } = picture;
    let source = Source {
        pixels: &pixels.buffer[..pixels.length],
        width,
        height,
        channels: *channels,
        crop: CropWindow { left, top, width: box_width, height: box_height },
    };
    let side = usize::try_from(geometry.crop).unwrap_or(usize::MAX);
    let mut square = vec![0; side * side * usize::from(channels.count())];
    resizer
        .resize(&source, FilterType::Bilinear, (geometry.crop, geometry.crop), &mut square)
        .map_err(ImageError::corrupt)?;
    Ok(square)
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
