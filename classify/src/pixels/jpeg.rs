//! Reads the header of a JPEG, checks that the JPEG is complete, and decodes it with zune-jpeg, or with
//! jpeg-scaled if it is sequential and its components are in several scans.
//!
//! zune-jpeg is not used for the check, because it builds decoding tables before it returns the size, and
//! fills the missing part of a truncated file with grey instead of returning an error. zune-jpeg 0.5 decodes
//! subsampled components in several scans to wrong pixels.

use image::metadata::Orientation;
use jpeg_scaled::Scale;
use memchr::memmem;
use platform::buffer::ZeroedBuffer;
use resize::Channels;
use zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::{JpegDecoder, errors::DecodeErrors};

use super::{ImageError, Picture, Pixels, read_orientation};

/// Number of rows of coefficients that the decoder holds per component at the same time. The largest MCU
/// (minimum coded unit) has 32 rows.
const WORKING_ROWS: u64 = 64;

/// Properties of a JPEG, read from its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JpegHeader {
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    /// True if the end marker follows the pixels.
    pub(super) is_complete: bool,
    /// Number of components, such as 1 for grey and 3 for colour.
    component_count: u8,
    /// Orientation in the first EXIF segment.
    orientation: Orientation,
    /// True unless every sampling factor is 1.
    is_subsampled: bool,
    /// Maximum number of bytes of the coefficients or samples that the decoder keeps until the last scan: 0 if
    /// the only scan has all of them.
    kept_bytes: u64,
}

/// First of the markers that begin a frame header, which contains the size of the image.
const SOF0: u8 = 0xC0;
/// Marker of the frame header of a JPEG with more bits or tables than SOF0 allows, also with a single scan.
const SOF1: u8 = 0xC1;
/// Last of the markers that begin a frame header.
const SOF15: u8 = 0xCF;
/// Marker of the end of the image.
const EOI: u8 = 0xD9;
/// Marker of the header that precedes the pixels.
const SOS: u8 = 0xDA;
/// Marker of an application segment, usually with EXIF.
const APP1: u8 = 0xE1;

impl JpegHeader {
    /// Reads the segments that precede the pixels. Returns `None` if these segments violate the standard.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        // Every JPEG begins with the marker SOI (start of image).
        let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
        let (mut frame, mut exif) = (None, None);
        loop {
            // A marker is a byte after 0xFF. Any number of further 0xFF bytes may precede the marker.
            let prefix_length = rest.iter().position(|&byte| byte != 0xFF)?;
            let (&marker, after_marker) = rest[prefix_length..].split_first()?;
            let length = usize::from(u16::from_be_bytes(*after_marker.first_chunk()?));
            // The length includes its own two bytes.
            let segment = after_marker.get(2..length)?;
            // Without a prefix, or after the escape sequence 0xFF 0x00, the byte is not a marker.
            if prefix_length == 0 || marker == 0 {
                return None;
            }
            match marker {
                SOS => {
                    let (header, coefficient_count, is_sequential): (Self, u64, bool) = frame?;
                    let is_complete = memmem::rfind(&after_marker[length..], &[0xFF, EOI]).is_some();
                    let is_only_scan = is_sequential && segment.first() == Some(&header.component_count);
                    let kept_bytes = if is_only_scan { 0 } else { 2 * coefficient_count };
                    let orientation = read_orientation(exif);
                    return Some(Self { is_complete, kept_bytes, orientation, ..header });
                }
                APP1 if exif.is_none() => exif = segment.strip_prefix(b"Exif\0\0"),
                // The markers DHT, JPG and DAC are in this range but do not begin a frame header.
                SOF0..=SOF15 if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                    let (header, coefficient_count) = Self::read_frame(segment)?;
                    frame = Some((header, coefficient_count, marker <= SOF1));
                }
                _ => {}
            }
            rest = &after_marker[length..];
        }
    }

    /// Reads a frame header. Returns it with the number of coefficients of the image.
    fn read_frame(segment: &[u8]) -> Option<(Self, u64)> {
        // The first byte is the number of bits per sample.
        let (&[_, height_high, height_low, width_high, width_low, component_count], components) =
            segment.split_first_chunk()?;
        let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
        let (width, height) = (side(width_high, width_low), side(height_high, height_low));
        // Each component has three bytes. The second has the numbers of its blocks per MCU, horizontally and
        // vertically, in four bits each.
        let components = components.get(..3 * usize::from(component_count))?;
        let sampling = || components.chunks_exact(3).map(|component| (component[1] >> 4, component[1] & 15));
        let max_horizontal = sampling().map(|(horizontal, _)| horizontal).max()?.max(1);
        let max_vertical = sampling().map(|(_, vertical)| vertical).max()?.max(1);
        let mcu_count = u64::from(width.div_ceil(8 * u32::from(max_horizontal)))
            * u64::from(height.div_ceil(8 * u32::from(max_vertical)));
        let blocks_per_mcu: u64 =
            sampling().map(|(horizontal, vertical)| u64::from(horizontal) * u64::from(vertical)).sum();
        let header = Self {
            width,
            height,
            is_complete: false,
            component_count,
            orientation: Orientation::NoTransforms,
            is_subsampled: sampling().any(|factors| factors != (1, 1)),
            kept_bytes: 0,
        };
        Some((header, mcu_count * blocks_per_mcu * 64))
    }

    /// Reads the size of a JPEG whose segments violate the standard, with the decoder.
    ///
    /// The coding is not known then, so the memory is computed for the most expensive one: progressive,
    /// without subsampling.
    pub(super) fn read_with_decoder(bytes: &[u8]) -> Result<Self, DecodeErrors> {
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers()?;
        let side = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (width, height) =
            decoder.dimensions().map_or((0, 0), |(width, height)| (side(width), side(height)));
        let component_count = decoder.input_colorspace().map_or(4, |space| space.num_components());
        let component_count = u8::try_from(component_count).unwrap_or(u8::MAX);
        let coefficient_count = u64::from(component_count) * u64::from(width + 32) * u64::from(height + 32);
        let header = Self {
            width,
            height,
            is_complete: true,
            component_count,
            orientation: read_orientation(decoder.exif().map(Vec::as_slice)),
            is_subsampled: true,
            kept_bytes: 0,
        };
        Ok(Self { kept_bytes: 2 * coefficient_count, ..header })
    }

    /// Returns the maximum number of bytes that [`Self::decode`] allocates for a file of `file_bytes` bytes.
    ///
    /// Counts the pixels, the working rows, the copies of metadata segments, and the coefficients or samples
    /// that are kept until the last scan.
    pub(super) fn max_decoding_bytes(&self, file_bytes: usize) -> u64 {
        let pixel_bytes = u64::from(self.width) * u64::from(self.height) * self.channel_count();
        let working_bytes = (u64::from(self.width) + 32) * WORKING_ROWS * 2 * u64::from(self.component_count);
        pixel_bytes + working_bytes + self.kept_bytes + file_bytes as u64
    }

    fn channel_count(&self) -> u64 {
        if self.component_count == 1 { 1 } else { 3 }
    }

    /// Decodes the JPEG `bytes`, whose header is `self`.
    ///
    /// # Errors
    /// Returns [`ImageError::NotAnImage`] when the JPEG cannot be decoded.
    pub(super) fn decode(&self, bytes: &[u8]) -> Result<Picture, ImageError> {
        let side = |length| usize::try_from(length).unwrap_or(usize::MAX);
        let is_grey = self.component_count == 1;
        let options = DecoderOptions::default()
            .jpeg_set_out_colorspace(if is_grey { ColorSpace::Luma } else { ColorSpace::RGB })
            // Strict mode would refuse the bytes that cameras leave between segments.
            .set_strict_mode(false)
            .set_max_width(side(self.width))
            .set_max_height(side(self.height));
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(ImageError::corrupt)?;
        let pixel_bytes = u64::from(self.width) * u64::from(self.height) * self.channel_count();
        let length = usize::try_from(pixel_bytes).unwrap_or(usize::MAX);
        if decoder.dimensions() != Some((side(self.width), side(self.height)))
            || decoder.output_buffer_size() != Some(length)
        {
            return Err(ImageError::corrupt("the JPEG has several headers that differ"));
        }
        let mut buffer = ZeroedBuffer::new(length);
        if self.needs_jpeg_scaled(bytes) {
            self.decode_with_jpeg_scaled(bytes, &mut buffer)?;
        } else {
            decoder.decode_into(&mut buffer).map_err(ImageError::corrupt)?;
        }
        Ok(Picture {
            pixels: Pixels { buffer, length },
            channels: if is_grey { Channels::Grey } else { Channels::Rgb },
            orientation: self.orientation,
        })
    }

    /// Returns true if the JPEG is sequential and zune-jpeg may decode its scans to wrong pixels.
    fn needs_jpeg_scaled(&self, bytes: &[u8]) -> bool {
        let Some(scans) = SequentialScans::count(bytes) else { return false };
        let has_every_component_once = scans.component_count == u32::from(self.component_count);
        // jpeg-scaled does not decode CMYK. zune-jpeg decodes it correctly if nothing is subsampled.
        let is_unsampled_cmyk = self.component_count == 4 && !self.is_subsampled;
        let zune_jpeg_is_right = has_every_component_once && (scans.scan_count == 1 || is_unsampled_cmyk);
        !zune_jpeg_is_right
    }

    /// Decodes the pixels into `buffer`, which must have their length.
    fn decode_with_jpeg_scaled(&self, bytes: &[u8], buffer: &mut [u8]) -> Result<(), ImageError> {
        let mut decoder = Box::<jpeg_scaled::Decoder>::default();
        let picture = decoder.decode(bytes, Scale::Full).map_err(ImageError::corrupt)?;
        if (picture.width, picture.height) != (self.width, self.height)
            || picture.pixels.len() != buffer.len()
        {
            return Err(ImageError::corrupt("the JPEG has several headers that differ"));
        }
        buffer.copy_from_slice(picture.pixels);
        Ok(())
    }
}

/// The scans of a sequential JPEG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SequentialScans {
    /// Number of scans.
    scan_count: u32,
    /// Number of components in all scans, where a component counts once per scan.
    component_count: u32,
}

impl SequentialScans {
    /// Counts the scans of `bytes`. Returns `None` unless `bytes` are a sequential JPEG.
    ///
    /// Skips bytes that belong to no segment, as zune-jpeg does, so that no file in several scans is left to
    /// zune-jpeg.
    fn count(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut scans = None;
        while let Some(position) = memchr::memchr(0xFF, rest) {
            rest = rest.get(position + 1..)?;
            let Some((&marker, after_marker)) = rest.split_first() else { break };
            match marker {
                // Another 0xFF may precede the marker.
                0xFF => continue,
                EOI => break,
                // A stuffed byte, or a marker without a segment: TEM, a restart or the start of the image.
                0x00 | 0x01 | 0xD0..=0xD8 => {
                    rest = after_marker;
                    continue;
                }
                SOF0 | SOF1 => scans = scans.or(Some(Self::default())),
                SOS => {
                    let Self { scan_count, component_count } = scans.as_mut()?;
                    *scan_count += 1;
                    // The number of components follows the length of two bytes.
                    *component_count += after_marker.get(2).copied().map_or(0, u32::from);
                }
                _ => {}
            }
            let Some(length) = after_marker.first_chunk() else { break };
            rest = after_marker.get(usize::from(u16::from_be_bytes(*length)).max(2)..).unwrap_or_default();
        }
        scans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a grey, progressive JPEG of 300×200 pixels. `leading_segments` precede the frame header.
    fn build_jpeg(leading_segments: &[u8], pixel_data: &[u8]) -> Vec<u8> {
        let frame = [0xFF, 0xC2, 0, 11, 8, 0, 200, 1, 44, 1, 1, 0x11, 0];
        let scan = [0xFF, 0xFF, SOS, 0, 3, 1];
        [&[0xFF, 0xD8], leading_segments, &frame, &scan, pixel_data].concat()
    }

    #[test]
    fn size_and_end_marker_are_found() {
        let header = |is_complete| {
            Some(JpegHeader {
                width: 300,
                height: 200,
                is_complete,
                component_count: 1,
                orientation: Orientation::NoTransforms,
                is_subsampled: false,
                // 38 by 25 blocks of 64 coefficients cover the image. A coefficient has two bytes.
                kept_bytes: 38 * 25 * 64 * 2,
            })
        };
        assert_eq!(JpegHeader::read(&build_jpeg(&[], &[1, 2, 0xFF, EOI])), header(true));
        assert_eq!(
            JpegHeader::read(&build_jpeg(&[], &[1, 2, 0xFF, EOI, 0, 0])),
            header(true),
            "bytes after the end marker"
        );
        assert_eq!(JpegHeader::read(&build_jpeg(&[], &[1, 2])), header(false));
        // A table is not a frame header, and the end marker of a thumbnail does not end the image.
        let tables = [0xFF, 0xC4, 0, 4, 9, 9];
        let thumbnail = [0xFF, 0xE1, 0, 6, 0xFF, 0xD8, 0xFF, EOI];
        assert_eq!(
            JpegHeader::read(&build_jpeg(&[tables.as_slice(), &thumbnail].concat(), &[1])),
            header(false)
        );
    }

    #[test]
    fn coefficients_are_kept_unless_one_scan_has_all_components() {
        // An image of 17×17 pixels with 4:2:0 has four MCUs of six blocks each.
        let coefficient_bytes = 2 * 1536;
        let frame = |marker| [0xFF, marker, 0, 17, 8, 0, 17, 0, 17, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0];
        for (marker, scan_components, kept) in
            [(SOF0, 3, 0), (SOF1, 3, 0), (SOF0, 1, coefficient_bytes), (0xC2, 3, coefficient_bytes)]
        {
            let scan = [0xFF, SOS, 0, 3, scan_components, 0xFF, EOI];
            let header = JpegHeader::read(&[&[0xFF, 0xD8], &frame(marker)[..], &scan].concat()).unwrap();
            assert_eq!((header.component_count, header.kept_bytes), (3, kept), "{marker:x}");
        }
    }

    #[test]
    fn read_returns_none_if_a_segment_is_truncated_or_malformed() {
        let whole = build_jpeg(&[], &[]);
        for length in 0..whole.len() {
            assert_eq!(JpegHeader::read(&whole[..length]), None, "{length}");
        }
        assert_eq!(JpegHeader::read(&build_jpeg(&[7], &[])), None, "bytes between segments");
        assert_eq!(
            JpegHeader::read(&build_jpeg(&[0xFF, 0xE0, 0, 1], &[])),
            None,
            "a segment length of less than two bytes"
        );
        assert_eq!(JpegHeader::read(&[0xFF, 0xD8, 0xFF, SOS, 0, 2]), None, "pixels without a frame header");
    }
}
