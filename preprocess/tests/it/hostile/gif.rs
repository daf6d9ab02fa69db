//! Hostile GIFs: large canvases with small frames, many frames, and large metadata.

use image::ImageFormat;

use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file,
};
use crate::test_image::{encode, test_image};

/// Writes a file header with the size of the canvas, and a palette of black and white.
fn header_and_palette((width, height): (u16, u16)) -> Vec<u8> {
    let mut file = b"GIF89a".to_vec();
    file.extend(width.to_le_bytes());
    file.extend(height.to_le_bytes());
    // The flags, which declare a palette of two colours, the background colour and the aspect ratio.
    file.extend([0x80, 0, 0]);
    file.extend([0, 0, 0, 255, 255, 255]);
    file
}

/// Writes a frame with an offset on the canvas, a size and compressed pixels.
fn frame((left, top): (u16, u16), (width, height): (u16, u16), pixels: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x2C];
    for number in [left, top, width, height] {
        frame.extend(number.to_le_bytes());
    }
    // The flags, and the number of bits of a pixel before compression.
    frame.extend([0, 2]);
    frame.extend(sub_blocks(pixels));
    frame
}

/// Splits data into sub-blocks of at most 255 bytes, and adds the empty sub-block that ends them.
fn sub_blocks(data: &[u8]) -> Vec<u8> {
    let mut blocks = Vec::new();
    for block in data.chunks(255) {
        blocks.push(u8::try_from(block.len()).unwrap());
        blocks.extend(block);
    }
    blocks.push(0);
    blocks
}

/// Writes an application extension, which contains metadata.
fn application_extension(name: &[u8; 11], data: &[u8]) -> Vec<u8> {
    [&[0x21, 0xFF, 11][..], name, &sub_blocks(data)].concat()
}

/// Compresses `pixel_count` zeros with LZW into as few bytes as the format allows.
///
/// Each code stands for the table entry that the decoder creates when it reads this code. So every run of
/// zeros is one pixel longer than the previous run.
fn compress_zeros(pixel_count: u32) -> Vec<u8> {
    let mut writer = BitWriter::default();
    // Pixels have two bits. Therefore, the codes 0 to 3 are pixels, code 4 clears the table, code 5 ends the
    // data, and the table entries begin with code 6.
    let (clear, end) = (4, 5);
    writer.push(clear, 3);
    let (mut next_code, mut code_bits, mut written_pixels, mut run_length) = (6, 3, 1, 1);
    writer.push(0, 3);
    while written_pixels < pixel_count {
        // The table is full.
        if next_code == 4095 {
            writer.push(clear, code_bits);
            (next_code, code_bits, run_length) = (6, 3, 1);
            writer.push(0, 3);
            written_pixels += 1;
            continue;
        }
        writer.push(next_code, code_bits);
        next_code += 1;
        run_length += 1;
        written_pixels += run_length;
        if next_code == 1 << code_bits && code_bits < 12 {
            code_bits += 1;
        }
    }
    writer.push(end, code_bits);
    writer.into_bytes()
}

/// Writes numbers of any number of bits into bytes, the lowest bit first.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// The last bits, which do not fill a byte yet.
    pending: u32,
    pending_bit_count: u32,
}

impl BitWriter {
    fn push(&mut self, value: u32, bit_count: u32) {
        self.pending |= value << self.pending_bit_count;
        self.pending_bit_count += bit_count;
        while self.pending_bit_count >= 8 {
            self.bytes.push(self.pending.to_le_bytes()[0]);
            self.pending >>= 8;
            self.pending_bit_count -= 8;
        }
    }

    /// Fills the last byte with zeros and returns the bytes.
    fn into_bytes(mut self) -> Vec<u8> {
        self.push(0, 7);
        self.bytes
    }
}

pub(super) fn files() -> Vec<HostileFile> {
    let valid_file = encode(test_image(), ImageFormat::Gif);
    let trailer = [0x3B];
    let full_size = (5000, 5000);
    let pixels = compress_zeros(25_000_000);
    let small_frame = frame((0, 0), (8, 8), &compress_zeros(64));
    vec![
        hostile_file(
            "gif-25-megapixels",
            Processed,
            [&header_and_palette(full_size)[..], &frame((0, 0), full_size, &pixels), &trailer].concat(),
        ),
        hostile_file("gif-frame-at-an-offset-on-25-megapixels", Processed, {
            [&header_and_palette(full_size)[..], &frame((1, 1), (4999, 4999), &pixels), &trailer].concat()
        }),
        hostile_file(
            "gif-small-frame-on-25-megapixels",
            Processed,
            [&header_and_palette(full_size)[..], &small_frame, &trailer].concat(),
        ),
        hostile_file("gif-frame-larger-than-its-canvas", Processed, {
            [&header_and_palette((8, 8))[..], &frame((0, 0), (16, 16), &compress_zeros(256)), &trailer]
                .concat()
        }),
        hostile_file("gif-frame-of-25-megapixels-on-one-pixel", Processed, {
            [&header_and_palette((1, 1))[..], &frame((0, 0), full_size, &pixels), &trailer].concat()
        }),
        hostile_file(
            "gif-65535-squared",
            RefusedBeforeDecoding("side_too_long"),
            [&header_and_palette((65_535, 65_535))[..], &small_frame].concat(),
        ),
        hostile_file(
            "gif-12000-squared",
            RefusedBeforeDecoding("too_many_pixels"),
            [&header_and_palette((12_000, 12_000))[..], &small_frame].concat(),
        ),
        hostile_file(
            "gif-100000-frames",
            Processed,
            [&header_and_palette((8, 8))[..], &small_frame.repeat(100_000), &trailer].concat(),
        ),
        hostile_file(
            "gif-without-a-frame",
            RefusedByDecoder("corrupt_image"),
            [&header_and_palette((64, 64))[..], &trailer].concat(),
        ),
        hostile_file(
            "gif-zero-width",
            Processed,
            [&header_and_palette((0, 64))[..], &small_frame, &trailer].concat(),
        ),
        hostile_file(
            "gif-frame-of-65535-squared-on-one-pixel",
            RefusedBeforeDecoding("side_too_long"),
            [&header_and_palette((1, 1))[..], &frame((65_535, 65_535), (65_535, 65_535), &pixels), &trailer]
                .concat(),
        ),
        hostile_file(
            "gif-frame-of-144-megapixels-on-one-pixel",
            RefusedBeforeDecoding("too_many_pixels"),
            [&header_and_palette((1, 1))[..], &frame((0, 0), (12_000, 12_000), &pixels), &trailer].concat(),
        ),
        hostile_file(
            "gif-zero-width-without-a-frame",
            RefusedBeforeDecoding("corrupt_image"),
            [&header_and_palette((0, 64))[..], &trailer].concat(),
        ),
        hostile_file("gif-without-a-palette", RefusedByDecoder("corrupt_image"), {
            [&b"GIF89a\x08\0\x08\0\0\0\0"[..], &small_frame, &trailer].concat()
        }),
        hostile_file("gif-19-mb-of-xmp", Processed, {
            let metadata = application_extension(b"XMP DataXMP", &vec![7; 19 << 20]);
            [&header_and_palette((8, 8))[..], &metadata, &small_frame, &trailer].concat()
        }),
        hostile_file("gif-profile-of-19-mb", Processed, {
            let metadata = application_extension(b"ICCRGBG1012", &vec![7; 19 << 20]);
            [&header_and_palette((8, 8))[..], &metadata, &small_frame, &trailer].concat()
        }),
        hostile_file("gif-million-extensions", Processed, {
            let comments = [0x21, 0xFE, 1, b'x', 0].repeat(1_000_000);
            [&header_and_palette((8, 8))[..], &comments, &small_frame, &trailer].concat()
        }),
        hostile_file("gif-unterminated-extension", RefusedByDecoder("corrupt_image"), {
            [&header_and_palette((8, 8))[..], &application_extension(b"XMP DataXMP", &[7; 1000])[..900]]
                .concat()
        }),
        hostile_file(
            "gif-truncated-in-its-pixels",
            RefusedByDecoder("corrupt_image"),
            valid_file[..valid_file.len() / 2].to_vec(),
        ),
        hostile_file("gif-invalid-lzw-codes", RefusedByDecoder("corrupt_image"), {
            [&header_and_palette((64, 64))[..], &frame((0, 0), (64, 64), &[0xFF; 600]), &trailer].concat()
        }),
    ]
}
