//! GIF: the size of its canvas, and what comes before its first frame.

use super::{Coding, Header, fields::le16};

/// How the pixels of a GIF are coded, and what is beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gif {
    /// Bytes before the first frame, most of them metadata that decoders keep.
    pub(in crate::image) metadata_bytes: u64,
}

pub(super) fn read(bytes: &[u8]) -> Option<Header> {
    let (width, height) = (le16(bytes, 6)?, le16(bytes, 8)?);
    let metadata_bytes = metadata_bytes(bytes)? as u64;
    Some(Header { width, height, coding: Coding::Gif(Gif { metadata_bytes }) })
}

/// Up to the first frame, or to the end of the file where there is none.
fn metadata_bytes(bytes: &[u8]) -> Option<usize> {
    const SCREEN_BYTES: usize = 13;
    const TABLE: u8 = 0x80;
    const TABLE_SIZE: u8 = 7;
    const EXTENSION: u8 = 0x21;
    let flags = *bytes.get(10)?;
    let colours = if flags & TABLE == 0 { 0 } else { 2usize << (flags & TABLE_SIZE) };
    let first = SCREEN_BYTES + 3 * colours;
    let mut at = first;
    while bytes.get(at) == Some(&EXTENSION) {
        // Its label, then blocks, of which the last is empty.
        at += 2;
        while let Some(&length) = bytes.get(at) {
            at += 1 + usize::from(length);
            if length == 0 {
                break;
            }
        }
    }
    Some(at.min(bytes.len()).saturating_sub(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_what_comes_before_the_first_frame() {
        let start = [&b"GIF89a\x01\0\x01\0\x80\0\0"[..], &[0; 6]].concat();
        let extension = b"\x21\xFF\x02ab\x01c\0";
        let bytes_of = |rest: &[&[u8]]| metadata_bytes(&[&start, &rest.concat()[..]].concat()).unwrap();
        assert_eq!(bytes_of(&[b"\x2C", extension]), 0);
        assert_eq!(bytes_of(&[extension, extension, b"\x2C"]), 2 * extension.len());
        assert_eq!(bytes_of(&[extension, b"\x21\xFF\xFFcut"]), extension.len() + 6);
        assert_eq!(bytes_of(&[]), 0);
    }
}
