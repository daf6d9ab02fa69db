//! Hostile GIFs: large canvases with small frames, many frames, and large metadata.

use image::ImageFormat;

use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file,
};
use crate::test_image::{encode, test_image};

/// Writes a header with a canvas and a palette of black and white.
fn screen((width, height): (u16, u16)) -> Vec<u8> {
    let mut file = b"GIF89a".to_vec();
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    file.extend([0x80, 0, 0]);
    file.extend([0, 0, 0, 255, 255, 255]);
    file
}

/// Writes a frame whose compressed pixels are `pixels`.
fn frame((left, top): (u16, u16), (width, height): (u16, u16), pixels: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x2C];
    for number in [left, top, width, height] {
        frame.extend(number.to_le_bytes());
    }
    frame.extend([0, 2]);
    frame.extend(blocks(pixels));
    frame
}

/// Writes data as blocks of at most 255 bytes.
fn blocks(data: &[u8]) -> Vec<u8> {
    let mut blocks = Vec::new();
    for block in data.chunks(255) {
        blocks.push(u8::try_from(block.len()).unwrap());
        blocks.extend(block);
    }
    blocks.push(0);
    blocks
}

fn extension(name: &[u8; 11], data: &[u8]) -> Vec<u8> {
    [&[0x21, 0xFF, 11][..], name, &blocks(data)].concat()
}

/// Compresses `pixel_count` zeros with LZW as much as the format allows.
///
/// Each code refers to the table entry that the code itself defines.
fn compress_zeros(pixel_count: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    let (clear, end) = (4, 5);
    bits.push(clear, 3);
    let (mut next, mut size, mut drawn, mut run) = (6, 3, 1, 1);
    bits.push(0, 3);
    while drawn < pixel_count {
        if next == 4095 {
            bits.push(clear, size);
            (next, size, run) = (6, 3, 1);
            bits.push(0, 3);
            drawn += 1;
            continue;
        }
        bits.push(next, size);
        next += 1;
        run += 1;
        drawn += run;
        if next == 1 << size && size < 12 {
            size += 1;
        }
    }
    bits.push(end, size);
    bits.bytes()
}

/// Writes bits, the lowest bit first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    next: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, bits: u32) {
        self.next |= value << self.count;
        self.count += bits;
        while self.count >= 8 {
            self.bytes.push(self.next.to_le_bytes()[0]);
            self.next >>= 8;
            self.count -= 8;
        }
    }

    fn bytes(mut self) -> Vec<u8> {
        self.push(0, 7);
        self.bytes
    }
}

pub(super) fn files() -> Vec<HostileFile> {
    let usual = encode(test_image(), ImageFormat::Gif);
    let end = [0x3B];
    let full_size = (5000, 5000);
    let pixels = compress_zeros(25_000_000);
    let small = frame((0, 0), (8, 8), &compress_zeros(64));
    vec![
        hostile_file(
            "gif-25-megapixels",
            Processed,
            [&screen(full_size)[..], &frame((0, 0), full_size, &pixels), &end].concat(),
        ),
        hostile_file("gif-frame-at-an-offset-on-25-megapixels", Processed, {
            [&screen(full_size)[..], &frame((1, 1), (4999, 4999), &pixels), &end].concat()
        }),
        hostile_file(
            "gif-small-frame-on-25-megapixels",
            Processed,
            [&screen(full_size)[..], &small, &end].concat(),
        ),
        hostile_file("gif-frame-larger-than-its-canvas", RefusedByDecoder("too_much_memory"), {
            [&screen((8, 8))[..], &frame((0, 0), (16, 16), &compress_zeros(256)), &end].concat()
        }),
        hostile_file("gif-frame-of-25-megapixels-on-one-pixel", RefusedByDecoder("too_much_memory"), {
            [&screen((1, 1))[..], &frame((0, 0), full_size, &pixels), &end].concat()
        }),
        hostile_file(
            "gif-65535-squared",
            RefusedBeforeDecoding("side_too_long"),
            [&screen((65_535, 65_535))[..], &small].concat(),
        ),
        hostile_file(
            "gif-12000-squared",
            RefusedBeforeDecoding("too_many_pixels"),
            [&screen((12_000, 12_000))[..], &small].concat(),
        ),
        hostile_file(
            "gif-100000-frames",
            Processed,
            [&screen((8, 8))[..], &small.repeat(100_000), &end].concat(),
        ),
        hostile_file(
            "gif-without-a-frame",
            RefusedByDecoder("corrupt_image"),
            [&screen((64, 64))[..], &end].concat(),
        ),
        hostile_file(
            "gif-zero-width",
            RefusedBeforeDecoding("corrupt_image"),
            [&screen((0, 64))[..], &small, &end].concat(),
        ),
        hostile_file("gif-without-a-palette", RefusedByDecoder("corrupt_image"), {
            [&b"GIF89a\x08\0\x08\0\0\0\0"[..], &small, &end].concat()
        }),
        hostile_file("gif-19-mb-of-xmp", Processed, {
            let metadata = extension(b"XMP DataXMP", &vec![7; 19 << 20]);
            [&screen((8, 8))[..], &metadata, &small, &end].concat()
        }),
        hostile_file("gif-profile-of-19-mb", Processed, {
            let metadata = extension(b"ICCRGBG1012", &vec![7; 19 << 20]);
            [&screen((8, 8))[..], &metadata, &small, &end].concat()
        }),
        hostile_file("gif-million-extensions", Processed, {
            let comments = [0x21, 0xFE, 1, b'x', 0].repeat(1_000_000);
            [&screen((8, 8))[..], &comments, &small, &end].concat()
        }),
        hostile_file("gif-unterminated-extension", RefusedByDecoder("corrupt_image"), {
            [&screen((8, 8))[..], &extension(b"XMP DataXMP", &[7; 1000])[..900]].concat()
        }),
        hostile_file(
            "gif-truncated-in-its-pixels",
            RefusedByDecoder("corrupt_image"),
            usual[..usual.len() / 2].to_vec(),
        ),
        hostile_file("gif-invalid-lzw-codes", RefusedByDecoder("corrupt_image"), {
            [&screen((64, 64))[..], &frame((0, 0), (64, 64), &[0xFF; 600]), &end].concat()
        }),
    ]
}
