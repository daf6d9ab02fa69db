//! Windows bitmap: the size.

use super::{
    Coding, Header,
    fields::{le16, le32},
};

pub(super) fn read(bytes: &[u8]) -> Option<Header> {
    const OS2_HEADER_BYTES: u32 = 12;
    let (width, height) = if le32(bytes, 14)? == OS2_HEADER_BYTES {
        (le16(bytes, 18)?, le16(bytes, 20)?)
    } else {
        // A negative height means that the rows go from top to bottom.
        (le32(bytes, 18)?, le32(bytes, 22)?.cast_signed().unsigned_abs())
    };
    Some(Header { width, height, coding: Coding::Bmp })
}
