//! Writes files that the encoder crates cannot write.

pub(crate) use exif_orientation::testing::png_chunk;
use exif_orientation::testing::{BYTE, ByteOrder, Entry, LONG, SHORT, png_with_first_chunks};
use image::{ImageFormat, RgbImage};

use crate::test_image::encode;

/// Writes an uncompressed RGB TIFF in one strip, with an orientation whose value has the type `value_type`.
pub(crate) fn tiff(image: &RgbImage, orientation: u8, byte_order: ByteOrder, value_type: u16) -> Vec<u8> {
    tiff_with_entry(image, byte_order, |_| (274, value_type, 1, orientation.into()), &[])
}

/// Writes an uncompressed RGB TIFF in one strip, with an XMP packet.
pub(crate) fn tiff_with_xmp(image: &RgbImage, byte_order: ByteOrder, packet: &[u8]) -> Vec<u8> {
    let packet_bytes = u32::try_from(packet.len()).unwrap();
    tiff_with_entry(image, byte_order, |data_offset| (700, BYTE, packet_bytes, data_offset), packet)
}

/// Writes an uncompressed RGB TIFF in one strip, with another entry, which `write_entry` makes from the offset of
/// `data`.
fn tiff_with_entry(
    image: &RgbImage,
    byte_order: ByteOrder,
    write_entry: impl Fn(u32) -> Entry,
    data: &[u8],
) -> Vec<u8> {
    let pixels = image.as_raw();
    let pixels_end = 8 + u32::try_from(pixels.len()).unwrap();
    let data_offset = pixels_end + 6;
    let directory_offset = data_offset + u32::try_from(data.len()).unwrap();
    // The tags are ImageWidth, ImageLength, BitsPerSample, Compression, PhotometricInterpretation, StripOffsets,
    // SamplesPerPixel, RowsPerStrip and StripByteCounts.
    let mut entries = vec![
        (256, LONG, 1, image.width()),
        (257, LONG, 1, image.height()),
        (258, SHORT, 3, pixels_end),
        (259, SHORT, 1, 1),
        (262, SHORT, 1, 2),
        (273, LONG, 1, 8),
        (277, SHORT, 1, 3),
        (278, LONG, 1, image.height()),
        (279, LONG, 1, pixels_end - 8),
        write_entry(data_offset),
    ];
    entries.sort_unstable();
    let directory = byte_order.tiff_directory(&entries);
    let bits_per_sample = byte_order.short(8).repeat(3);
    [&byte_order.tiff_header(directory_offset)[..], pixels, &bits_per_sample, data, &directory].concat()
}

/// Writes a PNG whose pixels are indices into a palette. `bit_depth` is the number of bits per pixel, `rows`
/// contains the packed pixels of each row, and `palette` contains RGBA colours.
pub(crate) fn palette_png(width: u32, bit_depth: u8, rows: &[Vec<u8>], palette: &[[u8; 4]]) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(u32::try_from(rows.len()).unwrap().to_be_bytes());
    // Bit depth, colour type (palette), compression, filter and interlacing.
    header.extend([bit_depth, 3, 0, 0, 0]);
    let colours: Vec<u8> = palette.iter().flat_map(|&[red, green, blue, _]| [red, green, blue]).collect();
    let alphas: Vec<u8> = palette.iter().map(|&[_, _, _, alpha]| alpha).collect();
    let scanlines: Vec<u8> = rows.iter().flat_map(|row| [&[0], row.as_slice()].concat()).collect();

    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(png_chunk(b"IHDR", &header));
    file.extend(png_chunk(b"PLTE", &colours));
    file.extend(png_chunk(b"tRNS", &alphas));
    file.extend(png_chunk(b"IDAT", &zlib_stored(&scanlines)));
    file.extend(png_chunk(b"IEND", &[]));
    file
}

/// Writes the signature and the header of a PNG, without pixels.
pub(crate) fn png_header_only(width: u32, height: u32) -> Vec<u8> {
    let mut header = Vec::new();
    header.extend(width.to_be_bytes());
    header.extend(height.to_be_bytes());
    // Bit depth, colour type (RGB), compression, filter and interlacing.
    header.extend([8, 2, 0, 0, 0]);
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    file.extend(png_chunk(b"IHDR", &header));
    file
}

/// Encodes `image` as a PNG, and inserts a chunk right after the header.
pub(crate) fn png_with_chunk(image: &RgbImage, name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    png_with_first_chunks(&encode(image.clone(), ImageFormat::Png), &png_chunk(name, data))
}

/// Writes a zlib stream of one uncompressed block.
fn zlib_stored(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    // The zlib header, and the byte that starts a last and uncompressed block.
    let mut stream = vec![0x78, 0x01, 0x01];
    stream.extend(length.to_le_bytes());
    stream.extend((!length).to_le_bytes());
    stream.extend(data);
    // The checksum Adler-32.
    let (low, high) = data.iter().fold((1u32, 0u32), |(low, high), &byte| {
        let low = (low + u32::from(byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    stream.extend((high << 16 | low).to_be_bytes());
    stream
}
