//! Hostile PNGs: zlib bombs in pixels and in metadata, invalid chunks, and truncated files.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};

use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file, noise,
};
use crate::{
    hand_made::{png_chunk, png_header_only, png_with_chunk},
    test_image::test_image,
};

/// Decompressed length of a decompression bomb, in bytes. No image may need so much memory.
const BOMB_BYTES: usize = 300 << 20;

// Values of the colour type in the header.
const GREY: u8 = 0;
const RGB: u8 = 2;
const PALETTE: u8 = 3;
const RGBA: u8 = 6;

/// Compresses `length` zeros with zlib.
fn compress_zeros(length: usize) -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let mut stream = ZlibEncoder::new(Vec::new(), Compression::best());
    let mut remaining = length;
    while remaining > 0 {
        let piece = remaining.min(PIECE);
        stream.write_all(&vec![0; piece]).unwrap();
        remaining -= piece;
    }
    stream.finish().unwrap()
}

/// Writes the signature and the header.
fn header((width, height): (u32, u32), bit_depth: u8, colour_type: u8, interlaced: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(width.to_be_bytes());
    payload.extend(height.to_be_bytes());
    payload.extend([bit_depth, colour_type, 0, 0, interlaced.into()]);
    [&b"\x89PNG\r\n\x1a\n"[..], &png_chunk(b"IHDR", &payload)].concat()
}

/// Writes a black image. Each row has one filter byte and `row_bytes` bytes of pixels.
fn black_with_header(header: &[u8], height: u32, row_bytes: usize) -> Vec<u8> {
    let pixels = compress_zeros((row_bytes + 1) * height as usize);
    [header, &png_chunk(b"IDAT", &pixels), &png_chunk(b"IEND", &[])].concat()
}

/// Writes a square black image that is not interlaced.
fn black_square(side: u32, bit_depth: u8, colour_type: u8, row_bytes: usize) -> Vec<u8> {
    black_with_header(&header((side, side), bit_depth, colour_type, false), side, row_bytes)
}

/// Writes the data of a profile or text chunk: a name, the compression method, and `length` compressed zeros.
fn named_zeros(name: &[u8], length: usize) -> Vec<u8> {
    [name, b"\0\0", &compress_zeros(length)].concat()
}

pub(super) fn files() -> Vec<HostileFile> {
    let with_chunk = |name: &[u8; 4], data: &[u8]| png_with_chunk(&test_image(), name, data);
    let valid_file = with_chunk(b"tEXt", b"Comment\0none");
    // Length of the signature and of the chunk IHDR.
    let header_end = 8 + 25;
    let interlaced = header((4000, 4000), 8, RGBA, true);
    let pixels_offset = valid_file.windows(4).position(|name| name == b"IDAT").unwrap();
    vec![
        hostile_file("png-25-megapixels", Processed, black_square(5000, 8, RGBA, 20_000)),
        hostile_file("png-25-megapixels-at-16-bits", Processed, black_square(5000, 16, RGBA, 40_000)),
        hostile_file("png-25-megapixels-at-1-bit", Processed, black_square(5000, 1, GREY, 625)),
        // An interlaced image is stored as seven smaller images, which have more rows and therefore more
        // filter bytes. So the data has 1000 bytes per row more than the pixels need.
        hostile_file("png-interlaced", Processed, black_with_header(&interlaced, 4000, 17_000)),
        hostile_file(
            "png-12000-squared",
            RefusedBeforeDecoding("too_many_pixels"),
            black_square(12_000, 8, GREY, 12_000),
        ),
        hostile_file(
            "png-side-too-long",
            RefusedBeforeDecoding("side_too_long"),
            png_header_only(u32::MAX, 1),
        ),
        hostile_file(
            "png-of-2-to-the-62-pixels",
            RefusedBeforeDecoding("side_too_long"),
            png_header_only(1 << 31, 1 << 31),
        ),
        hostile_file("png-zero-height", RefusedBeforeDecoding("corrupt_image"), png_header_only(10, 0)),
        hostile_file("png-header-only", RefusedByDecoder("corrupt_image"), png_header_only(5000, 5000)),
        hostile_file("png-300-mb-of-data-for-64-pixels", Processed, {
            let pixels = compress_zeros(BOMB_BYTES);
            [&header((8, 8), 8, RGB, false)[..], &png_chunk(b"IDAT", &pixels), &png_chunk(b"IEND", &[])]
                .concat()
        }),
        hostile_file("png-profile-of-300-mb", Processed, with_chunk(b"iCCP", &named_zeros(b"x", BOMB_BYTES))),
        hostile_file(
            "png-profile-of-noise",
            Processed,
            with_chunk(b"iCCP", &[b"x\0\0", &noise(5000)[..]].concat()),
        ),
        hostile_file(
            "png-text-of-300-mb",
            Processed,
            with_chunk(b"zTXt", &named_zeros(b"Comment", BOMB_BYTES)),
        ),
        hostile_file("png-international-text-of-300-mb", Processed, {
            with_chunk(b"iTXt", &[b"Comment\0\x01\0\0\0", &compress_zeros(BOMB_BYTES)[..]].concat())
        }),
        hostile_file("png-100000-texts", Processed, {
            let texts = png_chunk(b"tEXt", b"Comment\0none").repeat(100_000);
            [&valid_file[..header_end], &texts, &valid_file[header_end..]].concat()
        }),
        hostile_file(
            "png-exif-of-15-mb",
            RefusedByDecoder("too_much_memory"),
            with_chunk(b"eXIf", &noise(15 << 20)),
        ),
        hostile_file(
            "png-exif-without-its-entries",
            Processed,
            with_chunk(b"eXIf", b"MM\0*\0\0\0\x08\xFF\xFF"),
        ),
        hostile_file(
            "png-missing-palette",
            RefusedByDecoder("corrupt_image"),
            black_square(64, 8, PALETTE, 64),
        ),
        hostile_file("png-animation-of-a-billion-frames", Processed, {
            with_chunk(b"acTL", &[0x3B, 0x9A, 0xCA, 0, 0, 0, 0, 0])
        }),
        hostile_file("png-chunk-longer-than-the-file", RefusedByDecoder("corrupt_image"), {
            let mut file = valid_file[..header_end].to_vec();
            file.extend(b"\x7F\xFF\xFF\xFFtEXt");
            file
        }),
        hostile_file("png-wrong-checksum", RefusedByDecoder("corrupt_image"), {
            let mut file = valid_file.clone();
            // This byte is the first byte of the header's checksum.
            file[header_end - 4] ^= 1;
            file
        }),
        hostile_file(
            "png-truncated-in-its-pixels",
            RefusedByDecoder("corrupt_image"),
            valid_file[..pixels_offset + 200].to_vec(),
        ),
        hostile_file(
            "png-two-headers",
            RefusedByDecoder("corrupt_image"),
            [&valid_file[..header_end], &valid_file[8..]].concat(),
        ),
        hostile_file("png-25-megapixels-without-an-end", Processed, {
            let mut file = black_square(5000, 8, RGBA, 20_000);
            file.truncate(file.len() - 12);
            file
        }),
        hostile_file("png-300-mb-of-data-for-64-pixels-without-an-end", RefusedByDecoder("corrupt_image"), {
            [&header((8, 8), 8, RGB, false)[..], &png_chunk(b"IDAT", &compress_zeros(BOMB_BYTES))].concat()
        }),
        hostile_file("png-trailing-noise", Processed, [&valid_file[..], &noise(10_000)].concat()),
    ]
}
