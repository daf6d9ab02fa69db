//! Header of a TIFF. The first directory of the file states size and depth.

use super::{
    Coding, ImageHeader,
    endian::{read_be16, read_be32, read_le16, read_le32},
};

/// The parts of a TIFF header that determine the cost of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TiffHeader {
    /// Number of samples per pixel: 1 for grey, 3 for RGB, 4 for RGBA or CMYK.
    pub samples_per_pixel: u32,
    /// Number of bits per sample.
    pub bits_per_sample: u32,
    /// Number of bytes that the decoder allocates for the values of the directory entries.
    pub(in crate::image) entry_value_bytes: u64,
}

/// Number of bytes that the tiff 0.11 crate allocates for each value of an entry.
///
/// A value of any type needs 32 bytes. Its conversion to an integer needs eight more bytes.
const BYTES_PER_ENTRY_VALUE: u64 = 40;

/// Tags whose values the tiff 0.11 crate loads when it opens a file, before a memory limit can be set.
const TAGS_LOADED_ON_OPEN: [u32; 21] =
    [256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347, 529, 530];

pub(super) fn read_header(bytes: &[u8]) -> Option<ImageHeader> {
    const WIDTH: u32 = 256;
    const HEIGHT: u32 = 257;
    const BITS_PER_SAMPLE: u32 = 258;
    const SAMPLES_PER_PIXEL: u32 = 277;
    /// Length in bytes of the number of entries, at the start of a directory.
    const ENTRY_COUNT_BYTES: usize = 2;
    /// Length of an entry in bytes.
    const ENTRY_BYTES: usize = 12;
    /// Type of an entry with 16-bit integers.
    const SHORT: u32 = 3;
    /// Type of an entry with 32-bit integers.
    const LONG: u32 = 4;
    /// Maximum number of 16-bit values that fit into the four-byte value field of an entry.
    ///
    /// If an entry has more values, they are stored elsewhere, and the field contains their offset.
    const MAX_SHORTS_IN_ENTRY: u32 = 2;
    let big_endian = bytes.starts_with(b"MM");
    let read_short = |offset| {
        if big_endian { read_be16(bytes, offset) } else { read_le16(bytes, offset) }
    };
    let read_long = |offset| {
        if big_endian { read_be32(bytes, offset) } else { read_le32(bytes, offset) }
    };

    let directory_offset = usize::try_from(read_long(4)?).ok()?;
    let (mut width, mut height) = (None, None);
    // The defaults of the format, for a directory without these two entries.
    let (mut samples_per_pixel, mut bits_per_sample) = (1, 1);
    let mut loaded_value_count = 0;
    for entry_index in 0..usize::try_from(read_short(directory_offset)?).ok()? {
        let entry_offset = directory_offset.checked_add(ENTRY_COUNT_BYTES + ENTRY_BYTES * entry_index)?;
        let (tag, value_count) = (read_short(entry_offset)?, read_long(entry_offset + 4)?);
        if TAGS_LOADED_ON_OPEN.contains(&tag) {
            loaded_value_count += u64::from(value_count);
        }
        // The first value of the entry. Entries without integers are skipped.
        let value = match read_short(entry_offset + 2)? {
            SHORT if value_count > MAX_SHORTS_IN_ENTRY => {
                read_short(usize::try_from(read_long(entry_offset + 8)?).ok()?).unwrap_or_default()
            }
            SHORT => read_short(entry_offset + 8)?,
            LONG => read_long(entry_offset + 8)?,
            _ => continue,
        };
        match tag {
            WIDTH => width = Some(value),
            HEIGHT => height = Some(value),
            BITS_PER_SAMPLE => bits_per_sample = value,
            SAMPLES_PER_PIXEL => samples_per_pixel = value,
            _ => {}
        }
    }
    let entry_value_bytes = loaded_value_count * BYTES_PER_ENTRY_VALUE;
    let tiff = TiffHeader { samples_per_pixel, bits_per_sample, entry_value_bytes };
    Some(ImageHeader { width: width?, height: height?, coding: Coding::Tiff(tiff) })
}
