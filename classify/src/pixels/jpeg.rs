//! What can be told of a JPEG without decoding it.
//!
//! By hand, because `image` builds the tables for the pixels on its way to the size, and fills with grey
//! what is missing of a file that was cut off.

use memchr::memmem;

/// What a JPEG's segments say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    /// Width in pixels.
    pub(super) width: u32,
    /// Height in pixels.
    pub(super) height: u32,
    /// The end marker follows the pixels.
    pub(super) whole: bool,
}

const SOF0: u8 = 0xC0;
const SOF15: u8 = 0xCF;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

impl Outline {
    /// Reads the segments up to the pixels; `None` where they are not as the standard has them.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
        let mut size = None;
        loop {
            // Any number of fill bytes may stand before a marker.
            let fill = rest.iter().position(|&byte| byte != 0xFF)?;
            let (&marker, after) = rest[fill..].split_first()?;
            let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
            let segment = after.get(2..length)?;
            if fill == 0 || marker == 0 {
                return None;
            }
            match marker {
                SOS => {
                    let (width, height) = size?;
                    let whole = memmem::rfind(&after[length..], &[0xFF, EOI]).is_some();
                    return Some(Self { width, height, whole });
                }
                // DHT, JPG and DAC share the range of frame headers.
                SOF0..=SOF15 if !matches!(marker, 0xC4 | 0xC8 | 0xCC) => {
                    let &[_, height_high, height_low, width_high, width_low] = segment.first_chunk()?;
                    let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                    size = Some((side(width_high, width_low), side(height_high, height_low)));
                }
                _ => {}
            }
            rest = &after[length..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments with a frame header for 300×200 after one of `before`.
    fn jpeg(before: &[u8], pixels: &[u8]) -> Vec<u8> {
        let frame = [0xFF, 0xC2, 0, 8, 8, 0, 200, 1, 44, 1];
        let scan = [0xFF, 0xFF, SOS, 0, 3, 1];
        [&[0xFF, 0xD8], before, &frame, &scan, pixels].concat()
    }

    #[test]
    fn the_size_and_the_end_are_found() {
        let outline = |whole| Some(Outline { width: 300, height: 200, whole });
        assert_eq!(Outline::read(&jpeg(&[], &[1, 2, 0xFF, EOI])), outline(true));
        assert_eq!(Outline::read(&jpeg(&[], &[1, 2, 0xFF, EOI, 0, 0])), outline(true), "bytes after it");
        assert_eq!(Outline::read(&jpeg(&[], &[1, 2])), outline(false));
        // Tables are no frame header, and the end of a thumbnail is not that of the picture.
        let tables = [0xFF, 0xC4, 0, 4, 9, 9];
        let thumbnail = [0xFF, 0xE1, 0, 6, 0xFF, 0xD8, 0xFF, EOI];
        assert_eq!(Outline::read(&jpeg(&[tables.as_slice(), &thumbnail].concat(), &[1])), outline(false));
    }

    #[test]
    fn what_is_cut_off_before_the_pixels_or_bent_has_none() {
        let whole = jpeg(&[], &[]);
        for length in 0..whole.len() {
            assert_eq!(Outline::read(&whole[..length]), None, "{length}");
        }
        assert_eq!(Outline::read(&jpeg(&[7], &[])), None, "bytes between segments");
        assert_eq!(Outline::read(&jpeg(&[0xFF, 0xE0, 0, 1], &[])), None, "a segment without a length");
        assert_eq!(Outline::read(&[0xFF, 0xD8, 0xFF, SOS, 0, 2]), None, "pixels without a frame");
    }
}
