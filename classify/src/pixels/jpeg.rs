//! Reads the header of a JPEG and decodes the JPEG with jpeg-scaled.

use image::metadata::Orientation;
use jpeg_scaled::{ColourSpace, Decoder, Error, Scale};
use platform::buffer::ZeroedBuffer;
use resize::Channels;
use srgb::JpegInks;

use super::{ImageError, Picture, Pixels, read_orientation};

/// Number of rows of coefficients that the decoder holds per component at the same time. The largest MCU
/// (minimum coded unit) has 32 rows.
const WORKING_ROWS: u64 = 64;

/// Maximum number of scans. The decoder passes over the whole image for each of them. Files have about ten.
const MAX_SCANS: usize = 32;

/// Marker of the header that precedes the pixels.
const SOS: u8 = 0xDA;
/// Marker of an application segment, usually with EXIF.
const APP1: u8 = 0xE1;

/// Properties of a JPEG, read from its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JpegHeader {
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    colour_space: ColourSpace,
    /// Orientation in the first EXIF segment.
    orientation: Orientation,
    /// Length of the ICC profile in bytes, or 0 for none.
    pub(super) profile_bytes: u64,
}

impl JpegHeader {
    /// Reads the segments that precede the pixels.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let jpeg_scaled::JpegHeader { width, height, colour_space, .. } =
            jpeg_scaled::JpegHeader::read(bytes)?;
        Ok(Self {
            width,
            height,
            colour_space,
            orientation: read_orientation(find_exif(bytes)),
            profile_bytes: srgb::jpeg_profile_bytes(bytes),
        })
    }

    /// Returns the maximum number of bytes that [`Self::decode`] allocates.
    ///
    /// Counts the pixels, the working rows, and the tables of the scans.
    pub(super) fn max_decoding_bytes(&self) -> u64 {
        let channel_count = self.colour_space.channel_count() as u64;
        let pixel_bytes = u64::from(self.width) * u64::from(self.height) * channel_count;
        let working_bytes = (u64::from(self.width) + 32) * WORKING_ROWS * 2 * channel_count;
        pixel_bytes + working_bytes + MAX_SCANS as u64 * jpeg_scaled::MAX_TABLE_BYTES_PER_SCAN
    }

    /// Returns the channels of a decoded pixel.
    pub(super) fn channels(&self) -> Channels {
        match self.colour_space {
            ColourSpace::Grey => Channels::Grey,
            ColourSpace::YCbCr | ColourSpace::Rgb => Channels::Rgb,
            ColourSpace::Cmyk | ColourSpace::Ycck => Channels::Cmyk,
        }
    }

    /// Decodes the JPEG `bytes`, whose header is `self`.
    ///
    /// # Errors
    /// Returns [`ImageError::NotAnImage`] when the JPEG cannot be decoded, for example because it is truncated.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Picture, ImageError> {
        let sample_count =
            u64::from(self.width) * u64::from(self.height) * self.colour_space.channel_count() as u64;
        let mut buffer = ZeroedBuffer::new(usize::try_from(sample_count).unwrap_or(usize::MAX));
        let mut decoder = Box::<Decoder>::default();
        decoder.set_max_scans(MAX_SCANS);
        decoder.decode_into_slice(bytes, Scale::Full, &mut buffer).map_err(ImageError::corrupt)?;
        let inks = match self.colour_space {
            ColourSpace::Cmyk => Some(JpegInks::Cmyk),
            ColourSpace::Ycck => Some(JpegInks::Ycck),
            ColourSpace::Grey | ColourSpace::YCbCr | ColourSpace::Rgb => None,
        };
        if let Some(inks) = inks {
            srgb::convert_jpeg_samples_to_inks(&mut buffer, inks);
        }
        Ok(Picture {
            pixels: Pixels { length: buffer.len(), buffer },
            channels: self.channels(),
            orientation: self.orientation,
            icc_profile: srgb::read_jpeg_profile(bytes),
        })
    }
}

/// Returns the EXIF block in the first segment that has one. Skips bytes that belong to no segment.
fn find_exif(bytes: &[u8]) -> Option<&[u8]> {
    // Every JPEG begins with the marker SOI (start of image).
    let mut rest = bytes.get(2..)?;
    loop {
        // A marker is a byte after 0xFF. Any number of further 0xFF bytes may precede the marker.
        rest = &rest[memchr::memchr(0xFF, rest)?..];
        let prefix_length = rest.iter().position(|&byte| byte != 0xFF)?;
        let (&marker, after_marker) = rest[prefix_length..].split_first()?;
        rest = after_marker;
        if matches!(marker, 0x00 | 0x01 | 0xD0..=0xD8) {
            continue;
        }
        // The length includes its own two bytes.
        let length = usize::from(u16::from_be_bytes(*after_marker.first_chunk()?)).max(2);
        let segment = after_marker.get(2..length)?;
        match (marker, segment.strip_prefix(b"Exif\0\0")) {
            (SOS, _) => return None,
            (APP1, Some(exif)) => return Some(exif),
            _ => rest = &after_marker[length..],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_exif_segment_before_the_pixels_is_found() {
        let segment = |marker: u8, payload: &[u8]| {
            [&[0xFF, marker, 0, u8::try_from(payload.len() + 2).unwrap()], payload].concat()
        };
        let exif = segment(APP1, b"Exif\0\0block");
        let other = segment(APP1, b"http");
        let file = |segments: &[&[u8]]| [b"\xFF\xD8", &segments.concat()[..]].concat();
        assert_eq!(find_exif(&file(&[&other, &[7, 7], &exif])), Some(&b"block"[..]));
        assert_eq!(find_exif(&file(&[&segment(SOS, &[1]), &exif])), None);
        assert_eq!(find_exif(&file(&[&other])), None);
        assert_eq!(find_exif(b""), None);
    }
}
