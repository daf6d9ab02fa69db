//! Headers of uploads. A header states format, size and coding, and is read without decoding pixels.
//!
//! The header decides whether an upload is accepted and how much CPU time and memory is reserved for it.
//! Reading the header must therefore be cheap. The header parsers of the decoders do not promise that, so
//! this module has parsers of its own. A decoder refuses a file whose pixels have a different size than this
//! header states, so a header with a wrong size does not get a file past the limits.

pub(super) mod bmp;
mod endian;
pub(super) mod gif;
#[cfg(feature = "heic")]
pub(super) mod heif;
pub(super) mod jpeg;
pub(super) mod png;
pub(super) mod tiff;
mod vp8l;
pub(super) mod webp;

use image::ImageFormat;
use resize::Channels;

#[cfg(feature = "heic")]
pub use self::heif::HeifHeader;
pub use self::{
    gif::GifHeader,
    jpeg::{JpegHeader, JpegProcess},
    png::PngHeader,
    tiff::TiffHeader,
    webp::WebPHeader,
};
use super::{error::ImageError, format::Format, size::pixel_count};

/// Size and coding of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// Width in pixels as stored, before the EXIF orientation is applied.
    pub width: u32,
    /// Height in pixels as stored, before the EXIF orientation is applied.
    pub height: u32,
    /// Format, and the parts of the header that determine the cost of decoding.
    pub coding: Coding,
}

/// Format of an upload, and the parts of its header that determine the cost of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// JPEG.
    Jpeg(JpegHeader),
    /// PNG.
    Png(PngHeader),
    /// WebP.
    WebP(WebPHeader),
    /// GIF.
    Gif(GifHeader),
    /// Windows bitmap.
    Bmp,
    /// TIFF.
    Tiff(TiffHeader),
    /// HEIC or AVIF.
    #[cfg(feature = "heic")]
    Heif(HeifHeader),
}

impl ImageHeader {
    /// Returns the format that the first bytes of the upload show. File name and content type are ignored.
    pub fn format(&self) -> Format {
        match self.coding {
            Coding::Jpeg(_) => Format::Jpeg,
            Coding::Png(_) => Format::Png,
            Coding::WebP(_) => Format::WebP,
            Coding::Gif(_) => Format::Gif,
            Coding::Bmp => Format::Bmp,
            Coding::Tiff(_) => Format::Tiff,
            #[cfg(feature = "heic")]
            Coding::Heif(heif) => heif.format,
        }
    }

    /// Returns the number of pixels.
    pub fn pixel_count(&self) -> u64 {
        pixel_count(self.width, self.height)
    }

    /// Returns the channels of a decoded pixel, or RGB if decoded pixels may have fewer.
    pub(super) fn max_channels(&self) -> Channels {
        match self.coding {
            Coding::Jpeg(JpegHeader { component_count: 4, .. })
            | Coding::Tiff(TiffHeader { channels: Channels::Cmyk, .. }) => Channels::Cmyk,
            _ => Channels::Rgb,
        }
    }
}

/// Reads the header of an upload.
///
/// - JPEG: all markers, until there are more than `max_scans` scans.
/// - PNG: the chunks before the pixels.
/// - WebP: the chunks, and the prefix codes of a lossless image or alpha channel.
/// - GIF: the extensions before the first frame, and the position of this frame.
/// - TIFF: the first directory.
/// - BMP: a few bytes.
/// - HEIC and AVIF: the boxes, and the headers of every coded part of the picture.
///
/// # Errors
/// - [`ImageError::NotAnImage`] or [`ImageError::UnsupportedFormat`] when the format is not accepted.
/// - [`ImageError::Corrupt`] when the format is accepted but the header is damaged or states no size.
pub(super) fn read_header(bytes: &[u8], max_scans: u32) -> Result<ImageHeader, ImageError> {
    let format = detect_format(bytes)?;
    let corrupt = |reason: &'static str| ImageError::Corrupt { format, source: reason.into() };
    let header = match format {
        Format::Jpeg => jpeg::read_header(bytes, max_scans).map_err(corrupt)?,
        Format::Png => png::read_header(bytes),
        Format::WebP => webp::read_header(bytes).map_err(corrupt)?,
        Format::Gif => gif::read_header(bytes),
        Format::Bmp => bmp::read_header(bytes),
        Format::Tiff => tiff::read_header(bytes),
        #[cfg(feature = "heic")]
        Format::Heic => Some(heif::read_header(bytes, format)?),
        #[cfg(feature = "avif")]
        Format::Avif => Some(heif::read_header(bytes, format)?),
    };
    header
        .filter(|header| header.width > 0 && header.height > 0)
        .ok_or_else(|| corrupt("the header states no size"))
}

/// Detects the format from the first bytes.
fn detect_format(bytes: &[u8]) -> Result<Format, ImageError> {
    let unsupported = |name: &str| Err(ImageError::UnsupportedFormat { format_name: name.to_owned() });
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => Ok(Format::Jpeg),
        Ok(ImageFormat::Png) => Ok(Format::Png),
        Ok(ImageFormat::WebP) => Ok(Format::WebP),
        Ok(ImageFormat::Gif) => Ok(Format::Gif),
        Ok(ImageFormat::Bmp) => Ok(Format::Bmp),
        Ok(ImageFormat::Tiff) => Ok(Format::Tiff),
        #[cfg(feature = "avif")]
        Ok(ImageFormat::Avif) => Ok(Format::Avif),
        #[cfg(not(feature = "avif"))]
        Ok(ImageFormat::Avif) => unsupported(AVIF_NAME),
        Ok(other) => unsupported(&format!("{other:?}").to_uppercase()),
        #[cfg(feature = "avif")]
        Err(_) if heif_picture::is_avif(bytes) => Ok(Format::Avif),
        #[cfg(all(feature = "heic", not(feature = "avif")))]
        Err(_) if heif_picture::is_avif(bytes) => unsupported(AVIF_NAME),
        Err(_) => match detect_unsupported_format(bytes) {
            #[cfg(feature = "heic")]
            Some(OTHER_FTYP_NAME) if heif_picture::is_heif(bytes) => Ok(Format::Heic),
            Some(name) => unsupported(name),
            None => Err(ImageError::NotAnImage),
        },
    }
}

/// Name of AVIF in errors of a build without its decoder.
#[cfg(not(feature = "avif"))]
const AVIF_NAME: &str = "AVIF, which this build does not decode,";

/// Name of the other formats that begin with the box `ftyp`.
const OTHER_FTYP_NAME: &str = if cfg!(feature = "heic") { "A video" } else { "HEIC, AVIF or a video" };

/// Detects common formats that the `image` crate does not recognise, so that the error can name the format.
fn detect_unsupported_format(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.get(..bytes.len().min(1024))?;
    let start_contains = |needle: &[u8]| start.windows(needle.len()).any(|window| window == needle);
    match start.get(4..12) {
        Some(brand) if brand.starts_with(b"ftyp") => return Some(OTHER_FTYP_NAME),
        _ => {}
    }
    if start.starts_with(b"II+\0") || start.starts_with(b"MM\0+") {
        return Some("BigTIFF");
    }
    if start.starts_with(b"\xFF\x0A") || start.starts_with(b"\0\0\0\x0CJXL ") {
        return Some("JPEG XL");
    }
    if start.starts_with(b"%PDF-") {
        return Some("PDF");
    }
    if start_contains(b"<svg") {
        return Some("SVG");
    }
    None
}
