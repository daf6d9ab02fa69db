//! Hostile WebPs: lossless images of any size in a few bytes, and excessive numbers of prefix codes.

use image::{ImageFormat, RgbaImage};

use super::files::{
    Expected::{Processed, RefusedBeforeDecoding, RefusedByDecoder},
    HostileFile, hostile_file, length32, noise,
};
use crate::test_image::{encode, test_image};

/// Writes bits, the lowest bit first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    count: usize,
}

impl Bits {
    fn push(&mut self, value: u32, bits: usize) -> &mut Self {
        for bit in 0..bits {
            if self.count.is_multiple_of(8) {
                self.bytes.push(0);
            }
            if value >> bit & 1 == 1 {
                *self.bytes.last_mut().unwrap() |= 1 << (self.count % 8);
            }
            self.count += 1;
        }
        self
    }

    /// Starts a stream with a signature, a size, no alpha and version 0.
    fn header((width, height): (u32, u32)) -> Self {
        let mut bits = Self::default();
        bits.push(0x2F, 8).push(width - 1, 14).push(height - 1, 14).push(0, 4);
        bits
    }

    /// Writes a code of one symbol below 256, which is coded in no bits.
    fn one_symbol(&mut self, symbol: u32) -> &mut Self {
        self.push(0b101, 3).push(symbol, 8)
    }

    /// Writes an image of one colour: no colour cache, and five codes of one symbol.
    fn one_colour(&mut self, red: u32, green: u32) -> &mut Self {
        self.push(0, 1);
        for symbol in [green, red, 0, 0, 0] {
            self.one_symbol(symbol);
        }
        self
    }

    /// Writes a code with the lengths 1, 2, 3 … `longest`, `longest`, which is complete with few symbols.
    fn deep_code(&mut self, longest: u32) -> &mut Self {
        // The code of the lengths: 16 symbols (0 to 15) of four bits each.
        const ORDER: [u32; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        self.push(0, 1).push(15, 4);
        for symbol in ORDER {
            self.push(if symbol < 16 { 4 } else { 0 }, 3);
        }
        // Writes the number of lengths that follow. The other lengths are 0.
        self.push(1, 1).push(2, 3).push(longest + 1 - 2, 6);
        for length in (1..=longest).chain([longest]) {
            // The highest bit of a code comes first.
            self.push(length.reverse_bits() >> 28, 4);
        }
        self
    }
}

fn riff(chunks: &[u8]) -> Vec<u8> {
    [&b"RIFF"[..], &length32(chunks.len() + 4).to_le_bytes(), b"WEBP", chunks].concat()
}

fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let padding = vec![0; data.len() % 2];
    [name, &length32(data.len()).to_le_bytes()[..], data, &padding].concat()
}

fn lossless_chunk(bits: &Bits) -> Vec<u8> {
    chunk(b"VP8L", &[&bits.bytes[..], &[0; 8]].concat())
}

/// Writes an image of one colour in about twenty bytes.
fn one_colour(size: (u32, u32)) -> Vec<u8> {
    let mut bits = Bits::header(size);
    bits.push(0, 1).push(0, 1).push(0, 1);
    for symbol in [1, 2, 3, 4, 0] {
        bits.one_symbol(symbol);
    }
    lossless_chunk(&bits)
}

/// Writes `group_count` groups of codes of the maximum depth. All blocks of the image use the last group.
fn push_groups(bits: &mut Bits, group_count: u32) {
    // Writes no transform, no colour cache, and an entropy image for blocks of 4×4 pixels.
    bits.push(0, 1).push(0, 1).push(1, 1).push(0, 3);
    let last = group_count - 1;
    bits.one_colour(last >> 8, last & 255);
    for _ in 0..group_count * 5 {
        bits.deep_code(15);
    }
}

/// Writes a lossless image with `count` groups of codes.
fn of_groups(size: (u32, u32), count: u32) -> Vec<u8> {
    let mut bits = Bits::header(size);
    push_groups(&mut bits, count);
    lossless_chunk(&bits)
}

const ANIMATED: u8 = 2;
const ALPHA: u8 = 16;

fn extended(flags: u8, (width, height): (u32, u32), chunks: &[u8]) -> Vec<u8> {
    let mut canvas = vec![flags, 0, 0, 0];
    canvas.extend(&(width - 1).to_le_bytes()[..3]);
    canvas.extend(&(height - 1).to_le_bytes()[..3]);
    riff(&[&chunk(b"VP8X", &canvas)[..], chunks].concat())
}

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
    let at = file.windows(4).position(|name| name == b"VP8 ").unwrap();
    file[at..].to_vec()
}

fn read_lossy_size() -> (u32, u32) {
    let pixels = lossy_chunk();
    let side = |at| u32::from(u16::from_le_bytes([pixels[at], pixels[at + 1]]));
    (side(14), side(16))
}

pub(super) fn files() -> Vec<HostileFile> {
    let full_size = (5000, 5000);
    let usual = encode(test_image(), ImageFormat::WebP);
    let animation = chunk(b"ANIM", &[0; 6]);
    let lossy_size = read_lossy_size();
    let mut alpha = Bits::default();
    // The first byte means that alpha is lossless. The stream after it has no header with a size.
    alpha.push(1, 8);
    push_groups(&mut alpha, 60_000);
    let alpha = alpha.bytes;
    let mut opaque = Bits::default();
    opaque.push(1, 8).push(0, 1).push(0, 1).push(0, 1);
    for symbol in [255, 0, 0, 0, 0] {
        opaque.one_symbol(symbol);
    }
    opaque.push(0, 32).push(0, 32);
    let opaque = opaque.bytes;
    vec![
        hostile_file("webp-25-megapixels-in-40-bytes", Processed, riff(&one_colour(full_size))),
        hostile_file(
            "webp-12000-squared",
            RefusedBeforeDecoding("too_many_pixels"),
            riff(&one_colour((12_000, 12_000))),
        ),
        hostile_file(
            "webp-16384-squared",
            RefusedBeforeDecoding("too_many_pixels"),
            riff(&one_colour((16_384, 16_384))),
        ),
        hostile_file(
            "webp-25-megapixels-with-alpha-flag",
            Processed,
            extended(ALPHA, full_size, &one_colour(full_size)),
        ),
        hostile_file("webp-65536-code-groups-for-one-pixel", RefusedBeforeDecoding("corrupt_image"), {
            riff(&of_groups((1, 1), 65_536))
        }),
        hostile_file("webp-65536-code-groups", RefusedBeforeDecoding("too_much_memory"), {
            riff(&of_groups((2000, 2000), 65_536))
        }),
        // The number of groups is accepted, but no pixels follow.
        hostile_file(
            "webp-5000-code-groups",
            RefusedByDecoder("corrupt_image"),
            riff(&of_groups((2000, 2000), 5000)),
        ),
        hostile_file("webp-60000-code-groups-in-alpha", RefusedBeforeDecoding("too_much_memory"), {
            extended(ALPHA, lossy_size, &[chunk(b"ALPH", &alpha), lossy_chunk()].concat())
        }),
        hostile_file(
            "webp-60000-code-groups-in-alpha-after-the-pixels",
            RefusedBeforeDecoding("too_much_memory"),
            extended(ALPHA, lossy_size, &[lossy_chunk(), chunk(b"ALPH", &alpha)].concat()),
        ),
        hostile_file("webp-animation-of-12-megapixels", Processed, {
            let frame = frame_chunk((3464, 3464), &one_colour((3464, 3464)));
            extended(ANIMATED, (3464, 3464), &[&animation[..], &frame].concat())
        }),
        hostile_file("webp-animation-of-a-small-frame", Processed, {
            let frame = frame_chunk((8, 8), &one_colour((8, 8)));
            extended(ANIMATED, (3464, 3464), &[&animation[..], &frame].concat())
        }),
        hostile_file("webp-animation-of-25-megapixels", RefusedBeforeDecoding("too_much_memory"), {
            let frame = frame_chunk(full_size, &one_colour(full_size));
            extended(ANIMATED, full_size, &[&animation[..], &frame].concat())
        }),
        hostile_file("webp-lossy-animation", Processed, {
            extended(
                ANIMATED,
                lossy_size,
                &[&animation[..], &frame_chunk(lossy_size, &lossy_chunk())].concat(),
            )
        }),
        hostile_file("webp-10000-frames", Processed, {
            let frames = frame_chunk((8, 8), &one_colour((8, 8))).repeat(10_000);
            extended(ANIMATED, (8, 8), &[&animation[..], &frames].concat())
        }),
        hostile_file(
            "webp-animation-without-a-frame",
            RefusedBeforeDecoding("corrupt_image"),
            extended(ANIMATED, (8, 8), &animation),
        ),
        hostile_file("webp-frame-larger-than-its-canvas", RefusedBeforeDecoding("corrupt_image"), {
            let frame = frame_chunk((16, 16), &one_colour((16, 16)));
            extended(ANIMATED, (8, 8), &[&animation[..], &frame].concat())
        }),
        hostile_file("webp-frame-without-the-animation-flag", RefusedBeforeDecoding("corrupt_image"), {
            let frame = frame_chunk(lossy_size, &of_groups(lossy_size, 2000));
            extended(0, lossy_size, &[lossy_chunk(), frame].concat())
        }),
        hostile_file(
            "webp-contradictory-sizes",
            RefusedBeforeDecoding("corrupt_image"),
            extended(0, (8, 8), &one_colour(full_size)),
        ),
        hostile_file("webp-profile-of-19-mb", Processed, {
            let profile = chunk(b"ICCP", &vec![7; 19 << 20]);
            extended(0x20, (8, 8), &[&profile[..], &one_colour((8, 8))].concat())
        }),
        hostile_file("webp-exif-of-19-mb", Processed, {
            let exif = chunk(b"EXIF", &[&b"MM\0*\0\0\0\x08\xFF\xFF"[..], &vec![7; 19 << 20]].concat());
            extended(0x08, (8, 8), &[&one_colour((8, 8))[..], &exif].concat())
        }),
        hostile_file("webp-million-unknown-chunks", Processed, {
            let chunks = chunk(b"WHAT", &[]).repeat(1_000_000);
            extended(0, (8, 8), &[&chunks[..], &one_colour((8, 8))].concat())
        }),
        hostile_file("webp-random-codes", RefusedBeforeDecoding("corrupt_image"), {
            let mut bits = Bits::header((64, 64));
            bits.bytes.extend(noise(2000));
            riff(&lossless_chunk(&bits))
        }),
        hostile_file("webp-truncated-in-its-codes", RefusedBeforeDecoding("corrupt_image"), {
            let codes = of_groups((2000, 2000), 5000);
            riff(&chunk(b"VP8L", &codes[8..codes.len() / 2]))
        }),
        hostile_file(
            "webp-truncated-in-its-pixels",
            RefusedBeforeDecoding("corrupt_image"),
            usual[..usual.len() / 2].to_vec(),
        ),
        hostile_file("webp-truncated-alpha", RefusedByDecoder("corrupt_image"), {
            let file = extended(ALPHA, lossy_size, &[lossy_chunk(), chunk(b"ALPH", &[0; 400])].concat());
            file[..file.len() - 100].to_vec()
        }),
        hostile_file("webp-truncated-lossy-pixels", RefusedByDecoder("corrupt_image"), {
            let mut pixels = lossy_chunk();
            let middle = pixels.len() / 2;
            pixels.truncate(middle);
            let length = length32(middle - 8).to_le_bytes();
            pixels[4..8].copy_from_slice(&length);
            riff(&pixels)
        }),
        hostile_file("webp-trailing-noise", Processed, [&usual[..], &noise(10_000)].concat()),
        hostile_file("webp-lossy-with-alpha", Processed, {
            extended(ALPHA, lossy_size, &[chunk(b"ALPH", &opaque), lossy_chunk()].concat())
        }),
        hostile_file("webp-lossy-animation-with-alpha", Processed, {
            let frame = frame_chunk(lossy_size, &[chunk(b"ALPH", &opaque), lossy_chunk()].concat());
            extended(ANIMATED | ALPHA, lossy_size, &[&animation[..], &frame].concat())
        }),
        hostile_file("webp-with-alpha", Processed, encode(RgbaImage::new(300, 200), ImageFormat::WebP)),
    ]
}
