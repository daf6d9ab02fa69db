//! Writes metadata for tests.
#![expect(clippy::expect_used, reason = "a failed expectation fails the test that uses this module")]

use std::io::Write;

use flate2::{Compression, Crc, write::ZlibEncoder};

/// Types of the values of an entry.
pub const BYTE: u16 = 1;
/// See [`BYTE`].
pub const SHORT: u16 = 3;
/// See [`BYTE`].
pub const LONG: u16 = 4;

/// Tag of the orientation.
pub const ORIENTATION: u16 = 0x112;

/// Byte order of a TIFF structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// The least significant byte comes first.
    LittleEndian,
    /// The most significant byte comes first.
    BigEndian,
}

/// A directory entry: a tag, a type, a number of values, and the value or the offset of the values.
pub type Entry = (u16, u16, u32, u32);

impl ByteOrder {
    /// Both byte orders.
    pub const ALL: [Self; 2] = [Self::LittleEndian, Self::BigEndian];

    /// Encodes a number of 16 bits.
    #[must_use]
    pub fn short(self, value: u16) -> [u8; 2] {
        match self {
            Self::LittleEndian => value.to_le_bytes(),
            Self::BigEndian => value.to_be_bytes(),
        }
    }

    /// Encodes a number of 32 bits.
    #[must_use]
    pub fn long(self, value: u32) -> [u8; 4] {
        match self {
            Self::LittleEndian => value.to_le_bytes(),
            Self::BigEndian => value.to_be_bytes(),
        }
    }

    /// Writes the byte order, the number 42 and the offset of the directory.
    #[must_use]
    pub fn tiff_header(self, directory_offset: u32) -> Vec<u8> {
        let byte_order = if self == Self::LittleEndian { b"II" } else { b"MM" };
        [&byte_order[..], &self.short(42), &self.long(directory_offset)].concat()
    }

    /// Writes a directory. The value of a type of 8 or 16 bits is cut to this length.
    #[must_use]
    pub fn tiff_directory(self, entries: &[Entry]) -> Vec<u8> {
        const SIGNED_SHORT: u16 = 8;
        let entry_count = u16::try_from(entries.len()).unwrap_or(u16::MAX);
        let mut directory = self.short(entry_count).to_vec();
        for &(tag, value_type, value_count, value) in entries {
            directory.extend([self.short(tag), self.short(value_type)].as_flattened());
            directory.extend(self.long(value_count));
            let [.., third, last] = value.to_be_bytes();
            match (value_type, value_count) {
                (BYTE, 1) => directory.extend([last, 0, 0, 0]),
                (SHORT | SIGNED_SHORT, 1) => {
                    directory.extend(self.short(u16::from_be_bytes([third, last])));
                    directory.extend([0; 2]);
                }
                _ => directory.extend(self.long(value)),
            }
        }
        // There is no further directory.
        directory.extend([0; 4]);
        directory
    }
}

/// Writes EXIF data with a single entry, the orientation, whose value has the type `value_type`.
#[must_use]
pub fn exif(orientation: u8, byte_order: ByteOrder, value_type: u16) -> Vec<u8> {
    const DIRECTORY_OFFSET: u32 = 8;
    let directory = byte_order.tiff_directory(&[(ORIENTATION, value_type, 1, orientation.into())]);
    [byte_order.tiff_header(DIRECTORY_OFFSET), directory].concat()
}

/// Writes XMP packets that state an orientation, as an attribute and as an element.
#[must_use]
pub fn xmp_packets(orientation: u8) -> [Vec<u8>; 2] {
    let attribute = format!("<rdf:Description tiff:Orientation=\"{orientation}\"/>");
    let element =
        format!("<rdf:Description><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>");
    [attribute, element].map(|content| {
        format!("<x:xmpmeta xmlns:x=\"adobe:ns:meta/\"><rdf:RDF>{content}</rdf:RDF></x:xmpmeta>").into_bytes()
    })
}

/// Inserts a segment with EXIF data at the start of a JPEG.
///
/// # Panics
/// Panics if the data are too long for a segment.
#[must_use]
pub fn jpeg_with_exif(jpeg: &[u8], exif: &[u8]) -> Vec<u8> {
    jpeg_with_segment(jpeg, b"Exif\0\0", exif)
}

/// Inserts a segment with XMP at the start of a JPEG.
///
/// # Panics
/// Panics if the packet is too long for a segment.
#[must_use]
pub fn jpeg_with_xmp(jpeg: &[u8], packet: &[u8]) -> Vec<u8> {
    jpeg_with_segment(jpeg, b"http://ns.adobe.com/xap/1.0/\0", packet)
}

fn jpeg_with_segment(jpeg: &[u8], prefix: &[u8], data: &[u8]) -> Vec<u8> {
    // The length includes its own two bytes.
    let length =
        u16::try_from(2 + prefix.len() + data.len()).expect("the data fit in a segment").to_be_bytes();
    // The marker SOI has two bytes.
    [&jpeg[..2], &[0xFF, 0xE1], &length, prefix, data, &jpeg[2..]].concat()
}

/// Writes a chunk of a PNG: the length of the data, the name, the data and their checksum.
///
/// # Panics
/// Panics if the data are too long for a chunk.
#[must_use]
pub fn png_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).expect("the data fit in a chunk").to_be_bytes();
    let mut checksum = Crc::new();
    checksum.update(name);
    checksum.update(data);
    [&length, &name[..], data, &checksum.sum().to_be_bytes()].concat()
}

/// Writes a text chunk of a PNG with XMP.
#[must_use]
pub fn png_xmp_chunk(packet: &[u8], is_compressed: bool) -> Vec<u8> {
    let text = if is_compressed { compress(packet) } else { packet.to_vec() };
    png_chunk(
        b"iTXt",
        &[b"XML:com.adobe.xmp\0", &[is_compressed.into(), 0][..], b"en\0keyword\0", &text].concat(),
    )
}

fn compress(data: &[u8]) -> Vec<u8> {
    let mut stream = ZlibEncoder::new(Vec::new(), Compression::best());
    stream.write_all(data).expect("a vector takes all data");
    stream.finish().expect("a vector takes all data")
}

/// Inserts chunks right after the header of a PNG.
#[must_use]
pub fn png_with_first_chunks(png: &[u8], chunks: &[u8]) -> Vec<u8> {
    /// Length of the signature and of the chunk IHDR.
    const HEADER_END: usize = 8 + 25;
    [&png[..HEADER_END], chunks, &png[HEADER_END..]].concat()
}

/// Inserts chunks in front of the last chunk of a PNG, and so behind its pixels.
#[must_use]
pub fn png_with_last_chunks(png: &[u8], chunks: &[u8]) -> Vec<u8> {
    /// Length of the chunk IEND.
    const END_BYTES: usize = 12;
    let (start, end) = png.split_at(png.len() - END_BYTES);
    [start, chunks, end].concat()
}
