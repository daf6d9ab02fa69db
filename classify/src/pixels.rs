//! From the bytes of a JPEG or PNG to the square crop that the network takes.
//!
//! The steps are those the models were measured with: the shorter side is brought to a given length
//! by a triangle filter that widens with the reduction (Pillow's BILINEAR), and the centre is cut
//! out. Both happen in one pass over just the pixels that the crop needs, so a picture of extreme
//! proportions costs no more memory than any other.

use std::{cell::RefCell, io::Cursor};

use fast_image_resize::{
    FilterType, ResizeAlg, ResizeOptions, Resizer,
    images::{TypedImage, TypedImageRef},
    pixels::U8x3,
};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, metadata::Orientation};

mod jpeg;

/// Bytes that a decoder may use beside the picture itself: tables, metadata, rows under way.
const DECODER_OVERHEAD: u64 = 16 << 20;

/// Bytes that are kept between two pictures to resize in; a large picture may take more.
const RESIZER_MEMORY: usize = 4 << 20;

thread_local! {
    /// Kept for the next picture: fresh memory for what is half resized takes as long as the resize.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// How a picture is brought to the network's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Length of the shorter side after the resize, in pixels.
    pub resize: u32,
    /// Side of the square that is cut out of the centre, in pixels; at most `resize`.
    pub crop: u32,
}

/// A square of RGB pixels, 8 bits a channel, row by row, `[side, side, 3]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crop {
    rgb: Vec<u8>,
}

impl Crop {
    /// A crop of the given pixels; `None` unless `rgb` holds `side * side` pixels of three bytes.
    pub fn new(rgb: Vec<u8>, side: u32) -> Option<Self> {
        let side = usize::try_from(side).ok()?;
        (rgb.len() == side.checked_mul(side)?.checked_mul(3)?).then_some(Self { rgb })
    }

    /// A black one, for warming up and for tests.
    pub fn black(side: u32) -> Self {
        Self { rgb: RgbImage::new(side, side).into_raw() }
    }

    /// The pixels.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

/// Why bytes did not become a crop. All of it is permanent: the same bytes fail again.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No picture, or a broken one.
    #[error("the bytes are not a readable image")]
    NotAnImage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A picture in a format that is not taken here.
    #[error("{0} images are not taken")]
    UnsupportedFormat(&'static str),
    /// More pixels than are taken here.
    #[error("the image has {pixels} pixels, and at most {limit} are taken")]
    TooManyPixels {
        /// Width times height.
        pixels: u64,
        /// The limit.
        limit: u64,
    },
}

impl ImageError {
    fn broken(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::NotAnImage(source.into())
    }
}

/// Whether `bytes` begin as a picture of any format does, also one that is not taken here.
pub(crate) fn is_picture(bytes: &[u8]) -> bool {
    image::guess_format(bytes).is_ok()
}

/// What the first bytes of a picture say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    format: ImageFormat,
    width: u32,
    height: u32,
}

impl Header {
    /// Reads the header and decodes nothing; cheap enough for any thread.
    ///
    /// # Errors
    /// [`ImageError`]; [`ImageError::TooManyPixels`] when there are more than `max_pixels`.
    pub fn read(bytes: &[u8], max_pixels: u64) -> Result<Self, ImageError> {
        let format = image::guess_format(bytes).map_err(ImageError::broken)?;
        let (width, height) = match format {
            ImageFormat::Png => {
                png_dimensions(bytes).ok_or_else(|| ImageError::broken("the PNG has no IHDR"))?
            }
            ImageFormat::Jpeg => match jpeg::Outline::read(bytes) {
                Some(jpeg::Outline { whole: false, .. }) => {
                    return Err(ImageError::broken("the JPEG has no end: a part of it is missing"));
                }
                Some(jpeg::Outline { width, height, .. }) => (width, height),
                // Not as the standard has it, but perhaps nothing that the decoder minds.
                None => ImageReader::with_format(Cursor::new(bytes), format)
                    .into_dimensions()
                    .map_err(ImageError::broken)?,
            },
            other => {
                let name = other.extensions_str().first().copied().unwrap_or("such");
                return Err(ImageError::UnsupportedFormat(name));
            }
        };
        let header = Self { format, width, height };
        match header.pixels() {
            0 => Err(ImageError::broken("the image has no pixels")),
            pixels if pixels > max_pixels => Err(ImageError::TooManyPixels { pixels, limit: max_pixels }),
            _ => Ok(header),
        }
    }

    /// Width times height: what decoding costs.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Width and height from the IHDR chunk, which a PNG begins with. By hand, because `image` inflates
/// colour profiles and texts on its way to them.
fn png_dimensions(bytes: &[u8]) -> Option<(u32, u32)> {
    let chunk = bytes.get(8..24)?;
    let (name, rest) = chunk.get(4..)?.split_first_chunk::<4>()?;
    let (width, rest) = rest.split_first_chunk::<4>()?;
    let (height, _) = rest.split_first_chunk::<4>()?;
    (name == b"IHDR").then(|| (u32::from_be_bytes(*width), u32::from_be_bytes(*height)))
}

/// Decodes `bytes`, whose header is `header`, brings the shorter side to `geometry.resize`, cuts the
/// centre out and turns it upright as EXIF says. Alpha is laid over white. Takes milliseconds of one
/// core: not for an async worker.
///
/// # Errors
/// [`ImageError::NotAnImage`].
pub fn crop(bytes: &[u8], header: &Header, geometry: Geometry) -> Result<Crop, ImageError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), header.format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(header.width);
    limits.max_image_height = Some(header.height);
    // Eight bytes are the largest pixel there is: RGBA of 16 bits each.
    limits.max_alloc = Some(header.pixels() * 8 + DECODER_OVERHEAD);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(ImageError::broken)?;
    // Metadata that cannot be read says nothing; the picture can still be seen.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let picture = opaque(DynamicImage::from_decoder(decoder).map_err(ImageError::broken)?);
    let centre = centre(&picture, geometry)?;
    Ok(Crop { rgb: upright(centre, geometry.crop, orientation)? })
}

/// The picture in RGB, with transparency laid over white.
fn opaque(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    let mut rgb = RgbImage::new(picture.width(), picture.height());
    for (to, from) in rgb.pixels_mut().zip(picture.pixels()) {
        let [red, green, blue, alpha] = from.0;
        to.0 = [red, green, blue].map(|channel| over_white(channel, alpha));
    }
    rgb
}

fn over_white(channel: u8, alpha: u8) -> u8 {
    let (channel, alpha) = (u32::from(channel), u32::from(alpha));
    u8::try_from((channel * alpha + 255 * (255 - alpha) + 127) / 255).unwrap_or(u8::MAX)
}

/// The central square, resized, as RGB bytes.
fn centre(picture: &RgbImage, geometry: Geometry) -> Result<Vec<u8>, ImageError> {
    let (width, height) = (picture.width(), picture.height());
    let shorter = width.min(height);
    let (left, box_width) = crop_span(width, shorter, geometry);
    let (top, box_height) = crop_span(height, shorter, geometry);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(left, top, box_width, box_height);
    let mut square = RgbImage::new(geometry.crop, geometry.crop);
    // By its pixel's type: `Resizer::resize` compiles the loops of thirteen types here, of which one is
    // used.
    let from = TypedImageRef::<U8x3>::from_buffer(width, height, picture).map_err(ImageError::broken)?;
    let mut to =
        TypedImage::from_buffer(geometry.crop, geometry.crop, &mut square).map_err(ImageError::broken)?;
    RESIZER.with_borrow_mut(|resizer| {
        let resized = resizer.resize_typed::<U8x3>(&from, &mut to, &options).map_err(ImageError::broken);
        if resizer.size_of_internal_buffers() > RESIZER_MEMORY {
            resizer.reset_internal_buffers();
        }
        resized
    })?;
    Ok(square.into_raw())
}

/// Where the crop begins along one side of the picture and how long it is, in the picture's own
/// pixels. As in the reference: the resized length is truncated, and half a pixel of margin goes to
/// the even side. Exact where nothing is resized.
fn crop_span(length: u32, shorter: u32, geometry: Geometry) -> (f64, f64) {
    let resized = u64::from(geometry.resize) * u64::from(length) / u64::from(shorter);
    let margin = resized.saturating_sub(u64::from(geometry.crop));
    let half = margin / 2;
    let start = if margin % 2 == 1 && half % 2 == 1 { half + 1 } else { half };
    // A picture has fewer than 2^32 pixels a side, resized to at most 2^64 / 2^32: exact enough.
    let scale = |pixels: u64| pixels as f64 * f64::from(length) / resized as f64;
    (scale(start), scale(u64::from(geometry.crop)))
}

/// Turns the square as `orientation` says. After the resize, because there are fewer pixels to move.
fn upright(rgb: Vec<u8>, side: u32, orientation: Orientation) -> Result<Vec<u8>, ImageError> {
    if orientation == Orientation::NoTransforms {
        return Ok(rgb);
    }
    let square =
        RgbImage::from_raw(side, side, rgb).ok_or_else(|| ImageError::broken("the crop is incomplete"))?;
    let mut square = DynamicImage::ImageRgb8(square);
    square.apply_orientation(orientation);
    Ok(square.into_rgb8().into_raw())
}

#[cfg(test)]
mod tests;
