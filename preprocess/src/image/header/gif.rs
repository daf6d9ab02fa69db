//! Header of a GIF: the size of its screen and the length of the metadata before the first frame.

use super::{Coding, ImageHeader, endian::read_le16};

/// The part of a GIF header that determines the cost of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GifHeader {
    /// Length in bytes of the extensions before the first frame. Most extensions are metadata, which decoders
    /// keep in memory.
    pub(in crate::image) metadata_bytes: u64,
}

/// Offset of the width and the height of the screen.
pub(in crate::image) const SCREEN_SIZE_OFFSET: usize = 6;

/// Length in bytes of the signature and the screen descriptor together.
const SIGNATURE_AND_SCREEN_BYTES: usize = 13;

/// Reads the header. A screen that is smaller than the first frame is enlarged, as browsers do.
pub(super) fn read_header(bytes: &[u8]) -> Option<ImageHeader> {
    let (width, height) = (read_le16(bytes, SCREEN_SIZE_OFFSET)?, read_le16(bytes, SCREEN_SIZE_OFFSET + 2)?);
    let extensions_offset = extensions_offset(bytes)?;
    let metadata_bytes = extension_bytes(bytes, extensions_offset);
    let (right, bottom) = frame_end(bytes, extensions_offset + metadata_bytes).unwrap_or_default();
    let gif = GifHeader { metadata_bytes: metadata_bytes as u64 };
    Some(ImageHeader { width: width.max(right), height: height.max(bottom), coding: Coding::Gif(gif) })
}

/// Encodes the size of an image as the size of its screen.
pub(in crate::image) fn encode_screen_size(header: &ImageHeader) -> [u8; 4] {
    // A longer side exceeds the limits on uploads, and the decoder would report another size than the header.
    let [width, height] =
        [header.width, header.height].map(|side| u16::try_from(side).unwrap_or(u16::MAX).to_le_bytes());
    [width[0], width[1], height[0], height[1]]
}

/// Returns the column and the row behind the frame whose descriptor is at `offset`.
fn frame_end(bytes: &[u8], offset: usize) -> Option<(u32, u32)> {
    const IMAGE_DESCRIPTOR: u8 = 0x2C;
    if *bytes.get(offset)? != IMAGE_DESCRIPTOR {
        return None;
    }
    let number = |index: usize| read_le16(bytes, offset + 1 + 2 * index);
    // The numbers are the left and the top edge, the width and the height.
    Some((number(0)? + number(2)?, number(1)? + number(3)?))
}

/// Returns the offset of the first block after the screen descriptor and its colours.
fn extensions_offset(bytes: &[u8]) -> Option<usize> {
    const HAS_COLOUR_TABLE: u8 = 0x80;
    const COLOUR_TABLE_SIZE_MASK: u8 = 7;
    let flags = *bytes.get(10)?;
    let colour_count =
        if flags & HAS_COLOUR_TABLE == 0 { 0 } else { 2usize << (flags & COLOUR_TABLE_SIZE_MASK) };
    Some(SIGNATURE_AND_SCREEN_BYTES + 3 * colour_count)
}

/// Returns the length of the extensions before the first frame, or before the end of a file without frames.
fn extension_bytes(bytes: &[u8], start: usize) -> usize {
    const EXTENSION: u8 = 0x21;
    let mut offset = start;
    while bytes.get(offset) == Some(&EXTENSION) {
        // Skips the introducer and the label. Blocks of data follow, and an empty block ends the extension.
        offset += 2;
        while let Some(&block_length) = bytes.get(offset) {
            offset += 1 + usize::from(block_length);
            if block_length == 0 {
                break;
            }
        }
    }
    offset.min(bytes.len()).saturating_sub(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_bytes_counts_the_extensions_before_the_first_frame() {
        let start = [&b"GIF89a\x01\0\x01\0\x80\0\0"[..], &[0; 6]].concat();
        let extension = b"\x21\xFF\x02ab\x01c\0";
        let bytes_in = |rest: &[&[u8]]| {
            let file = [&start, &rest.concat()[..]].concat();
            extension_bytes(&file, extensions_offset(&file).unwrap())
        };
        assert_eq!(bytes_in(&[b"\x2C", extension]), 0);
        assert_eq!(bytes_in(&[extension, extension, b"\x2C"]), 2 * extension.len());
        assert_eq!(bytes_in(&[extension, b"\x21\xFF\xFFcut"]), extension.len() + 6);
        assert_eq!(bytes_in(&[]), 0);
    }
}
