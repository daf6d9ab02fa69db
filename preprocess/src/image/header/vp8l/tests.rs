//! Streams written bit by bit, as encoders write them and as they never would.

mod damaged;

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder, codecs::webp::WebPEncoder};

use super::*;

/// One bit each; the lowest of a number first.
#[derive(Clone, Default)]
struct Writer(Vec<bool>);

impl Writer {
    fn put(&mut self, value: u32, bits: u32) -> &mut Self {
        self.0.extend((0..bits).map(|bit| value >> bit & 1 == 1));
        self
    }

    /// A code of one symbol, or of two.
    fn simple(&mut self, symbols: &[u32]) -> &mut Self {
        self.put(1, 1).put(u32::from(symbols.len() == 2), 1);
        // The first in eight bits.
        self.put(1, 1);
        symbols.iter().for_each(|&symbol| {
            self.put(symbol, 8);
        });
        self
    }

    /// What comes before lengths: a code of four bits for each length from 0 to 15.
    fn lengths_head(&mut self) -> &mut Self {
        self.put(0, 1).put(15, 4);
        // In the format's order; the first two and the ninth are runs.
        [0, 0, 4, 4, 4, 4, 4, 4, 0].iter().for_each(|&length| {
            self.put(length, 3);
        });
        (9..19).for_each(|_| {
            self.put(4, 3);
        });
        self
    }

    fn length(&mut self, length: u8) -> &mut Self {
        self.put(u32::from(length).reverse_bits() >> 28, 4)
    }

    /// A code by the lengths of all symbols of its alphabet; what is left out is 0.
    fn lengths(&mut self, alphabet: usize, lengths: &[u8]) -> &mut Self {
        self.lengths_head().put(0, 1);
        let rest = std::iter::repeat_n(&0, alphabet - lengths.len());
        lengths.iter().chain(rest).for_each(|&length| {
            self.length(length);
        });
        self
    }

    /// The codes of red, blue, alpha and distances: one symbol each, without bits.
    fn others(&mut self) -> &mut Self {
        [0; 4].iter().for_each(|&symbol| {
            self.simple(&[symbol]);
        });
        self
    }

    /// A group of five codes without bits.
    fn group(&mut self) -> &mut Self {
        self.simple(&[0]).others()
    }

    /// A picture inside the picture, all of it of one value.
    fn flat_picture(&mut self, value: u32) -> &mut Self {
        self.put(0, 1).simple(&[value & 255]).simple(&[value >> 8]);
        [0; 3].iter().for_each(|&symbol| {
            self.simple(&[symbol]);
        });
        self
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.chunks(8).map(|bits| (0..).zip(bits).map(|(at, &bit)| u8::from(bit) << at).sum()).collect()
    }

    /// What the tables take, if the stream is whole. A stream that lacks its last bit must be broken.
    fn tables(&self, width: u32, height: u32) -> Option<u64> {
        let tables = table_bytes(&self.bytes(), width, height).ok();
        if tables.is_some() {
            for bytes in 0..self.bytes().len() {
                assert!(table_bytes(&self.bytes()[..bytes], width, height).is_err(), "{bytes} bytes");
            }
        }
        tables
    }
}

/// No transform, no cache, no entropy image.
fn plain() -> Writer {
    let mut writer = Writer::default();
    writer.put(0, 3);
    writer
}

/// No transform, no cache; an entropy image for blocks of 4×4.
fn with_groups() -> Writer {
    let mut writer = Writer::default();
    writer.put(0, 2).put(1, 1).put(0, 3);
    writer
}

/// The five codes of an entropy image: greens as given, the others without bits.
fn with_greens(greens: &[u8]) -> Writer {
    let mut writer = with_groups();
    writer.put(0, 1).lengths(280, greens).others();
    writer
}

#[test]
fn tables_are_added_up() {
    assert_eq!(plain().group().tables(1, 1), Some(GROUP_BYTES));
    let two = 2 * 4 + 2 * 32 + 32;
    assert_eq!(plain().simple(&[3, 200]).others().tables(1, 1), Some(GROUP_BYTES + two));
    let even = plain().lengths(280, &[8; 256]).others().tables(1, 1);
    assert_eq!(even, Some(GROUP_BYTES + 256 * 4 + 32));
    // Six codes of more than ten bits.
    let lengths: Vec<u8> = (1..=15).chain([15]).collect();
    let long = plain().lengths(280, &lengths).others().tables(1, 1);
    assert_eq!(long, Some(GROUP_BYTES + 1024 * 4 + 6 * 32 + 32));
    // One symbol takes no bits however it is written.
    assert_eq!(plain().lengths(280, &[0, 0, 7]).others().tables(1, 1), Some(GROUP_BYTES));
}

#[test]
fn every_code_of_a_group_counts() {
    let alphabets = [280, 256, 256, 256, 40];
    for long in 0..5 {
        let mut writer = plain();
        for (index, alphabet) in alphabets.into_iter().enumerate() {
            if index == long {
                writer.lengths(alphabet, &[2; 4]);
            } else {
                writer.simple(&[0]);
            }
        }
        assert_eq!(writer.tables(1, 1), Some(GROUP_BYTES + 4 * 4 + 32), "code {long}");
    }
    // The alphabet of distances ends at 40.
    for (symbol, fits) in [(39, true), (40, false)] {
        let mut writer = plain();
        (0..4).for_each(|_| {
            writer.simple(&[0]);
        });
        assert_eq!(writer.simple(&[symbol]).tables(1, 1).is_some(), fits, "{symbol}");
        let mut writer = plain();
        (0..4).for_each(|_| {
            writer.simple(&[0]);
        });
        assert_eq!(writer.simple(&[0, symbol]).tables(1, 1).is_some(), fits, "0 and {symbol}");
    }
}

#[test]
fn a_cache_of_colours_makes_the_first_alphabet_longer() {
    for (size, fits) in [(0, false), (1, true), (11, true), (12, false), (15, false)] {
        let mut writer = Writer::default();
        writer.put(0, 1).put(1, 1).put(size, 4).put(0, 1);
        // Long enough for every size, so that it is the size that is refused.
        let cache = if fits { 1 << size } else { 0 };
        writer.lengths(280 + cache, &[1, 1]).others();
        let expected = fits.then_some(GROUP_BYTES + 2 * 4 + 32);
        assert_eq!(writer.tables(1, 1), expected, "{size}");
    }
}

#[test]
fn the_largest_value_says_how_many_groups_there_are() {
    for value in [0, 1, 15] {
        let mut writer = with_groups();
        writer.flat_picture(value);
        (0..value).for_each(|_| {
            writer.group();
        });
        assert_eq!(writer.tables(16, 16), None, "{value}: one group too few");
        assert_eq!(writer.group().tables(16, 16), Some((u64::from(value) + 1) * GROUP_BYTES), "{value}");
    }
    // Red counts 256 times as much as green.
    let mut writer = with_groups();
    writer.flat_picture(0x100);
    (0..257).for_each(|_| {
        writer.group();
    });
    assert_eq!(writer.tables(68, 64), Some(257 * GROUP_BYTES));
    assert_eq!(writer.tables(64, 64), None, "256 blocks");
}

#[test]
fn more_groups_than_blocks_are_refused() {
    for value in [16, 0xFFFF] {
        let mut writer = with_groups();
        writer.flat_picture(value);
        (0..=value).for_each(|_| {
            writer.group();
        });
        assert_eq!(table_bytes(&writer.bytes(), 16, 16).ok(), None, "{value}");
    }
}

#[test]
fn every_block_of_an_entropy_image_is_read() {
    // Greens 0 and 2 in one bit each: of four blocks one is 2, so there are three groups.
    for place in 0..4 {
        let mut writer = with_greens(&[1, 0, 1]);
        (0..4).for_each(|block| {
            writer.put(u32::from(block == place), 1);
        });
        (0..3).for_each(|_| {
            writer.group();
        });
        assert_eq!(writer.tables(8, 8), Some(3 * GROUP_BYTES), "{place}");
    }
    // None is: one group.
    let mut writer = with_greens(&[1, 0, 1]);
    assert_eq!(writer.put(0, 4).group().tables(8, 8), Some(GROUP_BYTES));
}

/// An entropy image whose greens are 0 and, as runs, the symbols from 256 on; all of the same length.
fn with_runs(symbols: usize) -> Writer {
    let mut lengths = vec![0; 256 + symbols - 1];
    let length = u8::try_from(symbols.ilog2()).unwrap();
    lengths[0] = length;
    lengths[256..].fill(length);
    with_greens(&lengths)
}

#[test]
fn runs_are_stepped_over() {
    // One block, then a run of three that takes no more bits than its symbol.
    let mut writer = with_runs(4);
    writer.put(0, 2).put(0b11, 2).group();
    assert_eq!(writer.tables(8, 8), Some(GROUP_BYTES));
    // A run of four is longer than the picture.
    assert_eq!(with_runs(8).put(0, 3).put(0b001, 3).group().tables(8, 8), None);
    // One of seven or eight, by a bit that follows: with the first block as many as there are, or one more.
    let run = |bit| with_runs(8).put(0, 3).put(0b011, 3).put(bit, 1).group().tables(32, 4);
    assert_eq!(run(0), Some(GROUP_BYTES));
    assert_eq!(run(1), None);
}

#[test]
fn a_code_must_be_whole() {
    let whole = |lengths: &[u8]| plain().lengths(280, lengths).others().tables(1, 1).is_some();
    assert!(whole(&[1, 1]) && whole(&[2, 2, 1]) && whole(&[3, 3, 2, 1]));
    for (name, lengths) in [
        ("none", &[][..]),
        ("a bit is missing", &[1, 2]),
        ("one too many", &[1, 1, 1]),
        ("far too many", &[1; 280]),
        ("the last bit is missing", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    ] {
        assert!(!whole(lengths), "{name}");
    }
}

#[test]
fn runs_of_lengths() {
    // The length 1, the one before again (16) and zeros (17 and 18) are coded by two bits each.
    let runs = |symbols: &[(u32, u32, u32)], limit: Option<u32>| {
        let mut writer = plain();
        writer.put(0, 1).put(15, 4);
        // 17, 18, 0, 1, 2, 3, 4, 5, 16, 6 …: the format's order.
        let lengths = [2, 2, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        lengths.iter().for_each(|&length| {
            writer.put(length, 3);
        });
        match limit {
            Some(limit) => writer.put(1, 1).put(3, 3).put(limit - 2, 8),
            None => writer.put(0, 1),
        };
        for &(symbol, more, bits) in symbols {
            let code = [1, 16, 17, 18].iter().position(|&of| of == symbol).unwrap();
            let code = u32::try_from(code).unwrap().reverse_bits() >> 30;
            writer.put(code, 2).put(more, bits);
        }
        writer.others().tables(1, 1)
    };
    const ONE: (u32, u32, u32) = (1, 0, 0);
    let zeros = |zeros: u32| (18, zeros - 11, 7);
    let two = Some(GROUP_BYTES + 2 * 4 + 32);
    assert_eq!(runs(&[ONE, ONE, zeros(138), zeros(138), ONE, ONE], None), None, "four ones");
    assert_eq!(runs(&[ONE, zeros(138), zeros(130), (17, 7, 3), ONE], None), two);
    assert_eq!(runs(&[ONE, zeros(138), zeros(130), zeros(12)], None), None, "past the end");
    assert_eq!(runs(&[ONE, ONE], Some(2)), two, "the others are not there");
    assert_eq!(runs(&[ONE, zeros(138), ONE], Some(3)), two);
    // The length before again, three times.
    assert_eq!(runs(&[ONE, (16, 0, 2)], Some(2)), None, "four ones");
}

#[test]
fn more_lengths_than_symbols_are_refused() {
    for (limit, fits) in [(280, true), (281, false), (1 << 16, false)] {
        let mut writer = plain();
        writer.lengths_head().put(1, 1).put(7, 3).put(limit - 2, 16);
        [1, 1].iter().for_each(|&length| {
            writer.length(length);
        });
        (2..280).for_each(|_| {
            writer.length(0);
        });
        assert_eq!(writer.others().tables(1, 1).is_some(), fits, "{limit}");
    }
}

#[test]
fn transforms_are_stepped_over_and_come_once() {
    let with = |transforms: &[u32]| {
        let mut writer = Writer::default();
        for &transform in transforms {
            writer.put(1, 1).put(transform, 2);
            match transform {
                0 | 1 => {
                    writer.put(0, 3).flat_picture(5);
                }
                3 => {
                    writer.put(255, 8).flat_picture(7);
                }
                _ => {}
            }
        }
        writer.put(0, 3).group();
        writer.tables(16, 16)
    };
    assert_eq!(with(&[0, 1, 2, 3]), Some(GROUP_BYTES));
    assert_eq!(with(&[3, 2, 1, 0]), Some(GROUP_BYTES));
    for transform in 0..4 {
        assert_eq!(with(&[transform]), Some(GROUP_BYTES), "{transform}");
        assert_eq!(with(&[transform, transform]), None, "{transform} twice");
    }
}

#[test]
fn a_palette_of_few_colours_makes_the_picture_narrower() {
    // Blocks of four pixels; of a row of 64 that many are left, which is the most groups there may be.
    for (colours, blocks) in [(2, 2), (3, 4), (4, 4), (5, 8), (16, 8), (17, 16), (256, 16)] {
        for (groups, fits) in [(blocks, true), (blocks + 1, false)] {
            let mut writer = Writer::default();
            writer.put(1, 1).put(3, 2).put(colours - 1, 8).flat_picture(0);
            // No more transforms, no cache, an entropy image.
            writer.put(0, 2).put(1, 1).put(0, 3).flat_picture(groups - 1);
            (0..groups).for_each(|_| {
                writer.group();
            });
            let expected = fits.then_some(u64::from(groups) * GROUP_BYTES);
            assert_eq!(writer.tables(64, 1), expected, "{colours} colours, {groups} groups");
        }
    }
}

#[test]
fn symbols_without_bits_do_not_last_as_long_as_the_picture() {
    // Runs of one block without a bit, for 2^60 blocks: whoever counts them never ends.
    let mut lengths = [0; 257];
    lengths[256] = 1;
    let mut writer = with_greens(&lengths);
    writer.group();
    assert_eq!(table_bytes(&writer.bytes(), u32::MAX, u32::MAX).ok(), Some(GROUP_BYTES));
}

#[test]
fn nothing_is_not_a_stream() {
    assert!(table_bytes(&[], 1, 1).is_err());
    assert!(table_bytes(&[], u32::MAX, u32::MAX).is_err());
}

#[test]
fn what_an_encoder_writes_is_read_to_its_last_code() {
    let pixels: Vec<u8> = (0..64 * 48 * 3u32).map(|at| ((at * at) >> 7).to_le_bytes()[0]).collect();
    let mut file = Cursor::new(Vec::new());
    WebPEncoder::new_lossless(&mut file).write_image(&pixels, 64, 48, ExtendedColorType::Rgb8).unwrap();
    // RIFF, length, WEBP, VP8L, length; a signature and the size.
    let stream = &file.get_ref()[25..];
    let bytes = table_bytes(stream, 64, 48).unwrap();
    assert!(bytes > GROUP_BYTES);
    // Of the pixels nothing is read.
    assert_eq!(table_bytes(&stream[..stream.len() / 2], 64, 48).unwrap(), bytes);
}
