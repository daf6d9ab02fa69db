//! GIF: the size of its canvas.

use super::{Coding, Header, fields::le16};

pub(super) fn read(bytes: &[u8]) -> Option<Header> {
    Some(Header { width: le16(bytes, 6)?, height: le16(bytes, 8)?, coding: Coding::Gif })
}
