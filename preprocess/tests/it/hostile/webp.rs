//! Hostile WebPs: lossless images of any size in a few bytes, excessive numbers of prefix codes, and invalid
//! animations.

use image::{ImageFormat, RgbaImage};

use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file, length32, noise,
};
use crate::test_image::{encode, test_image};

/// Writes numbers of any number of bits into bytes, the lowest bit first.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Number of bits written so far.
    bit_count: usize,
}

impl BitWriter {
    fn push(&mut self, value: u32, bit_count: usize) -> &mut Self {
        for bit in 0..bit_count {
            if self.bit_count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if value >> bit & 1 == 1 {
                *self.bytes.last_mut().unwrap() |= 1 << (self.bit_count % 8);
            }
            self.bit_count += 1;
        }
        self
    }

    /// Starts a lossless stream with the signature, a size, no alpha and version 0.
    fn with_header((width, height): (u32, u32)) -> Self {
        let mut writer = Self::default();
        writer.push(0x2F, 8).push(width - 1, 14).push(height - 1, 14).push(0, 4);
        writer
    }

    /// Writes a prefix code with a single symbol below 256. The pixels need no bits for this symbol.
    fn push_single_symbol_code(&mut self, symbol: u32) -> &mut Self {
        self.push(0b101, 3).push(symbol, 8)
    }

    /// Writes an image of one colour: no colour cache, and five prefix codes with a single symbol.
    fn push_one_colour(&mut self, red: u32, green: u32) -> &mut Self {
        self.push(0, 1);
        for symbol in [green, red, 0, 0, 0] {
            self.push_single_symbol_code(symbol);
        }
        self
    }

    /// Writes a prefix code with the code lengths 1, 2, 3 … `longest`, `longest`.
    ///
    /// No complete code of this depth has fewer symbols.
    fn push_deep_code(&mut self, longest: u32) -> &mut Self {
        // The code lengths are themselves encoded with a prefix code. Its symbols are the code lengths 0 to
        // 15, with a code word of four bits each. The format stores the lengths of these code words in this
        // order.
        const SYMBOL_ORDER: [u32; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        self.push(0, 1).push(15, 4);
        for symbol in SYMBOL_ORDER {
            self.push(if symbol < 16 { 4 } else { 0 }, 3);
        }
        // Writes how many code lengths follow. The code lengths of the other symbols are 0.
        self.push(1, 1).push(2, 3).push(longest + 1 - 2, 6);
        for length in (1..=longest).chain([longest]) {
            // The highest bit of a code word comes first.
            self.push(length.reverse_bits() >> 28, 4);
        }
        self
    }
}

/// Writes the file header and these chunks.
fn riff_file(chunks: &[u8]) -> Vec<u8> {
    [&b"RIFF"[..], &length32(chunks.len() + 4).to_le_bytes(), b"WEBP", chunks].concat()
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let padding = vec![0; data.len() % 2];
    [name, &length32(data.len()).to_le_bytes()[..], data, &padding].concat()
}

fn lossless_chunk(writer: &BitWriter) -> Vec<u8> {
    chunk(b"VP8L", &[&writer.bytes[..], &[0; 8]].concat())
}

/// Writes a lossless image of one colour in about twenty bytes.
fn one_colour_chunk(size: (u32, u32)) -> Vec<u8> {
    let mut writer = BitWriter::with_header(size);
    // No transform, no colour cache and no entropy image.
    writer.push(0, 1).push(0, 1).push(0, 1);
    for symbol in [1, 2, 3, 4, 0] {
        writer.push_single_symbol_code(symbol);
    }
    lossless_chunk(&writer)
}

/// Writes an entropy image, and `group_count` groups of five prefix codes of the maximum depth.
///
/// The entropy image selects a group for each block of 4×4 pixels. Here, it selects the last group for all
/// blocks.
fn push_code_groups(writer: &mut BitWriter, group_count: u32) {
    // No transform, no colour cache, and an entropy image. Its red and green values are the group's number.
    writer.push(0, 1).push(0, 1).push(1, 1).push(0, 3);
    let last = group_count - 1;
    writer.push_one_colour(last >> 8, last & 255);
    for _ in 0..group_count * 5 {
        writer.push_deep_code(15);
    }
}

/// Writes a lossless image with `group_count` groups of prefix codes, but without pixels.
fn code_groups_chunk(size: (u32, u32), group_count: u32) -> Vec<u8> {
    let mut writer = BitWriter::with_header(size);
    push_code_groups(&mut writer, group_count);
    lossless_chunk(&writer)
}

// Flags of the chunk VP8X.
const ANIMATION_FLAG: u8 = 2;
const ALPHA_FLAG: u8 = 16;
const PROFILE_FLAG: u8 = 0x20;
const EXIF_FLAG: u8 = 0x08;

/// Writes a file in the extended format: a chunk with the flags and the size of the canvas, and these chunks.
fn extended_file(flags: u8, (width, height): (u32, u32), chunks: &[u8]) -> Vec<u8> {
    let mut canvas = vec![flags, 0, 0, 0];
    canvas.extend(&(width - 1).to_le_bytes()[..3]);
    canvas.extend(&(height - 1).to_le_bytes()[..3]);
    riff_file(&[&chunk(b"VP8X", &canvas)[..], chunks].concat())
}

/// Writes a frame of an animation.
fn frame_chunk((width, height): (u32, u32), chunks: &[u8]) -> Vec<u8> {
    let mut data = vec![0; 6];
    data.extend(&(width - 1).to_le_bytes()[..3]);
    data.extend(&(height - 1).to_le_bytes()[..3]);
    data.extend([0; 4]);
    data.extend(chunks);
    chunk(b"ANMF", &data)
}

/// Returns the VP8 chunk of the lossy file `quarters.webp`.
fn lossy_chunk() -> Vec<u8> {
    let file = include_bytes!("../data/quarters.webp");
    let offset = file.windows(4).position(|name| name == b"VP8 ").unwrap();
    file[offset..].to_vec()
}

/// Returns the size of the image in [`lossy_chunk`].
fn read_lossy_size() -> (u32, u32) {
    let chunk = lossy_chunk();
    let side = |offset| u32::from(u16::from_le_bytes([chunk[offset], chunk[offset + 1]]));
    (side(14), side(16))
}

pub(super) fn files() -> Vec<HostileFile> {
    let full_size = (5000, 5000);
    let valid_file = encode(test_image(), ImageFormat::WebP);
    let animation_chunk = chunk(b"ANIM", &[0; 6]);
    let lossy_size = read_lossy_size();
    let mut alpha_with_code_groups = BitWriter::default();
    // The first byte means that a lossless stream without a header follows.
    alpha_with_code_groups.push(1, 8);
    push_code_groups(&mut alpha_with_code_groups, 60_000);
    let alpha_with_code_groups = alpha_with_code_groups.bytes;
    // An alpha channel with the value 255 for all pixels.
    let mut opaque_alpha = BitWriter::default();
    opaque_alpha.push(1, 8).push(0, 1).push(0, 1).push(0, 1);
    for symbol in [255, 0, 0, 0, 0] {
        opaque_alpha.push_single_symbol_code(symbol);
    }
    opaque_alpha.push(0, 32).push(0, 32);
    let opaque_alpha = opaque_alpha.bytes;
    vec![
        hostile_file("webp-25-megapixels-in-40-bytes", Processed, riff_file(&one_colour_chunk(full_size))),
        hostile_file(
            "webp-12000-squared",
            RefusedBeforeDecoding("too_many_pixels"),
            riff_file(&one_colour_chunk((12_000, 12_000))),
        ),
        hostile_file(
            "webp-16384-squared",
            RefusedBeforeDecoding("too_many_pixels"),
            riff_file(&one_colour_chunk((16_384, 16_384))),
        ),
        hostile_file(
            "webp-25-megapixels-with-alpha-flag",
            Processed,
            extended_file(ALPHA_FLAG, full_size, &one_colour_chunk(full_size)),
        ),
        hostile_file("webp-65536-code-groups-for-one-pixel", RefusedBeforeDecoding("corrupt_image"), {
            riff_file(&code_groups_chunk((1, 1), 65_536))
        }),
        hostile_file("webp-65536-code-groups", RefusedBeforeDecoding("too_much_memory"), {
            riff_file(&code_groups_chunk((2000, 2000), 65_536))
        }),
        // This number of groups is accepted, but no pixels follow.
        hostile_file(
            "webp-5000-code-groups",
            RefusedByDecoder("corrupt_image"),
            riff_file(&code_groups_chunk((2000, 2000), 5000)),
        ),
        hostile_file("webp-60000-code-groups-in-alpha", RefusedBeforeDecoding("too_much_memory"), {
            extended_file(
                ALPHA_FLAG,
                lossy_size,
                &[chunk(b"ALPH", &alpha_with_code_groups), lossy_chunk()].concat(),
            )
        }),
        hostile_file(
            "webp-60000-code-groups-in-alpha-after-the-pixels",
            RefusedBeforeDecoding("too_much_memory"),
            extended_file(
                ALPHA_FLAG,
                lossy_size,
                &[lossy_chunk(), chunk(b"ALPH", &alpha_with_code_groups)].concat(),
            ),
        ),
        hostile_file("webp-animation-of-12-megapixels", Processed, {
            let frame = frame_chunk((3464, 3464), &one_colour_chunk((3464, 3464)));
            extended_file(ANIMATION_FLAG, (3464, 3464), &[&animation_chunk[..], &frame].concat())
        }),
        hostile_file("webp-animation-of-a-small-frame", Processed, {
            let frame = frame_chunk((8, 8), &one_colour_chunk((8, 8)));
            extended_file(ANIMATION_FLAG, (3464, 3464), &[&animation_chunk[..], &frame].concat())
        }),
        hostile_file("webp-animation-of-25-megapixels", RefusedBeforeDecoding("too_much_memory"), {
            let frame = frame_chunk(full_size, &one_colour_chunk(full_size));
            extended_file(ANIMATION_FLAG, full_size, &[&animation_chunk[..], &frame].concat())
        }),
        hostile_file("webp-lossy-animation", Processed, {
            extended_file(
                ANIMATION_FLAG,
                lossy_size,
                &[&animation_chunk[..], &frame_chunk(lossy_size, &lossy_chunk())].concat(),
            )
        }),
        hostile_file("webp-10000-frames", Processed, {
            let frames = frame_chunk((8, 8), &one_colour_chunk((8, 8))).repeat(10_000);
            extended_file(ANIMATION_FLAG, (8, 8), &[&animation_chunk[..], &frames].concat())
        }),
        hostile_file(
            "webp-animation-without-a-frame",
            RefusedBeforeDecoding("corrupt_image"),
            extended_file(ANIMATION_FLAG, (8, 8), &animation_chunk),
        ),
        hostile_file("webp-frame-larger-than-its-canvas", RefusedBeforeDecoding("corrupt_image"), {
            let frame = frame_chunk((16, 16), &one_colour_chunk((16, 16)));
            extended_file(ANIMATION_FLAG, (8, 8), &[&animation_chunk[..], &frame].concat())
        }),
        hostile_file("webp-frame-without-the-animation-flag", RefusedBeforeDecoding("corrupt_image"), {
            let frame = frame_chunk(lossy_size, &code_groups_chunk(lossy_size, 2000));
            extended_file(0, lossy_size, &[lossy_chunk(), frame].concat())
        }),
        hostile_file(
            "webp-contradictory-sizes",
            RefusedBeforeDecoding("corrupt_image"),
            extended_file(0, (8, 8), &one_colour_chunk(full_size)),
        ),
        hostile_file("webp-profile-of-19-mb", Processed, {
            let profile = chunk(b"ICCP", &vec![7; 19 << 20]);
            extended_file(PROFILE_FLAG, (8, 8), &[&profile[..], &one_colour_chunk((8, 8))].concat())
        }),
        hostile_file("webp-exif-of-19-mb", Processed, {
            let exif = chunk(b"EXIF", &[&b"MM\0*\0\0\0\x08\xFF\xFF"[..], &vec![7; 19 << 20]].concat());
            extended_file(EXIF_FLAG, (8, 8), &[&one_colour_chunk((8, 8))[..], &exif].concat())
        }),
        hostile_file("webp-million-unknown-chunks", Processed, {
            let chunks = chunk(b"WHAT", &[]).repeat(1_000_000);
            extended_file(0, (8, 8), &[&chunks[..], &one_colour_chunk((8, 8))].concat())
        }),
        hostile_file("webp-random-codes", RefusedBeforeDecoding("corrupt_image"), {
            let mut writer = BitWriter::with_header((64, 64));
            writer.bytes.extend(noise(2000));
            riff_file(&lossless_chunk(&writer))
        }),
        hostile_file("webp-truncated-in-its-codes", RefusedBeforeDecoding("corrupt_image"), {
            let codes = code_groups_chunk((2000, 2000), 5000);
            riff_file(&chunk(b"VP8L", &codes[8..codes.len() / 2]))
        }),
        hostile_file(
            "webp-truncated-in-its-pixels",
            RefusedBeforeDecoding("corrupt_image"),
            valid_file[..valid_file.len() / 2].to_vec(),
        ),
        hostile_file("webp-truncated-alpha", RefusedByDecoder("corrupt_image"), {
            let file =
                extended_file(ALPHA_FLAG, lossy_size, &[lossy_chunk(), chunk(b"ALPH", &[0; 400])].concat());
            file[..file.len() - 100].to_vec()
        }),
        hostile_file("webp-truncated-lossy-pixels", RefusedByDecoder("corrupt_image"), {
            let mut chunk = lossy_chunk();
            let middle = chunk.len() / 2;
            chunk.truncate(middle);
            // The chunk states its new length, so that only the pixels are truncated.
            let length = length32(middle - 8).to_le_bytes();
            chunk[4..8].copy_from_slice(&length);
            riff_file(&chunk)
        }),
        hostile_file("webp-trailing-noise", Processed, [&valid_file[..], &noise(10_000)].concat()),
        hostile_file("webp-lossy-with-alpha", Processed, {
            extended_file(ALPHA_FLAG, lossy_size, &[chunk(b"ALPH", &opaque_alpha), lossy_chunk()].concat())
        }),
        hostile_file("webp-lossy-animation-with-alpha", Processed, {
            let frame = frame_chunk(lossy_size, &[chunk(b"ALPH", &opaque_alpha), lossy_chunk()].concat());
            extended_file(ANIMATION_FLAG | ALPHA_FLAG, lossy_size, &[&animation_chunk[..], &frame].concat())
        }),
        hostile_file("webp-with-alpha", Processed, encode(RgbaImage::new(300, 200), ImageFormat::WebP)),
    ]
}
