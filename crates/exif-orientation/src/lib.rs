//! Reads the orientation from EXIF data and XMP.
//!
//! Both services use this reader for every format, so that they turn a picture in the same way.

/// Prefix of EXIF data in a JPEG. Some programs also write this prefix into other formats, or twice.
const PREFIX: &[u8] = b"Exif\0\0";

/// Length in bytes of a directory entry.
const ENTRY_BYTES: usize = 12;

/// Tag of the orientation.
const ORIENTATION: u16 = 0x112;

/// Types of an entry. The EXIF standard demands a SHORT for the orientation, but TIFF 6.0 tells readers to
/// accept any unsigned integer, and some programs write the others.
const BYTE: u16 = 1;
const SHORT: u16 = 3;
const LONG: u16 = 4;

#[derive(Clone, Copy)]
enum ByteOrder {
    LittleEndian,
    BigEndian,
}

impl ByteOrder {
    fn read_u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::LittleEndian => u16::from_le_bytes(bytes),
            Self::BigEndian => u16::from_be_bytes(bytes),
        }
    }

    fn read_u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::LittleEndian => u32::from_le_bytes(bytes),
            Self::BigEndian => u32::from_be_bytes(bytes),
        }
    }
}

/// OrientationSources of a picture that can state its orientation.
#[derive(Clone, Copy, Debug, Default)]
pub struct OrientationSources<'a> {
    /// EXIF data, with or without the prefix `Exif\0\0`, or a whole TIFF file.
    pub exif: Option<&'a [u8]>,
    /// An XMP packet.
    pub xmp: Option<&'a [u8]>,
}

impl OrientationSources<'_> {
    /// Returns the orientation, which is a number from 1 to 8.
    ///
    /// XMP counts only if the EXIF data have no orientation, not even an invalid one. Of the EXIF data, only the first
    /// directory is read. Returns `None` if there is no valid orientation, or if the data end before it.
    #[must_use]
    pub fn orientation(&self) -> Option<u8> {
        match self.exif.and_then(find_orientation_entries) {
            Some((byte_order, mut entries)) => {
                entries.find_map(|entry| orientation_in_entry(entry, byte_order))
            }
            None => self.xmp.and_then(xmp::read_orientation),
        }
    }
}

/// Returns the entries with the tag of the orientation in the first directory. Returns `None` if there are none.
fn find_orientation_entries(
    mut block: &[u8],
) -> Option<(ByteOrder, impl Iterator<Item = &[u8; ENTRY_BYTES]>)> {
    while let Some(rest) = block.strip_prefix(PREFIX) {
        block = rest;
    }
    let (signature, rest) = block.split_first_chunk::<4>()?;
    let byte_order = match signature {
        b"II*\0" => ByteOrder::LittleEndian,
        b"MM\0*" => ByteOrder::BigEndian,
        _ => return None,
    };
    let directory_offset = byte_order.read_u32(*rest.first_chunk()?);
    let directory = block.get(usize::try_from(directory_offset).ok()?..)?;
    let (entry_count, entries) = directory.split_first_chunk()?;
    let entry_count = usize::from(byte_order.read_u16(*entry_count));
    let (entries, _) = entries.as_chunks();
    let is_orientation =
        move |&&[tag0, tag1, ..]: &&[u8; ENTRY_BYTES]| byte_order.read_u16([tag0, tag1]) == ORIENTATION;
    let mut entries = entries.iter().take(entry_count).filter(is_orientation).peekable();
    entries.peek()?;
    Some((byte_order, entries))
}

/// Returns the value of an entry for the orientation if it is valid.
fn orientation_in_entry(entry: &[u8; ENTRY_BYTES], byte_order: ByteOrder) -> Option<u8> {
    // An entry consists of a tag, a type, a number of values and four bytes that begin with the value.
    let [_, _, type0, type1, count0, count1, count2, count3, value0, value1, value2, value3] = *entry;
    if byte_order.read_u32([count0, count1, count2, count3]) != 1 {
        return None;
    }
    let value = match byte_order.read_u16([type0, type1]) {
        BYTE => value0.into(),
        SHORT => byte_order.read_u16([value0, value1]).into(),
        LONG => byte_order.read_u32([value0, value1, value2, value3]),
        _ => return None,
    };
    u8::try_from(value).ok().filter(|orientation| (1..=8).contains(orientation))
}

mod jpeg;
mod png;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod xmp;

pub use self::{jpeg::read_jpeg_orientation, png::read_png_orientation};
