//! Hostile BMPs, files that are no image, and files with a misleading format.

use image::ImageFormat;

use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file, length32, noise,
};
use crate::test_image::{encode, test_image};

// Values of the field that names the compression of a BMP.
const UNCOMPRESSED: u32 = 0;
const RLE8: u32 = 1;
const RLE4: u32 = 2;

/// Writes a BMP with these pixel bytes. With 8 bits per pixel or fewer, the palette is black and white.
fn bmp((width, height): (i32, i32), bits_per_pixel: u16, compression: u32, pixels: &[u8]) -> Vec<u8> {
    let palette = if bits_per_pixel <= 8 { vec![0, 0, 0, 0, 255, 255, 255, 0] } else { vec![] };
    let pixels_offset = 14 + 40 + palette.len();
    let mut file = b"BM".to_vec();
    file.extend(length32(pixels_offset + pixels.len()).to_le_bytes());
    file.extend([0; 4]);
    file.extend(length32(pixels_offset).to_le_bytes());
    file.extend(40u32.to_le_bytes());
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend(1u16.to_le_bytes());
    file.extend(bits_per_pixel.to_le_bytes());
    file.extend(compression.to_le_bytes());
    file.extend([0; 12]);
    file.extend(length32(palette.len() / 4).to_le_bytes());
    file.extend([0; 4]);
    file.extend(palette);
    file.extend(pixels);
    file
}

fn bitmaps() -> Vec<HostileFile> {
    /// The command that ends run-length encoded pixels.
    const END: [u8; 2] = [0, 1];
    let valid_file = encode(test_image(), ImageFormat::Bmp);
    // Each pair is a run of 255 pixels.
    let runs = [255, 1].repeat(100_000);
    vec![
        hostile_file("bmp-25-megapixels-in-2-bytes", Processed, bmp((5000, 5000), 8, RLE8, &END)),
        hostile_file(
            "bmp-25-megapixels-of-runs",
            Processed,
            bmp((5000, 5000), 8, RLE8, &[&runs[..], &END].concat()),
        ),
        hostile_file("bmp-runs-of-4-bits", Processed, bmp((500, 500), 4, RLE4, &END)),
        hostile_file("bmp-jumps-outside-the-image", RefusedByDecoder("corrupt_image"), {
            // Each command moves the position of the next pixel by 255 columns and 255 rows.
            bmp((64, 64), 8, RLE8, &[0, 2, 255, 255].repeat(1000))
        }),
        hostile_file(
            "bmp-from-top-to-bottom",
            Processed,
            bmp((64, -64), 24, UNCOMPRESSED, &[7; 64 * 64 * 3]),
        ),
        hostile_file(
            "bmp-minimum-height",
            RefusedBeforeDecoding("side_too_long"),
            bmp((8, i32::MIN), 24, UNCOMPRESSED, &[7; 64]),
        ),
        hostile_file(
            "bmp-negative-width",
            RefusedBeforeDecoding("side_too_long"),
            bmp((-8, 8), 24, UNCOMPRESSED, &[7; 192]),
        ),
        hostile_file(
            "bmp-zero-width",
            RefusedBeforeDecoding("corrupt_image"),
            bmp((0, 8), 24, UNCOMPRESSED, &[7; 192]),
        ),
        hostile_file(
            "bmp-too-many-pixels",
            RefusedBeforeDecoding("too_many_pixels"),
            bmp((12_000, 12_000), 8, RLE8, &END),
        ),
        hostile_file(
            "bmp-3-bits-per-pixel",
            RefusedByDecoder("corrupt_image"),
            bmp((8, 8), 3, UNCOMPRESSED, &[7; 64]),
        ),
        hostile_file(
            "bmp-truncated",
            RefusedByDecoder("corrupt_image"),
            valid_file[..valid_file.len() / 2].to_vec(),
        ),
        hostile_file(
            "bmp-header-only",
            RefusedByDecoder("corrupt_image"),
            bmp((5000, 5000), 24, UNCOMPRESSED, &[]),
        ),
        hostile_file("bmp-pixels-outside-the-file", RefusedByDecoder("corrupt_image"), {
            let mut outside = valid_file.clone();
            outside[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
            outside
        }),
    ]
}

pub(super) fn files() -> Vec<HostileFile> {
    let png = encode(test_image(), ImageFormat::Png);
    let script = b"#!/bin/sh\nrm -rf /\n";
    let others = vec![
        hostile_file("one-byte", RefusedBeforeDecoding("not_an_image"), vec![0xFF]),
        hostile_file("noise", RefusedBeforeDecoding("not_an_image"), noise(100_000)),
        hostile_file("zeros", RefusedBeforeDecoding("not_an_image"), vec![0; 19 << 20]),
        hostile_file(
            "text",
            RefusedBeforeDecoding("not_an_image"),
            b"<!doctype html><title>no picture</title>".to_vec(),
        ),
        hostile_file("svg", RefusedBeforeDecoding("unsupported_format"), {
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"><image href=\"file:///etc/passwd\"/></svg>".to_vec()
        }),
        hostile_file(
            "video",
            RefusedBeforeDecoding("unsupported_format"),
            b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom".to_vec(),
        ),
        hostile_file(
            "avif-header-only",
            RefusedBeforeDecoding(if cfg!(feature = "avif") {
                "corrupt_image"
            } else {
                "unsupported_format"
            }),
            b"\0\0\0\x1cftypavif\0\0\0\0avifmif1".to_vec(),
        ),
        hostile_file("zip", RefusedBeforeDecoding("not_an_image"), b"PK\x03\x04\x14\0\0\0\x08\0".to_vec()),
        hostile_file("png-that-is-also-a-zip", Processed, [&png[..], b"PK\x05\x06", &[0; 18]].concat()),
        hostile_file(
            "script-followed-by-a-png",
            RefusedBeforeDecoding("not_an_image"),
            [&script[..], &png].concat(),
        ),
        hostile_file("png-after-a-jpeg-signature", RefusedBeforeDecoding("corrupt_image"), {
            [&[0xFF, 0xD8, 0xFF][..], &png].concat()
        }),
        hostile_file("png-declared-as-jpeg", Processed, png),
    ];
    [bitmaps(), others].concat()
}
