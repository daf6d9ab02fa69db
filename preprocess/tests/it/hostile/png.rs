//! Hostile PNGs: zlib bombs in pixels and metadata.

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

/// Number of zeros in a bomb, which is more memory than any image may use.
const BOMB_BYTES: usize = 300 << 20;

const GREY: u8 = 0;
const RGB: u8 = 2;
const PALETTE: u8 = 3;
const RGBA: u8 = 6;

/// Compresses `length` zeros with zlib.
fn compress_zeros(length: usize) -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let mut stream = ZlibEncoder::new(Vec::new(), Compression::best());
    let mut left = length;
    while left > 0 {
        let piece = left.min(PIECE);
        stream.write_all(&vec![0; piece]).unwrap();
        left -= piece;
    }
    stream.finish().unwrap()
}

fn header((width, height): (u32, u32), bits: u8, colour: u8, interlaced: bool) -> Vec<u8> {
    let mut payload = Vec::new();
    payload.extend(width.to_be_bytes());
    payload.extend(height.to_be_bytes());
    payload.extend([bits, colour, 0, 0, interlaced.into()]);
    [&b"\x89PNG\r\n\x1a\n"[..], &png_chunk(b"IHDR", &payload)].concat()
}

/// Writes a black image.
fn black(size: (u32, u32), row_bytes: usize, header: &[u8]) -> Vec<u8> {
    let pixels = compress_zeros((row_bytes + 1) * size.1 as usize);
    [header, &png_chunk(b"IDAT", &pixels), &png_chunk(b"IEND", &[])].concat()
}

fn usual_black(side: u32, bits: u8, colour: u8, row_bytes: usize) -> Vec<u8> {
    black((side, side), row_bytes, &header((side, side), bits, colour, false))
}

/// Writes the data of a profile or text chunk: a name, the compression method, and `length` compressed zeros.
fn compressed(name: &[u8], length: usize) -> Vec<u8> {
    [name, b"\0\0", &compress_zeros(length)].concat()
}

fn usual() -> Vec<u8> {
    png_with_chunk(&test_image(), b"tEXt", b"Comment\0none")
}

pub(super) fn files() -> Vec<HostileFile> {
    let usual = usual();
    let with = |name: &[u8; 4], data: &[u8]| png_with_chunk(&test_image(), name, data);
    let interlaced = header((4000, 4000), 8, RGBA, true);
    let first_pixels = usual.windows(4).position(|name| name == b"IDAT").unwrap();
    vec![
        hostile_file("png-25-megapixels", Processed, usual_black(5000, 8, RGBA, 20_000)),
        hostile_file("png-25-megapixels-at-16-bits", Processed, usual_black(5000, 16, RGBA, 40_000)),
        hostile_file("png-25-megapixels-at-1-bit", Processed, usual_black(5000, 1, GREY, 625)),
        // Interlacing adds at most seven filter bytes per row.
        hostile_file("png-interlaced", Processed, black((4000, 4000), 17_000, &interlaced)),
        hostile_file(
            "png-12000-squared",
            RefusedBeforeDecoding("too_many_pixels"),
            usual_black(12_000, 8, GREY, 12_000),
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
        hostile_file("png-profile-of-300-mb", Processed, with(b"iCCP", &compressed(b"x", BOMB_BYTES))),
        hostile_file(
            "png-profile-of-noise",
            Processed,
            with(b"iCCP", &[b"x\0\0", &noise(5000)[..]].concat()),
        ),
        hostile_file("png-text-of-300-mb", Processed, with(b"zTXt", &compressed(b"Comment", BOMB_BYTES))),
        hostile_file("png-international-text-of-300-mb", Processed, {
            with(b"iTXt", &[b"Comment\0\x01\0\0\0", &compress_zeros(BOMB_BYTES)[..]].concat())
        }),
        hostile_file("png-100000-texts", Processed, {
            let texts = png_chunk(b"tEXt", b"Comment\0none").repeat(100_000);
            [&usual[..33], &texts, &usual[33..]].concat()
        }),
        hostile_file(
            "png-exif-of-15-mb",
            RefusedByDecoder("too_much_memory"),
            with(b"eXIf", &noise(15 << 20)),
        ),
        hostile_file("png-exif-without-its-entries", Processed, with(b"eXIf", b"MM\0*\0\0\0\x08\xFF\xFF")),
        hostile_file(
            "png-missing-palette",
            RefusedByDecoder("corrupt_image"),
            usual_black(64, 8, PALETTE, 64),
        ),
        hostile_file("png-animation-of-a-billion-frames", Processed, {
            with(b"acTL", &[0x3B, 0x9A, 0xCA, 0, 0, 0, 0, 0])
        }),
        hostile_file("png-chunk-longer-than-the-file", RefusedByDecoder("corrupt_image"), {
            let mut cut = usual[..33].to_vec();
            cut.extend(b"\x7F\xFF\xFF\xFFtEXt");
            cut
        }),
        hostile_file("png-wrong-checksum", RefusedByDecoder("corrupt_image"), {
            let mut wrong = usual.clone();
            wrong[29] ^= 1;
            wrong
        }),
        hostile_file(
            "png-truncated-in-its-pixels",
            RefusedByDecoder("corrupt_image"),
            usual[..first_pixels + 200].to_vec(),
        ),
        hostile_file(
            "png-two-headers",
            RefusedByDecoder("corrupt_image"),
            [&usual[..33], &usual[8..]].concat(),
        ),
        hostile_file("png-trailing-noise", Processed, [&usual[..], &noise(10_000)].concat()),
    ]
}
