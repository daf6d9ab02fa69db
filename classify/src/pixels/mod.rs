//! Decodes a JPEG or PNG into the crop that is the network's input.
//!
//! The steps are the same as in the models' reference evaluation: the image is resized with a filter of Pillow, whose
//! radius grows with the reduction, and the crop is the centre of the resized image. [`Geometry`] selects the filter
//! and the size. One pass resizes and crops the image and computes only the pixels of the crop, so an image of extreme
//! proportions needs no more memory than a square image. This does not hold for a squash, nor for bicubic and Lanczos.
//!
//! A JPEG is decoded at its full size, so the filter sees every pixel of the file.

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage, metadata::Orientation};
use platform::buffer::ZeroedBuffer;
use resize::{Channels, CropWindow, FilterType, Resizer, Source};

mod channels;
mod geometry;
mod jpeg;
mod png;
mod scratch;

pub use self::geometry::{ChannelOrder, CropShape, Filter, Geometry, Resize};
use self::{geometry::Placement, jpeg::JpegHeader, png::PngHeader, scratch::Scratch};

/// The network's input image, 8 bits per channel, in row-major order `[height, width, channels]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crop {
    bytes: Vec<u8>,
    is_enlarged: bool,
}

impl Crop {
    /// Creates a crop from the bytes of its pixels, in the channels of `shape`.
    ///
    /// Returns `None` unless `bytes` has the number of bytes of `shape`.
    pub fn new(bytes: Vec<u8>, shape: CropShape) -> Option<Self> {
        (bytes.len() == shape.byte_count()).then_some(Self { bytes, is_enlarged: false })
    }

    /// Creates a black crop, for the warm-up and for tests.
    pub fn black(shape: CropShape) -> Self {
        Self { bytes: vec![0; shape.byte_count()], is_enlarged: false }
    }

    /// Returns the pixels. The channels of a pixel have the order of the network's input.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns true if the image was smaller than the resize needs, so that it was enlarged.
    pub fn is_enlarged(&self) -> bool {
        self.is_enlarged
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

    /// Returns the width in pixels, before the orientation is applied.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Returns the height in pixels, before the orientation is applied.
    pub fn height(&self) -> u32 {
        self.height
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
        let resized_bytes =
            geometry.max_pixels_in_memory(self.width, self.height) * u64::from(channels.count());
        decoding_bytes + colour_bytes + resized_bytes
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

/// Decodes `bytes`, resizes and crops the image to `geometry`, converts the colours to sRGB and then to the channels of
/// the network, and applies the orientation.
///
/// `header` must be the header of `bytes`. Transparent pixels are blended with white. This function takes
/// milliseconds of CPU time, so it must not run on an async worker. It allocates at most
/// [`ImageHeader::max_crop_bytes`].
///
/// # Errors
/// Returns [`ImageError::NotAnImage`] when the image cannot be decoded.
pub fn crop(bytes: &[u8], header: &ImageHeader, geometry: Geometry) -> Result<Crop, ImageError> {
    Scratch::with(|scratch| {
        let mut picture = match header.format {
            FormatHeader::Jpeg(jpeg) => jpeg.decode(bytes, &mut scratch.jpeg_decoder)?,
            FormatHeader::Png(png) => png.decode(bytes)?,
        };
        let order = geometry.crop.channels;
        if order == ChannelOrder::Grey {
            channels::convert_to_grey_before_resize(&mut picture);
        }
        // The image is turned after the resize, because it has fewer pixels then.
        let stored_geometry =
            if is_transposed(picture.orientation) { geometry.transposed() } else { geometry };
        let placement = stored_geometry.place(header.width, header.height);
        let resized = resize_picture(&mut picture, header, placement, geometry.filter, &mut scratch.resizer)?;
        let size = (placement.columns.length, placement.rows.length);
        let is_grey = order == ChannelOrder::Grey
            && picture.channels == Channels::Grey
            && picture.icc_profile.is_none();
        let pixels = if is_grey {
            resized
        } else {
            let rgb = scratch.converter.convert(resized, picture.channels, picture.icc_profile.as_deref());
            channels::convert_rgb(rgb, order)
        };
        let (pixels, size) = apply_orientation(pixels, size, order, picture.orientation)?;
        let crop_size = (geometry.crop.width, geometry.crop.height);
        let bytes = match geometry.resize {
            Resize::Letterbox(colour) if size != crop_size => {
                let colour = channels::convert_rgb(colour.to_vec(), order);
                channels::pad(&pixels, size, crop_size, &colour)
            }
            _ => pixels,
        };
        Ok(Crop { bytes, is_enlarged: placement.is_enlarged() })
    })
}

/// Converts the number of an orientation. Corrupt metadata is ignored, because the pixels may be intact.
fn to_orientation(number: Option<u8>) -> Orientation {
    number.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms)
}

/// Computes the part of the resized image that `placement` selects, with the channels of the image.
fn resize_picture(
    picture: &mut Picture,
    header: &ImageHeader,
    placement: Placement,
    filter: Filter,
    resizer: &mut Resizer,
) -> Result<Vec<u8>, ImageError> {
    let Placement { columns, rows } = placement;
    let ((left, window_width), (top, window_height)) = (columns.in_source(), rows.in_source());
    let Picture { pixels, channels, .. } = picture;
    let mut source = Source {
        pixels: &mut pixels.buffer[..pixels.length],
        width: header.width,
        height: header.height,
        channels: *channels,
        crop: CropWindow { left, top, width: window_width, height: window_height },
    };
    let mut resized = vec![0; columns.length as usize * rows.length as usize * usize::from(channels.count())];
    let size = (columns.length, rows.length);
    match filter {
        Filter::Bilinear => resizer.resize(&mut source, FilterType::Bilinear, size, &mut resized),
        Filter::Bicubic => {
            resize_width_first(resizer, &mut source, FilterType::CatmullRom, size, &mut resized)
        }
        Filter::Lanczos => resize_width_first(resizer, &mut source, FilterType::Lanczos3, size, &mut resized),
        Filter::Nearest => resizer.resize_nearest(&source, columns.nearest(), rows.nearest(), &mut resized),
    }
    .map_err(ImageError::corrupt)?;
    Ok(resized)
}

/// Resizes the crop window of `source` in width, then in height.
///
/// A filter with negative weights exceeds 0 and 255 beside an edge. Pillow limits the values after each of the two
/// passes, so their order changes the result, and the resizer itself resizes in height first.
fn resize_width_first(
    resizer: &mut Resizer,
    source: &mut Source<'_>,
    filter: FilterType,
    size: (u32, u32),
    target: &mut [u8],
) -> Result<(), resize::Error> {
    let (width, height) = (size.0, source.height);
    let columns = CropWindow { top: 0.0, height: f64::from(height), ..source.crop };
    let mut narrowed = vec![0; width as usize * height as usize * usize::from(source.channels.count())];
    let mut wide = Source { pixels: &mut *source.pixels, crop: columns, ..*source };
    resizer.resize(&mut wide, filter, (width, height), &mut narrowed)?;
    let rows = CropWindow { left: 0.0, width: f64::from(width), ..source.crop };
    let mut narrowed = Source { pixels: &mut narrowed, width, crop: rows, ..*source };
    resizer.resize(&mut narrowed, filter, size, target)
}

/// Returns true if the orientation exchanges width and height.
fn is_transposed(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
}

/// Turns an image upright, according to the EXIF orientation. Returns its new size as well.
///
/// `size` is the width and the height in pixels.
fn apply_orientation(
    pixels: Vec<u8>,
    size: (u32, u32),
    order: ChannelOrder,
    orientation: Orientation,
) -> Result<(Vec<u8>, (u32, u32)), ImageError> {
    if orientation == Orientation::NoTransforms {
        return Ok((pixels, size));
    }
    let image = match order {
        ChannelOrder::Grey => GrayImage::from_raw(size.0, size.1, pixels).map(DynamicImage::from),
        // The order of the channels does not matter.
        ChannelOrder::Rgb | ChannelOrder::Bgr => {
            RgbImage::from_raw(size.0, size.1, pixels).map(DynamicImage::from)
        }
    };
    let mut image = image.ok_or_else(|| ImageError::corrupt("the crop is incomplete"))?;
    image.apply_orientation(orientation);
    let size = (image.width(), image.height());
    Ok((image.into_bytes(), size))
}

#[cfg(test)]
mod tests;
