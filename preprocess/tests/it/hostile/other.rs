//! BMPs, and files that are not what they seem.

use image::ImageFormat;

use super::files::{
    Answer::{ByDecoder, ByHeader, Taken},
    File, file, length32, noise,
};
use crate::pictures::{encode, picture};

const UNCOMPRESSED: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;

/// A BMP with a palette of black and white where it has few bits, and its pixels as they are given.
fn bmp((width, height): (i32, i32), bits: u16, compression: u32, pixels: &[u8]) -> Vec<u8> {
    let palette = if bits <= 8 { vec![0, 0, 0, 0, 255, 255, 255, 0] } else { vec![] };
    let start = 14 + 40 + palette.len();
    let mut file = b"BM".to_vec();
    file.extend(length32(start + pixels.len()).to_le_bytes());
    file.extend([0; 4]);
    file.extend(length32(start).to_le_bytes());
    file.extend(40u32.to_le_bytes());
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend(1u16.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(compression.to_le_bytes());
    file.extend([0; 12]);
    file.extend(length32(palette.len() / 4).to_le_bytes());
    file.extend([0; 4]);
    file.extend(palette);
    file.extend(pixels);
    file
}

fn bitmaps() -> Vec<File> {
    const END: [u8; 2] = [0, 1];
    let usual = encode(picture(), ImageFormat::Bmp);
    let run = [255, 1].repeat(100_000);
    vec![
        file("bmp-25-megapixels-in-2-bytes", Taken, bmp((5000, 5000), 8, RLE8, &END)),
        file("bmp-25-megapixels-of-runs", Taken, bmp((5000, 5000), 8, RLE8, &[&run[..], &END].concat())),
        file("bmp-runs-of-4-bits", Taken, bmp((500, 500), 4, RLE4, &END)),
        file("bmp-jumps-out-of-the-picture", ByDecoder("corrupt_image"), {
            bmp((64, 64), 8, RLE8, &[0, 2, 255, 255].repeat(1000))
        }),
        file("bmp-from-top-to-bottom", Taken, bmp((64, -64), 24, UNCOMPRESSED, &[7; 64 * 64 * 3])),
        file(
            "bmp-the-lowest-height",
            ByHeader("side_too_long"),
            bmp((8, i32::MIN), 24, UNCOMPRESSED, &[7; 64]),
        ),
        file("bmp-a-negative-width", ByHeader("side_too_long"), bmp((-8, 8), 24, UNCOMPRESSED, &[7; 192])),
        file("bmp-no-width", ByHeader("corrupt_image"), bmp((0, 8), 24, UNCOMPRESSED, &[7; 192])),
        file("bmp-too-many-pixels", ByHeader("too_many_pixels"), bmp((12_000, 12_000), 8, RLE8, &END)),
        file("bmp-of-3-bits", ByDecoder("corrupt_image"), bmp((8, 8), 3, UNCOMPRESSED, &[7; 64])),
        file("bmp-cut", ByDecoder("corrupt_image"), usual[..usual.len() / 2].to_vec()),
        file("bmp-header-only", ByDecoder("corrupt_image"), bmp((5000, 5000), 24, UNCOMPRESSED, &[])),
        file("bmp-pixels-outside-the-file", ByDecoder("corrupt_image"), {
            let mut outside = usual.clone();
            outside[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
            outside
        }),
    ]
}

pub(super) fn files() -> Vec<File> {
    let png = encode(picture(), ImageFormat::Png);
    let script = b"#!/bin/sh\nrm -rf /\n";
    let others = vec![
        file("a-byte", ByHeader("not_an_image"), vec![0xFF]),
        file("noise", ByHeader("not_an_image"), noise(100_000)),
        file("zeros", ByHeader("not_an_image"), vec![0; 19 << 20]),
        file("text", ByHeader("not_an_image"), b"<!doctype html><title>no picture</title>".to_vec()),
        file("svg", ByHeader("unsupported_format"), {
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"file:///etc/passwd\"/></svg>".to_vec()
        }),
        file("heic", ByHeader("unsupported_format"), b"\0\0\0\x18ftypheic\0\0\0\0mif1heic".to_vec()),
        file("avif", ByHeader("unsupported_format"), b"\0\0\0\x1cftypavif\0\0\0\0avifmif1".to_vec()),
        file("an-archive", ByHeader("not_an_image"), b"PK\x03\x04\x14\0\0\0\x08\0".to_vec()),
        file("a-picture-that-is-an-archive-too", Taken, [&png[..], b"PK\x05\x06", &[0; 18]].concat()),
        file("a-script-that-ends-in-a-picture", ByHeader("not_an_image"), [&script[..], &png].concat()),
        file("one-format-in-the-clothes-of-another", ByHeader("corrupt_image"), {
            [&[0xFF, 0xD8, 0xFF][..], &png].concat()
        }),
        file("called-a-jpeg-and-is-a-png", Taken, png),
    ];
    [bitmaps(), others].concat()
}
