//! Reads integers at a byte offset, in either byte order.
//!
//! Every function returns `None` when the integer does not lie inside the bytes.

fn read_array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

pub(super) fn read_be16(bytes: &[u8], offset: usize) -> Option<u32> {
    read_array(bytes, offset).map(|raw| u32::from(u16::from_be_bytes(raw)))
}

pub(super) fn read_be32(bytes: &[u8], offset: usize) -> Option<u32> {
    read_array(bytes, offset).map(u32::from_be_bytes)
}

pub(super) fn read_le16(bytes: &[u8], offset: usize) -> Option<u32> {
    read_array(bytes, offset).map(|raw| u32::from(u16::from_le_bytes(raw)))
}

pub(super) fn read_le24(bytes: &[u8], offset: usize) -> Option<u32> {
    read_array(bytes, offset).map(|[low, middle, high]| u32::from_le_bytes([low, middle, high, 0]))
}

pub(super) fn read_le32(bytes: &[u8], offset: usize) -> Option<u32> {
    read_array(bytes, offset).map(u32::from_le_bytes)
}
