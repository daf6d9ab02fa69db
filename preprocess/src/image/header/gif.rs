//! Header of a GIF: the size of its canvas and the length of the metadata before the first frame.

use super::{Coding, ImageHeader, endian::read_le16};

/// The part of a GIF header that determines the cost of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GifHeader {
    /// Length in bytes of the extensions before the first frame. Most extensions are metadata, which decoders
    /// keep in memory.
    pub(in crate::image) metadata_bytes: u64,
}

pub(super) fn read_header(bytes: &[u8]) -> Option<ImageHeader> {
    let (width, height) = (read_le16(bytes, 6)?, read_le16(bytes, 8)?);
    let metadata_bytes = extension_bytes(bytes)? as u64;
    Some(ImageHeader { width, height, coding: Coding::Gif(GifHeader { metadata_bytes }) })
}

/// Returns the length of the extensions before the first frame, or before the end of a file without frames.
fn extension_bytes(bytes: &[u8]) -> Option<usize> {
    /// Length in bytes of the signature and the screen descriptor together.
    const SIGNATURE_AND_SCREEN_BYTES: usize = 13;
    const HAS_COLOUR_TABLE: u8 = 0x80;
    const COLOUR_TABLE_SIZE_MASK: u8 = 7;
    const EXTENSION: u8 = 0x21;
    let flags = *bytes.get(10)?;
    let colour_count =
        if flags & HAS_COLOUR_TABLE == 0 { 0 } else { 2usize << (flags & COLOUR_TABLE_SIZE_MASK) };
    let start = SIGNATURE_AND_SCREEN_BYTES + 3 * colour_count;
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
    Some(offset.min(bytes.len()).saturating_sub(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_bytes_counts_the_extensions_before_the_first_frame() {
        let start = [&b"GIF89a\x01\0\x01\0\x80\0\0"[..], &[0; 6]].concat();
        let extension = b"\x21\xFF\x02ab\x01c\0";
        let bytes_in = |rest: &[&[u8]]| extension_bytes(&[&start, &rest.concat()[..]].concat()).unwrap();
        assert_eq!(bytes_in(&[b"\x2C", extension]), 0);
        assert_eq!(bytes_in(&[extension, extension, b"\x2C"]), 2 * extension.len());
        assert_eq!(bytes_in(&[extension, b"\x21\xFF\xFFcut"]), extension.len() + 6);
        assert_eq!(bytes_in(&[]), 0);
    }
}
