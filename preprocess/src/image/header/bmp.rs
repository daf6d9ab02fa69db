//! Header of a Windows bitmap.

use super::{
    Coding, ImageHeader,
    endian::{read_le16, read_le32},
};

pub(super) fn read_header(bytes: &[u8]) -> Option<ImageHeader> {
    /// Length of the OS/2 header in bytes. Width and height have 16 bits each in this header.
    const OS2_HEADER_BYTES: u32 = 12;
    // The bitmap header starts at byte 14. Its first four bytes are its length.
    let (width, height) = if read_le32(bytes, 14)? == OS2_HEADER_BYTES {
        (read_le16(bytes, 18)?, read_le16(bytes, 20)?)
    } else {
        // A negative height means that the rows are stored from top to bottom.
        (read_le32(bytes, 18)?, read_le32(bytes, 22)?.cast_signed().unsigned_abs())
    };
    Some(ImageHeader { width, height, coding: Coding::Bmp })
}
