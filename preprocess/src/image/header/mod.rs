//! What the first bytes of an upload say: its format and its size.
//!
//! Read here rather than by the decoders because this must cost nothing: it decides, before any CPU
//! time or memory is spent, whether an image is let in and how much it weighs at the CPU door. The
//! decoders check the size again, so a header that lies gains nothing.

use std::fmt;

use image::ImageFormat;

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
    /// By its first bytes; names and content types are not asked.
    pub format: Format,
    /// Width in pixels as stored, before the EXIF orientation.
    pub width: u32,
    /// Height in pixels as stored, before the EXIF orientation.
    pub height: u32,
}

impl Header {
    /// Number of pixels.
    pub fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

/// Reads format and size. Looks at a few bytes only, however large the upload.
///
/// # Errors
/// [`ImageError::NotAnImage`], [`ImageError::UnsupportedFormat`], or [`ImageError::Corrupt`] where
/// the format is known but the size cannot be found.
pub(super) fn read(bytes: &[u8]) -> Result<Header, ImageError> {
    let format = format(bytes)?;
    let size = match format {
        Format::Jpeg => jpeg_frame(bytes).map(|frame| (frame.width, frame.height)),
        Format::Png => png(bytes),
        Format::WebP => webp(bytes),
        Format::Gif => gif(bytes),
        Format::Bmp => bmp(bytes),
        Format::Tiff => tiff(bytes),
    };
    match size {
        Some((width, height)) if width > 0 && height > 0 => Ok(Header { format, width, height }),
        _ => Err(ImageError::Corrupt { format, source: "its header gives no size".into() }),
    }
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

/// Where a JPEG's frame header ends and what it says.
struct JpegFrame {
    width: u32,
    height: u32,
    end: usize,
}

/// Walks the marker segments to the frame header. Rubbish between segments is stepped over, as
/// decoders do.
fn jpeg_frame(bytes: &[u8]) -> Option<JpegFrame> {
    let mut at = 2;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == 0xFF)?;
        at += bytes.get(at..)?.iter().position(|&byte| byte != 0xFF)?;
        let marker = *bytes.get(at)?;
        at += 1;
        match marker {
            // Stuffing, TEM, RSTn and SOI stand alone.
            0x00 | 0x01 | 0xD0..=0xD8 => {}
            // End of the image, or pixels, before any frame header.
            0xD9 | 0xDA => return None,
            // SOF0 to SOF15, without DHT, JPG and DAC which share their range.
            0xC0..=0xCF if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                let height = be16(bytes, at + 3)?;
                let width = be16(bytes, at + 5)?;
                let end = at + usize::try_from(be16(bytes, at)?).ok()?;
                return Some(JpegFrame { width, height, end });
            }
            _ => at += usize::try_from(be16(bytes, at)?).ok()?.max(2),
        }
    }
}

/// Whether a JPEG has its end marker. Decoders fill what is missing with grey and say nothing, so an
/// upload that was cut off would pass as an image. Searched backwards: whole files have it at or near
/// the end, and what cameras append (previews, films) is stepped over.
pub(super) fn jpeg_is_whole(bytes: &[u8]) -> bool {
    let rest = jpeg_frame(bytes).and_then(|frame| bytes.get(frame.end..)).unwrap_or_default();
    rest.windows(2).rev().any(|pair| pair == [0xFF, 0xD9])
}

fn png(bytes: &[u8]) -> Option<(u32, u32)> {
    (bytes.get(12..16)? == b"IHDR").then_some(())?;
    Some((be32(bytes, 16)?, be32(bytes, 20)?))
}

fn gif(bytes: &[u8]) -> Option<(u32, u32)> {
    Some((le16(bytes, 6)?, le16(bytes, 8)?))
}

fn bmp(bytes: &[u8]) -> Option<(u32, u32)> {
    const OS2_HEADER_BYTES: u32 = 12;
    if le32(bytes, 14)? == OS2_HEADER_BYTES {
        return Some((le16(bytes, 18)?, le16(bytes, 20)?));
    }
    // A negative height means that the rows go from top to bottom.
    let height = le32(bytes, 22)?.cast_signed().unsigned_abs();
    Some((le32(bytes, 18)?, height))
}

fn webp(bytes: &[u8]) -> Option<(u32, u32)> {
    const FOURTEEN_BITS: u32 = 0x3FFF;
    match bytes.get(12..16)? {
        b"VP8 " => Some((le16(bytes, 26)? & FOURTEEN_BITS, le16(bytes, 28)? & FOURTEEN_BITS)),
        b"VP8L" => {
            let bits = le32(bytes, 21)?;
            Some(((bits & FOURTEEN_BITS) + 1, ((bits >> 14) & FOURTEEN_BITS) + 1))
        }
        b"VP8X" => Some((le24(bytes, 24)? + 1, le24(bytes, 27)? + 1)),
        _ => None,
    }
}

fn tiff(bytes: &[u8]) -> Option<(u32, u32)> {
    const WIDTH: u32 = 256;
    const HEIGHT: u32 = 257;
    let big_endian = bytes.starts_with(b"MM");
    let short = |at| {
        if big_endian { be16(bytes, at) } else { le16(bytes, at) }
    };
    let long = |at| {
        if big_endian { be32(bytes, at) } else { le32(bytes, at) }
    };

    let directory = usize::try_from(long(4)?).ok()?;
    let (mut width, mut height) = (None, None);
    for entry in 0..usize::try_from(short(directory)?).ok()? {
        let at = directory.checked_add(2 + 12 * entry)?;
        let value = match short(at + 2)? {
            3 => short(at + 8)?,
            4 => long(at + 8)?,
            _ => continue,
        };
        match short(at)? {
            WIDTH => width = Some(value),
            HEIGHT => height = Some(value),
            _ => {}
        }
    }
    Some((width?, height?))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn be16(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(|raw| u32::from(u16::from_be_bytes(raw)))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_be_bytes)
}

fn le16(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(|raw| u32::from(u16::from_le_bytes(raw)))
}

fn le24(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(|[low, middle, high]| u32::from_le_bytes([low, middle, high, 0]))
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}
