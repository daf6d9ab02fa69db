//! Reads the size of a JPEG and checks that the JPEG is complete.
//!
//! The pixels are not decoded. The crate `image` is not used here for two reasons. It builds decoding tables
//! before it returns the size. It also fills the missing part of a truncated file with grey instead of
//! returning an error.

use memchr::memmem;

/// Properties of a JPEG, read from its segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JpegHeader {
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    /// True if the end marker follows the pixels.
    pub(super) is_complete: bool,
}

/// First of the markers that begin a frame header, which contains the size of the image.
const SOF0: u8 = 0xC0;
/// Last of the markers that begin a frame header.
const SOF15: u8 = 0xCF;
/// Marker of the end of the image.
const EOI: u8 = 0xD9;
/// Marker of the header that precedes the pixels.
const SOS: u8 = 0xDA;

impl JpegHeader {
    /// Reads the segments that precede the pixels. Returns `None` if these segments violate the standard.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        // Every JPEG begins with the marker SOI (start of image).
        let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
        let mut size = None;
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
                    let (width, height) = size?;
                    let is_complete = memmem::rfind(&after_marker[length..], &[0xFF, EOI]).is_some();
                    return Some(Self { width, height, is_complete });
                }
                // The markers DHT, JPG and DAC are in this range but do not begin a frame header.
                SOF0..=SOF15 if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                    // The first byte is the number of bits per sample.
                    let &[_, height_high, height_low, width_high, width_low] = segment.first_chunk()?;
                    let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                    size = Some((side(width_high, width_low), side(height_high, height_low)));
                }
                _ => {}
            }
            rest = &after_marker[length..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a JPEG of 300×200 pixels. `leading_segments` precede the frame header.
    fn build_jpeg(leading_segments: &[u8], pixel_data: &[u8]) -> Vec<u8> {
        let frame = [0xFF, 0xC2, 0, 8, 8, 0, 200, 1, 44, 1];
        let scan = [0xFF, 0xFF, SOS, 0, 3, 1];
        [&[0xFF, 0xD8], leading_segments, &frame, &scan, pixel_data].concat()
    }

    #[test]
    fn size_and_end_marker_are_found() {
        let header = |is_complete| Some(JpegHeader { width: 300, height: 200, is_complete });
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
