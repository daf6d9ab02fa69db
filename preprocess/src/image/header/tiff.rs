//! Header of a TIFF. The first directory of the file states size, depth and colours.

use resize::Channels;

use super::{
    Coding, ImageHeader,
    endian::{read_be16, read_be32, read_le16, read_le32},
};
use crate::image::size::pixel_count;

/// Tags of directory entries.
pub(in crate::image) mod tag {
    pub(in crate::image) const WIDTH: u32 = 256;
    pub(in crate::image) const HEIGHT: u32 = 257;
    pub(in crate::image) const BITS_PER_SAMPLE: u32 = 258;
    pub(in crate::image) const COMPRESSION: u32 = 259;
    pub(in crate::image) const PHOTOMETRIC: u32 = 262;
    pub(in crate::image) const FILL_ORDER: u32 = 266;
    pub(in crate::image) const STRIP_OFFSETS: u32 = 273;
    pub(in crate::image) const SAMPLES_PER_PIXEL: u32 = 277;
    pub(in crate::image) const ROWS_PER_STRIP: u32 = 278;
    pub(in crate::image) const STRIP_BYTE_COUNTS: u32 = 279;
    pub(in crate::image) const PLANAR_CONFIGURATION: u32 = 284;
    pub(in crate::image) const COLOUR_MAP: u32 = 320;
    pub(in crate::image) const TILE_WIDTH: u32 = 322;
    pub(in crate::image) const TILE_HEIGHT: u32 = 323;
    pub(in crate::image) const TILE_OFFSETS: u32 = 324;
    pub(in crate::image) const TILE_BYTE_COUNTS: u32 = 325;
    pub(in crate::image) const EXTRA_SAMPLES: u32 = 338;
    pub(in crate::image) const SAMPLE_FORMAT: u32 = 339;
    pub(in crate::image) const JPEG_TABLES: u32 = 347;
    pub(in crate::image) const CHROMA_SUBSAMPLING: u32 = 530;
    pub(in crate::image) const XMP: u32 = 700;
    pub(in crate::image) const ICC_PROFILE: u32 = 34_675;
}

/// Value of the entry [`tag::COMPRESSION`] for a JPEG in each strip or tile.
pub(in crate::image) const JPEG_COMPRESSION: u32 = 7;

/// Value of the entry [`tag::PHOTOMETRIC`] for CMYK.
pub(in crate::image) const CMYK: u32 = 5;

/// The parts of a TIFF header that determine the cost of decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TiffHeader {
    /// Number of samples per pixel: 1 for grey and for a palette, 3 for RGB, 4 for RGBA or CMYK.
    pub samples_per_pixel: u32,
    /// Number of bits per sample.
    pub bits_per_sample: u32,
    /// Channels of a decoded pixel. A palette and YCbCr become RGB.
    pub channels: Channels,
    /// Number of bytes that the decoder allocates for the values of the directory entries.
    pub(in crate::image) entry_value_bytes: u64,
    /// Number of bytes that decoding one strip or tile needs if it is a JPEG. Otherwise 0.
    pub(in crate::image) jpeg_bytes: u64,
}

/// Number of bytes that the tiff 0.11 crate allocates for each value of an entry.
///
/// A value of any type needs 32 bytes. Its conversion to an integer needs eight more bytes.
const BYTES_PER_ENTRY_VALUE: u64 = 40;

/// Tags whose values the tiff 0.11 crate loads when it opens a file, before a memory limit can be set.
const TAGS_LOADED_ON_OPEN: [u32; 21] =
    [256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339, 347, 529, 530];

pub(super) fn read_header(bytes: &[u8]) -> Option<ImageHeader> {
    let directory = Directory::read(bytes)?;
    let (width, height) = (directory.value(tag::WIDTH)?, directory.value(tag::HEIGHT)?);
    let samples_per_pixel = directory.value(tag::SAMPLES_PER_PIXEL).unwrap_or(1);
    let loaded_value_count: u64 = directory
        .entries()
        .filter(|entry| TAGS_LOADED_ON_OPEN.contains(&entry.tag))
        .map(|entry| u64::from(entry.value_count))
        .sum();
    let tiff = TiffHeader {
        samples_per_pixel,
        bits_per_sample: directory.value(tag::BITS_PER_SAMPLE).unwrap_or(1),
        channels: match directory.value(tag::PHOTOMETRIC) {
            Some(0 | 1) => Channels::Grey,
            Some(CMYK) => Channels::Cmyk,
            _ => Channels::Rgb,
        },
        entry_value_bytes: loaded_value_count * BYTES_PER_ENTRY_VALUE,
        jpeg_bytes: jpeg_bytes(&directory, (width, height), samples_per_pixel),
    };
    Some(ImageHeader { width, height, coding: Coding::Tiff(tiff) })
}

/// Returns the number of bytes that decoding the largest JPEG in a strip or tile needs. Returns 0 for a file
/// with another compression.
///
/// Counts the decoded samples, the working rows, and the compressed bytes. A buffer that grows to the length
/// of the compressed bytes is copied to a buffer of at most twice this length.
fn jpeg_bytes(directory: &Directory<'_>, image_size: (u32, u32), samples_per_pixel: u32) -> u64 {
    /// Rows of 16-bit coefficients that the decoder works on at the same time.
    const WORKING_ROWS: u64 = 64;
    if directory.value(tag::COMPRESSION) != Some(JPEG_COMPRESSION) {
        return 0;
    }
    let (width, height) = directory.chunk_size(image_size);
    let samples = u64::from(samples_per_pixel);
    let compressed = directory.chunks().map(|(_, length)| u64::from(length)).max().unwrap_or(0);
    pixel_count(width, height)
        .saturating_mul(samples)
        .saturating_add(u64::from(width).saturating_mul(samples).saturating_mul(2 * WORKING_ROWS))
        .saturating_add(3 * compressed)
}

/// The first directory of a file. It describes the first page.
pub(in crate::image) struct Directory<'a> {
    file: &'a [u8],
    is_big_endian: bool,
    /// Offset of the first entry in the file.
    entries_offset: usize,
    entries: &'a [[u8; ENTRY_BYTES]],
}

/// Length of an entry in bytes.
const ENTRY_BYTES: usize = 12;

// Types of the values of an entry.
const BYTE: u32 = 1;
const SHORT: u32 = 3;
const LONG: u32 = 4;

/// An entry of a directory.
#[derive(Clone, Copy)]
pub(in crate::image) struct Entry {
    tag: u32,
    /// Type of the values.
    kind: u32,
    value_count: u32,
    /// Offset of the entry in the file.
    pub(in crate::image) offset: usize,
}

impl<'a> Directory<'a> {
    /// Returns `None` if the directory does not lie inside the file.
    pub(in crate::image) fn read(file: &'a [u8]) -> Option<Self> {
        /// Length in bytes of the number of entries, at the start of a directory.
        const ENTRY_COUNT_BYTES: usize = 2;
        let is_big_endian = file.starts_with(b"MM");
        let read_short = if is_big_endian { read_be16 } else { read_le16 };
        let read_long = if is_big_endian { read_be32 } else { read_le32 };
        let directory_offset = usize::try_from(read_long(file, 4)?).ok()?;
        let entry_count = usize::try_from(read_short(file, directory_offset)?).ok()?;
        let entries_offset = directory_offset.checked_add(ENTRY_COUNT_BYTES)?;
        let end = entries_offset.checked_add(ENTRY_BYTES * entry_count)?;
        let entries = file.get(entries_offset..end)?.as_chunks().0;
        Some(Self { file, is_big_endian, entries_offset, entries })
    }

    /// Returns an entry without its tag, for a single value of the type SHORT.
    pub(in crate::image) fn encode_short(&self, value: u16) -> [u8; ENTRY_BYTES - 2] {
        let (kind, [high, low]) = (3, value.to_be_bytes());
        if self.is_big_endian {
            [0, kind, 0, 0, 0, 1, high, low, 0, 0]
        } else {
            [kind, 0, 1, 0, 0, 0, low, high, 0, 0]
        }
    }

    /// Returns the offset of the field with the offset of the next directory.
    pub(in crate::image) fn next_directory_offset(&self) -> usize {
        self.entries_offset + ENTRY_BYTES * self.entries.len()
    }

    fn entries(&self) -> impl DoubleEndedIterator<Item = Entry> + '_ {
        self.entries.iter().enumerate().map(|(index, &[tag0, tag1, kind0, kind1, count @ .., _, _, _, _])| {
            Entry {
                tag: self.integer(&[tag0, tag1]),
                kind: self.integer(&[kind0, kind1]),
                value_count: self.integer(&count),
                offset: self.entries_offset + ENTRY_BYTES * index,
            }
        })
    }

    /// Converts at most four bytes to an integer.
    fn integer(&self, bytes: &[u8]) -> u32 {
        let append = |number: u32, byte: &u8| number << 8 | u32::from(*byte);
        if self.is_big_endian { bytes.iter().fold(0, append) } else { bytes.iter().rev().fold(0, append) }
    }

    /// Returns the entry with this tag. The last entry counts if there are several, as in the tiff 0.11 crate.
    pub(in crate::image) fn find(&self, tag: u32) -> Option<Entry> {
        self.entries().rev().find(|entry| entry.tag == tag && value_bytes(entry.kind).is_some())
    }

    /// Returns the bytes of the values of an entry. Returns `None` if they do not lie inside the file.
    pub(in crate::image) fn data(&self, tag: u32) -> Option<&'a [u8]> {
        let entry = self.find(tag)?;
        self.data_of(entry)
    }

    fn data_of(&self, entry: Entry) -> Option<&'a [u8]> {
        /// Offset of the values in an entry, or of their offset in the file if they need more than four bytes.
        const VALUE_OFFSET: usize = 8;
        let length = value_bytes(entry.kind)?.checked_mul(usize::try_from(entry.value_count).ok()?)?;
        let value_offset = entry.offset.checked_add(VALUE_OFFSET)?;
        let start = if length <= 4 {
            value_offset
        } else {
            usize::try_from(self.integer(self.file.get(value_offset..value_offset.checked_add(4)?)?)).ok()?
        };
        self.file.get(start..start.checked_add(length)?)
    }

    /// Returns the integers of an entry. An entry with values of another type has none.
    pub(in crate::image) fn values(&self, tag: u32) -> impl Iterator<Item = u32> + '_ {
        let entry = self.find(tag).filter(|entry| [BYTE, SHORT, LONG].contains(&entry.kind));
        let value_bytes = entry.and_then(|entry| value_bytes(entry.kind)).unwrap_or(1);
        let data = entry.and_then(|entry| self.data_of(entry)).unwrap_or_default();
        data.chunks_exact(value_bytes).map(|value| self.integer(value))
    }

    /// Returns the first integer of an entry.
    pub(in crate::image) fn value(&self, tag: u32) -> Option<u32> {
        self.values(tag).next()
    }

    /// Returns true if the file consists of tiles instead of strips.
    pub(in crate::image) fn is_tiled(&self) -> bool {
        self.find(tag::TILE_OFFSETS).is_some()
    }

    /// Returns the width and the height of a tile or of a strip. The last strip can have fewer rows.
    pub(in crate::image) fn chunk_size(&self, (width, height): (u32, u32)) -> (u32, u32) {
        if self.is_tiled() {
            let side = |tag| self.value(tag).unwrap_or_default();
            (side(tag::TILE_WIDTH), side(tag::TILE_HEIGHT))
        } else {
            (width, self.value(tag::ROWS_PER_STRIP).unwrap_or(height).min(height))
        }
    }

    /// Returns the offset and the length in bytes of each strip or tile.
    pub(in crate::image) fn chunks(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let (offsets, lengths) = if self.is_tiled() {
            (tag::TILE_OFFSETS, tag::TILE_BYTE_COUNTS)
        } else {
            (tag::STRIP_OFFSETS, tag::STRIP_BYTE_COUNTS)
        };
        self.values(offsets).zip(self.values(lengths))
    }
}

/// Reads the header of the JPEG in a strip or tile, up to the second scan.
pub(in crate::image) fn read_jpeg_header(jpeg: &[u8]) -> Option<ImageHeader> {
    super::jpeg::read_header(jpeg, 1).ok().flatten()
}

/// Returns the length in bytes of a value of this type, or `None` for an unknown type.
fn value_bytes(kind: u32) -> Option<usize> {
    match kind {
        1 | 2 | 6 | 7 => Some(1),
        3 | 8 => Some(2),
        4 | 9 | 11 | 13 => Some(4),
        5 | 10 | 12 | 16..=18 => Some(8),
        _ => None,
    }
}
