//! Header of a Windows bitmap.

use super::{
    Coding, ImageHeader,
    endian::{read_le16, read_le32},
};
use crate::image::size::to_usize;

/// Offset of the bitmap header. Its first four bytes are its length.
const HEADER_OFFSET: usize = 14;

/// Length of the OS/2 header in bytes. Width and height have 16 bits each in this header.
const OS2_HEADER_BYTES: u32 = 12;

/// Offset of the number that states where the pixels begin.
pub(in crate::image) const PIXELS_OFFSET_OFFSET: usize = 10;

pub(super) fn read_header(bytes: &[u8]) -> Option<ImageHeader> {
    let (width, height) = if read_le32(bytes, HEADER_OFFSET)? == OS2_HEADER_BYTES {
        (read_le16(bytes, 18)?, read_le16(bytes, 20)?)
    } else {
        // A negative height means that the rows are stored from top to bottom.
        (read_le32(bytes, 18)?, read_le32(bytes, 22)?.cast_signed().unsigned_abs())
    };
    Some(ImageHeader { width, height, coding: Coding::Bmp })
}

/// Returns the offset of the pixels.
///
/// Some programs do not count the palette, or leave the offset empty. The pixels then follow the palette.
pub(in crate::image) fn pixels_offset(bytes: &[u8]) -> Option<u32> {
    let stated_offset = read_le32(bytes, PIXELS_OFFSET_OFFSET)?;
    let header_bytes = read_le32(bytes, HEADER_OFFSET)?;
    let is_os2 = header_bytes == OS2_HEADER_BYTES;
    let bits_per_pixel = read_bits_per_pixel(bytes)?;
    let palette_offset = u32::try_from(HEADER_OFFSET).ok()?.checked_add(header_bytes)?;
    if !(1..=8).contains(&bits_per_pixel) || stated_offset > palette_offset {
        return Some(stated_offset);
    }
    let stated_colour_count = if is_os2 { 0 } else { read_le32(bytes, 46)? };
    let colour_count = if stated_colour_count == 0 { 1 << bits_per_pixel } else { stated_colour_count };
    palette_offset.checked_add(colour_count.checked_mul(if is_os2 { 3 } else { 4 })?)
}

/// Returns the number of bytes with which a row of uncompressed pixels is filled up to a multiple of four bytes.
///
/// Some programs leave them out after the last row.
pub(in crate::image) fn row_padding(bytes: &[u8], width: u32) -> usize {
    const UNCOMPRESSED: u32 = 0;
    let is_os2 = read_le32(bytes, HEADER_OFFSET) == Some(OS2_HEADER_BYTES);
    let Some(bits_per_pixel) = read_bits_per_pixel(bytes) else { return 0 };
    if !is_os2 && read_le32(bytes, 30) != Some(UNCOMPRESSED) {
        return 0;
    }
    let row_bytes = (u64::from(width) * u64::from(bits_per_pixel)).div_ceil(8);
    to_usize(row_bytes.next_multiple_of(4) - row_bytes)
}

fn read_bits_per_pixel(bytes: &[u8]) -> Option<u32> {
    let is_os2 = read_le32(bytes, HEADER_OFFSET)? == OS2_HEADER_BYTES;
    read_le16(bytes, if is_os2 { 24 } else { 28 })
}
