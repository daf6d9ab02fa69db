//! What an upload says of itself before any of it is decoded: its format, its size, and how its pixels
//! are coded.
//!
//! Read here rather than by the decoders because this must cost next to nothing: it decides, before
//! any CPU time or memory is spent, whether an image is let in and how much it weighs. The decoders
//! check the size again, so a header that lies gains nothing.

mod bits;
mod bmp;
mod fields;
mod gif;
pub(super) mod jpeg;
pub(super) mod png;
mod tiff;
mod vp8l;
pub(super) mod webp;

use std::fmt;

use image::ImageFormat;

pub use self::{
    gif::Gif,
    jpeg::{Jpeg, Process},
    png::Png,
    tiff::Tiff,
    webp::WebP,
};
use super::ImageError;

/// A format that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JPEG: baseline and progressive; RGB, grey, CMYK.
    Jpeg,
    /// PNG.
    Png,
    /// WebP: lossy, lossless, the first frame of an animation.
    WebP,
    /// GIF: the first frame.
    Gif,
    /// Windows bitmap.
    Bmp,
    /// TIFF: the first page.
    Tiff,
}

impl Format {
    /// Every format that is accepted.
    pub const ALL: [Self; 6] = [Self::Jpeg, Self::Png, Self::WebP, Self::Gif, Self::Bmp, Self::Tiff];

    /// The format's usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What an upload says of itself, before any of it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Width in pixels as stored, before the EXIF orientation.
    pub width: u32,
    /// Height in pixels as stored, before the EXIF orientation.
    pub height: u32,
    /// How the pixels are coded.
    pub coding: Coding,
}

/// How the pixels of an upload are coded, as far as it decides what decoding costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// JPEG.
    Jpeg(Jpeg),
    /// PNG.
    Png(Png),
    /// WebP.
    WebP(WebP),
    /// GIF.
    Gif(Gif),
    /// Windows bitmap.
    Bmp,
    /// TIFF.
    Tiff(Tiff),
}

impl Header {
    /// By its first bytes; names and content types are not asked.
    pub fn format(&self) -> Format {
        match self.coding {
            Coding::Jpeg(_) => Format::Jpeg,
            Coding::Png(_) => Format::Png,
            Coding::WebP(_) => Format::WebP,
            Coding::Gif(_) => Format::Gif,
            Coding::Bmp => Format::Bmp,
            Coding::Tiff(_) => Format::Tiff,
        }
    }

    /// Number of pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// Whether it is a JPEG of grey alone.
    pub(super) fn is_grey_jpeg(&self) -> bool {
        matches!(self.coding, Coding::Jpeg(Jpeg { components: 1, .. }))
    }

    /// Whether it is a baseline JPEG, the one format that is decoded row by row and quickly.
    pub fn is_baseline_jpeg(&self) -> bool {
        matches!(self.coding, Coding::Jpeg(Jpeg { process: Process::Baseline, .. }))
    }
}

/// Reads the header: of a JPEG every marker, though no more than `max_scans` + 1 scans, which takes a
/// millisecond or two for the largest uploads; of PNG and WebP what comes before the pixels; of the
/// others a few bytes.
///
/// # Errors
/// [`ImageError::NotAnImage`], [`ImageError::UnsupportedFormat`], or [`ImageError::Corrupt`] where
/// the format is known but the size cannot be found.
pub(super) fn read(bytes: &[u8], max_scans: u32) -> Result<Header, ImageError> {
    let format = format(bytes)?;
    let corrupt = |why: &'static str| ImageError::Corrupt { format, source: why.into() };
    let header = match format {
        Format::Jpeg => jpeg::read(bytes, max_scans).map_err(corrupt)?,
        Format::Png => png::read(bytes),
        Format::WebP => webp::read(bytes).map_err(corrupt)?,
        Format::Gif => gif::read(bytes),
        Format::Bmp => bmp::read(bytes),
        Format::Tiff => tiff::read(bytes),
    };
    header
        .filter(|header| header.width > 0 && header.height > 0)
        .ok_or_else(|| corrupt("its header gives no size"))
}

fn format(bytes: &[u8]) -> Result<Format, ImageError> {
    let unsupported = |found: &str| Err(ImageError::UnsupportedFormat { found: found.to_owned() });
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => Ok(Format::Jpeg),
        Ok(ImageFormat::Png) => Ok(Format::Png),
        Ok(ImageFormat::WebP) => Ok(Format::WebP),
        Ok(ImageFormat::Gif) => Ok(Format::Gif),
        Ok(ImageFormat::Bmp) => Ok(Format::Bmp),
        Ok(ImageFormat::Tiff) => Ok(Format::Tiff),
        Ok(other) => unsupported(&format!("{other:?}").to_uppercase()),
        Err(_) => match foreign(bytes) {
            Some(name) => unsupported(name),
            None => Err(ImageError::NotAnImage),
        },
    }
}

/// Picture formats that people do send and that `image` does not know by their first bytes.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let start = bytes.get(..bytes.len().min(1024))?;
    let has = |needle: &[u8]| start.windows(needle.len()).any(|window| window == needle);
    match start.get(4..12) {
        Some(b"ftypavis") => return Some("AVIF"),
        Some(brand) if brand.starts_with(b"ftyp") => return Some("HEIC or a video"),
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
    if has(b"<svg") {
        return Some("SVG");
    }
    None
}
