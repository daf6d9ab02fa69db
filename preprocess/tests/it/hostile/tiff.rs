//! Hostile TIFFs: invalid offsets, many strips and tiles, and decompression bombs.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};
use image::ImageFormat;
use jpeg_encoder::{ColorType, Encoder};

use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file, length32,
};
use crate::{
    test_image::{encode, test_image},
    tiff_file::{
        BITS_PER_SAMPLE, COMPRESSION, HEIGHT, ICC_PROFILE, PHOTOMETRIC, ROWS_PER_STRIP, SAMPLES_PER_PIXEL,
        STRIP_BYTE_COUNTS, STRIP_OFFSETS, TILE_BYTE_COUNTS, TILE_HEIGHT, TILE_OFFSETS, TILE_WIDTH, WIDTH,
    },
};

// Types of the values of an entry.
const SHORT: u16 = 3;
const LONG: u16 = 4;
const UNDEFINED: u16 = 7;

// Values of the entry `COMPRESSION`.
const JPEG: u32 = 7;
const DEFLATE: u32 = 8;
const LZW: u32 = 5;
const PACK_BITS: u32 = 32_773;

/// A directory entry: tag, type, number of values, and the value or the offset of the values.
type Entry = (u16, u16, u32, u32);

/// Writes a file: the header of 8 bytes, the data, and a directory with these entries.
fn tiff(data: &[u8], entries: &[Entry]) -> Vec<u8> {
    // The directory must have an even offset.
    let directory_offset = 8 + data.len() + data.len() % 2;
    let mut file = b"II*\0".to_vec();
    file.extend(length32(directory_offset).to_le_bytes());
    file.extend(data);
    file.resize(directory_offset, 0);
    file.extend(u16::try_from(entries.len()).unwrap().to_le_bytes());
    for &(tag, kind, count, value) in entries {
        file.extend(tag.to_le_bytes());
        file.extend(kind.to_le_bytes());
        file.extend(count.to_le_bytes());
        file.extend(value.to_le_bytes());
    }
    file.extend([0; 4]);
    file
}

/// Writes a grey image of 8 bits per pixel whose only strip contains `data`.
fn grey_image(size: (u32, u32), compression: u32, data: &[u8]) -> Vec<u8> {
    tiff(data, &grey_entries(size, compression, 8, length32(data.len())))
}

/// Returns the entries of a grey image with one strip of `length` bytes at offset `strip_offset`.
fn grey_entries((width, height): (u32, u32), compression: u32, strip_offset: u32, length: u32) -> [Entry; 8] {
    [
        (WIDTH, LONG, 1, width),
        (HEIGHT, LONG, 1, height),
        (BITS_PER_SAMPLE, SHORT, 1, 8),
        (COMPRESSION, SHORT, 1, compression),
        (PHOTOMETRIC, SHORT, 1, 1),
        (STRIP_OFFSETS, LONG, 1, strip_offset),
        (ROWS_PER_STRIP, LONG, 1, height),
        (STRIP_BYTE_COUNTS, LONG, 1, length),
    ]
}

/// Writes a square black image in one deflated strip.
fn black_image(side: u32, samples_per_pixel: u32, bits_per_sample: u32, photometric: u32) -> Vec<u8> {
    let pixels = compress_zeros((side * side * samples_per_pixel * bits_per_sample / 8) as usize);
    let depths_offset = 8 + length32(pixels.len());
    let mut data = pixels.clone();
    for _ in 0..samples_per_pixel {
        data.extend(u16::try_from(bits_per_sample).unwrap().to_le_bytes());
    }
    // An entry has room for two values of the type SHORT. If there are more values, the entry contains the
    // offset of the values.
    let depth_entry = if samples_per_pixel > 2 {
        (BITS_PER_SAMPLE, SHORT, samples_per_pixel, depths_offset)
    } else {
        (BITS_PER_SAMPLE, SHORT, 1, bits_per_sample)
    };
    tiff(
        &data,
        &[
            (WIDTH, LONG, 1, side),
            (HEIGHT, LONG, 1, side),
            depth_entry,
            (COMPRESSION, SHORT, 1, DEFLATE),
            (PHOTOMETRIC, SHORT, 1, photometric),
            (STRIP_OFFSETS, LONG, 1, 8),
            (SAMPLES_PER_PIXEL, SHORT, 1, samples_per_pixel),
            (ROWS_PER_STRIP, LONG, 1, side),
            (STRIP_BYTE_COUNTS, LONG, 1, length32(pixels.len())),
        ],
    )
}

/// Compresses `length` zeros with zlib.
fn compress_zeros(length: usize) -> Vec<u8> {
    let mut stream = ZlibEncoder::new(Vec::new(), Compression::best());
    stream.write_all(&vec![0; length]).unwrap();
    stream.finish().unwrap()
}

/// Writes a black image in square tiles. All tiles refer to the same bytes.
fn tiled_image((width, height): (u32, u32), tile_side: u32) -> Vec<u8> {
    let tile = compress_zeros((tile_side * tile_side) as usize);
    let tile_count = width.div_ceil(tile_side) * height.div_ceil(tile_side);
    let offsets = 8u32.to_le_bytes().repeat(tile_count as usize);
    let lengths = length32(tile.len()).to_le_bytes().repeat(tile_count as usize);
    let (offsets_offset, lengths_offset) =
        (8 + length32(tile.len()), 8 + length32(tile.len() + offsets.len()));
    // An entry with a single value contains the value itself.
    let value_or_offset = |offset, value| if tile_count == 1 { value } else { offset };
    tiff(
        &[tile.clone(), offsets, lengths].concat(),
        &[
            (WIDTH, LONG, 1, width),
            (HEIGHT, LONG, 1, height),
            (BITS_PER_SAMPLE, SHORT, 1, 8),
            (COMPRESSION, SHORT, 1, DEFLATE),
            (PHOTOMETRIC, SHORT, 1, 1),
            (TILE_WIDTH, LONG, 1, tile_side),
            (TILE_HEIGHT, LONG, 1, tile_side),
            (TILE_OFFSETS, LONG, tile_count, value_or_offset(offsets_offset, 8)),
            (TILE_BYTE_COUNTS, LONG, tile_count, value_or_offset(lengths_offset, length32(tile.len()))),
        ],
    )
}

/// Writes an image of one column with one strip per row. All strips refer to the same byte.
fn strips_of_one_pixel(height: u32) -> Vec<u8> {
    let offsets = 8u32.to_le_bytes().repeat(height as usize);
    let lengths = 1u32.to_le_bytes().repeat(height as usize);
    let lengths_offset = 12 + length32(offsets.len());
    tiff(
        &[vec![7, 0, 0, 0], offsets, lengths].concat(),
        &[
            (WIDTH, LONG, 1, 1),
            (HEIGHT, LONG, 1, height),
            (BITS_PER_SAMPLE, SHORT, 1, 8),
            (COMPRESSION, SHORT, 1, 1),
            (PHOTOMETRIC, SHORT, 1, 1),
            (STRIP_OFFSETS, LONG, height, 12),
            (ROWS_PER_STRIP, LONG, 1, 1),
            (STRIP_BYTE_COUNTS, LONG, height, lengths_offset),
        ],
    )
}

/// Writes a small image with an additional entry. The entry can refer to `extra_bytes` bytes, which begin at
/// offset 72, after the header and the pixels.
fn with_entry(entry: Entry, extra_bytes: usize) -> Vec<u8> {
    let data = vec![7; 64 + extra_bytes];
    let mut entries = grey_entries((8, 8), 1, 8, 64).to_vec();
    entries.push(entry);
    entries.sort();
    tiff(&data, &entries)
}

/// Writes a small image in which `entry` replaces the entry with the same tag. The entry can refer to
/// `extra_bytes` bytes, which begin at offset 72, after the header and the pixels.
fn with_replaced_entry(entry: Entry, extra_bytes: usize) -> Vec<u8> {
    let mut entries = grey_entries((8, 8), 1, 8, 64);
    *entries.iter_mut().find(|&&mut (tag, ..)| tag == entry.0).unwrap() = entry;
    tiff(&vec![7; 64 + extra_bytes], &entries)
}

/// Writes an image whose only strip or tile contains this JPEG.
fn jpeg_image(size: (u32, u32), tile_side: Option<u32>, jpeg: &[u8]) -> Vec<u8> {
    let depths_offset = 8 + length32(jpeg.len());
    let mut entries = vec![
        (WIDTH, LONG, 1, size.0),
        (HEIGHT, LONG, 1, size.1),
        (BITS_PER_SAMPLE, SHORT, 3, depths_offset),
        (COMPRESSION, SHORT, 1, JPEG),
        (PHOTOMETRIC, SHORT, 1, 6),
        (SAMPLES_PER_PIXEL, SHORT, 1, 3),
    ];
    match tile_side {
        None => {
            entries.extend([(STRIP_OFFSETS, LONG, 1, 8), (STRIP_BYTE_COUNTS, LONG, 1, length32(jpeg.len()))])
        }
        Some(side) => entries.extend([
            (TILE_WIDTH, LONG, 1, side),
            (TILE_HEIGHT, LONG, 1, side),
            (TILE_OFFSETS, LONG, 1, 8),
            (TILE_BYTE_COUNTS, LONG, 1, length32(jpeg.len())),
        ]),
    }
    entries.sort();
    tiff(&[jpeg, &[8, 0, 8, 0, 8, 0]].concat(), &entries)
}

/// Encodes a JPEG of one colour and changes the size in its frame header to `stated_size`.
fn jpeg_stating((width, height): (u16, u16), stated_size: (u16, u16)) -> Vec<u8> {
    let mut jpeg = Vec::new();
    let pixels = vec![90; usize::from(width) * usize::from(height) * 3];
    Encoder::new(&mut jpeg, 80).encode(&pixels, width, height, ColorType::Rgb).unwrap();
    let frame_header = jpeg.windows(2).position(|marker| marker == [0xFF, 0xC0]).unwrap();
    jpeg[frame_header + 5..frame_header + 7].copy_from_slice(&stated_size.1.to_be_bytes());
    jpeg[frame_header + 7..frame_header + 9].copy_from_slice(&stated_size.0.to_be_bytes());
    jpeg
}

/// Writes an image in strips that all refer to the same JPEG of `size`. Strips below row 16,000 are outside the image.
fn image_of_one_jpeg(size: (u16, u16), strip_count: u32) -> Vec<u8> {
    /// The default limit on the height is slightly larger.
    const MAX_HEIGHT: u32 = 16_000;
    let jpeg = jpeg_stating(size, size);
    let offsets = 8u32.to_le_bytes().repeat(strip_count as usize);
    let lengths = length32(jpeg.len()).to_le_bytes().repeat(strip_count as usize);
    let offsets_offset = 8 + length32(jpeg.len());
    let lengths_offset = offsets_offset + length32(offsets.len());
    let depths_offset = lengths_offset + length32(lengths.len());
    tiff(
        &[&jpeg[..], &offsets, &lengths, &[8, 0, 8, 0, 8, 0]].concat(),
        &[
            (WIDTH, LONG, 1, size.0.into()),
            (HEIGHT, LONG, 1, (u32::from(size.1) * strip_count).min(MAX_HEIGHT)),
            (BITS_PER_SAMPLE, SHORT, 3, depths_offset),
            (COMPRESSION, SHORT, 1, JPEG),
            (PHOTOMETRIC, SHORT, 1, 6),
            (STRIP_OFFSETS, LONG, strip_count, offsets_offset),
            (SAMPLES_PER_PIXEL, SHORT, 1, 3),
            (ROWS_PER_STRIP, LONG, 1, size.1.into()),
            (STRIP_BYTE_COUNTS, LONG, strip_count, lengths_offset),
        ],
    )
}

pub(super) fn files() -> Vec<HostileFile> {
    let valid_file = encode(test_image(), ImageFormat::Tiff);
    // The last four bytes are the offset of the next directory. They are replaced with the offset of the
    // directory itself.
    let mut directory_loop = grey_image((8, 8), 1, &[7; 64]);
    let directory_offset = 8 + 64;
    let next_offset = directory_loop.len() - 4;
    directory_loop[next_offset..].copy_from_slice(&u32::to_le_bytes(directory_offset));
    vec![
        hostile_file(
            "tiff-25-megapixels-deflated",
            Processed,
            grey_image((5000, 5000), DEFLATE, &compress_zeros(25_000_000)),
        ),
        hostile_file("tiff-25-megapixels-in-tiles", Processed, tiled_image((5000, 5000), 256)),
        hostile_file("tiff-tile-of-16-megapixels-for-one-pixel", Processed, tiled_image((1, 1), 4096)),
        hostile_file("tiff-tile-of-a-gigapixel-for-one-pixel", Processed, {
            // Finds the two entries with the width and the height of a tile, and changes their values.
            let mut file = tiled_image((1, 1), 16);
            let tags = [TILE_WIDTH, TILE_HEIGHT].map(u16::to_le_bytes);
            for entry in 0..file.len() - 12 {
                if tags.iter().any(|tag| file[entry..].starts_with(tag))
                    && file[entry + 2..entry + 4] == [4, 0]
                {
                    file[entry + 8..entry + 12].copy_from_slice(&32_768u32.to_le_bytes());
                }
            }
            file
        }),
        hostile_file("tiff-rgb-at-16-bits", Processed, black_image(3000, 3, 16, 2)),
        hostile_file("tiff-cmyk", Processed, black_image(3000, 4, 8, 5)),
        hostile_file("tiff-grey-at-16-bits", Processed, black_image(4000, 1, 16, 1)),
        hostile_file("tiff-1-bit", Processed, black_image(4000, 1, 1, 1)),
        hostile_file("tiff-grey-with-alpha-at-16-bits", Processed, black_image(4000, 2, 16, 1)),
        hostile_file("tiff-rgb-at-32-bits", Processed, black_image(2500, 3, 32, 2)),
        hostile_file("tiff-100-samples-per-pixel", Processed, black_image(1000, 100, 8, 1)),
        hostile_file(
            "tiff-palette-without-colours",
            RefusedByDecoder("unsupported_format"),
            black_image(64, 1, 8, 3),
        ),
        hostile_file("tiff-jpeg-of-9-megapixels-in-a-strip", Processed, {
            jpeg_image((3000, 3000), None, &jpeg_stating((3000, 3000), (3000, 3000)))
        }),
        hostile_file("tiff-jpeg-of-9-megapixels-in-a-tile-for-one-pixel", Processed, {
            jpeg_image((1, 1), Some(3008), &jpeg_stating((3008, 3008), (3008, 3008)))
        }),
        hostile_file("tiff-jpeg-of-268-megapixels-in-a-small-strip", RefusedByDecoder("corrupt_image"), {
            jpeg_image((64, 64), None, &jpeg_stating((64, 64), (16_384, 16_384)))
        }),
        hostile_file("tiff-jpeg-in-a-tile-of-a-gigapixel", RefusedBeforeDecoding("too_much_memory"), {
            jpeg_image((64, 64), Some(32_768), &jpeg_stating((64, 64), (64, 64)))
        }),
        hostile_file("tiff-one-jpeg-in-1000-strips", RefusedByDecoder("corrupt_image"), {
            image_of_one_jpeg((64, 8), 1000)
        }),
        hostile_file("tiff-one-jpeg-in-20000-strips", RefusedByDecoder("unsupported_format"), {
            image_of_one_jpeg((8, 1), 20_000)
        }),
        hostile_file("tiff-65535-samples-per-pixel", RefusedBeforeDecoding("too_much_memory"), {
            let mut entries = grey_entries((5000, 5000), DEFLATE, 8, 64).to_vec();
            entries.push((SAMPLES_PER_PIXEL, SHORT, 1, 65_535));
            entries.sort();
            tiff(&[7; 64], &entries)
        }),
        hostile_file("tiff-16384-strips", Processed, strips_of_one_pixel(16_384)),
        hostile_file("tiff-4-million-offsets-for-one-strip", RefusedByDecoder("corrupt_image"), {
            with_replaced_entry((STRIP_OFFSETS, LONG, 4 << 20, 8), 16 << 20)
        }),
        hostile_file("tiff-million-values-for-the-rows-per-strip", RefusedByDecoder("corrupt_image"), {
            with_replaced_entry((ROWS_PER_STRIP, LONG, 1 << 20, 8), 4 << 20)
        }),
        hostile_file(
            "tiff-profile-of-19-mb",
            Processed,
            with_entry((ICC_PROFILE, UNDEFINED, 19 << 20, 72), 19 << 20),
        ),
        hostile_file(
            "tiff-profile-longer-than-the-file",
            Processed,
            with_entry((ICC_PROFILE, UNDEFINED, u32::MAX, 72), 0),
        ),
        hostile_file(
            "tiff-profile-of-5-million-integers",
            Processed,
            with_entry((ICC_PROFILE, LONG, 5 << 20, 72), 20_000_000 - 100),
        ),
        hostile_file(
            "tiff-invalid-lzw-codes",
            RefusedByDecoder("corrupt_image"),
            grey_image((64, 64), LZW, &[0xFF; 100]),
        ),
        hostile_file(
            "tiff-packbits-data-too-short",
            RefusedByDecoder("corrupt_image"),
            grey_image((64, 64), PACK_BITS, &[0x81, 7]),
        ),
        hostile_file(
            "tiff-deflated-noise",
            RefusedByDecoder("corrupt_image"),
            grey_image((64, 64), DEFLATE, &[0xAB; 100]),
        ),
        hostile_file(
            "tiff-unknown-compression",
            RefusedByDecoder("unsupported_format"),
            grey_image((64, 64), 34_712, &[7; 100]),
        ),
        hostile_file("tiff-strip-outside-the-file", RefusedByDecoder("corrupt_image"), {
            tiff(&[7; 64], &grey_entries((8, 8), 1, 1 << 30, 64))
        }),
        hostile_file(
            "tiff-strip-of-4-gb",
            RefusedByDecoder("corrupt_image"),
            tiff(&[7; 64], &grey_entries((8, 8), DEFLATE, 8, u32::MAX)),
        ),
        hostile_file(
            "tiff-directory-outside-the-file",
            RefusedBeforeDecoding("corrupt_image"),
            b"II*\0\xF0\xFF\xFF\xFF".to_vec(),
        ),
        hostile_file("tiff-directory-loop", Processed, directory_loop),
        hostile_file("tiff-directory-of-65535-entries", RefusedBeforeDecoding("corrupt_image"), {
            [&b"MM\0*\0\0\0\x08\xFF\xFF"[..], &[0; 12].repeat(100)].concat()
        }),
        hostile_file(
            "tiff-zero-height",
            RefusedBeforeDecoding("corrupt_image"),
            grey_image((8, 0), 1, &[7; 64]),
        ),
        hostile_file(
            "tiff-too-many-pixels",
            RefusedBeforeDecoding("too_many_pixels"),
            grey_image((12_000, 12_000), DEFLATE, &[0]),
        ),
        hostile_file(
            "tiff-strip-shorter-than-its-pixels",
            RefusedByDecoder("corrupt_image"),
            grey_image((64, 64), 1, &[7; 2000]),
        ),
        hostile_file(
            "tiff-first-half-of-a-file",
            RefusedBeforeDecoding("corrupt_image"),
            valid_file[..valid_file.len() / 2].to_vec(),
        ),
    ]
}
