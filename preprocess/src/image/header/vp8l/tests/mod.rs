//! Tests with streams that are written bit by bit. Some streams are valid, and some are invalid streams that
//! no encoder writes.

mod damaged;

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder, codecs::webp::WebPEncoder};

use super::*;

/// Writes numbers bit by bit, the lowest bit first.
#[derive(Clone, Default)]
struct Writer(Vec<bool>);

impl Writer {
    fn put(&mut self, value: u32, bits: u32) -> &mut Self {
        self.0.extend((0..bits).map(|bit| value >> bit & 1 == 1));
        self
    }

    /// Writes a code of one or two symbols.
    fn simple(&mut self, symbols: &[u32]) -> &mut Self {
        self.put(1, 1).put(u32::from(symbols.len() == 2), 1);
        // This bit means that the first symbol is written in eight bits.
        self.put(1, 1);
        symbols.iter().for_each(|&symbol| {
            self.put(symbol, 8);
        });
        self
    }

    /// Writes the prefix code of the lengths. It gives each length from 0 to 15 a code of four bits.
    fn lengths_head(&mut self) -> &mut Self {
        self.put(0, 1).put(15, 4);
        // The format defines the order of the symbols. The first two and the ninth symbol are runs, which get
        // no code.
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

    /// Writes a prefix code as the lengths of the codes of its symbols. The symbols of `alphabet` that have
    /// no entry in `lengths` are unused.
    fn lengths(&mut self, alphabet: usize, lengths: &[u8]) -> &mut Self {
        self.lengths_head().put(0, 1);
        let rest = std::iter::repeat_n(&0, alphabet - lengths.len());
        lengths.iter().chain(rest).for_each(|&length| {
            self.length(length);
        });
        self
    }

    /// Writes the codes of red, blue, alpha and distance with a single symbol each.
    fn others(&mut self) -> &mut Self {
        [0; 4].iter().for_each(|&symbol| {
            self.simple(&[symbol]);
        });
        self
    }

    /// Writes a group of five codes with a single symbol each.
    fn group(&mut self) -> &mut Self {
        self.simple(&[0]).others()
    }

    /// Writes an entropy or transform image in which every pixel has this value.
    fn flat_image(&mut self, value: u32) -> &mut Self {
        self.put(0, 1).simple(&[value & 255]).simple(&[value >> 8]);
        [0; 3].iter().for_each(|&symbol| {
            self.simple(&[symbol]);
        });
        self
    }

    fn bytes(&self) -> Vec<u8> {
        self.0.chunks(8).map(|bits| (0..).zip(bits).map(|(at, &bit)| u8::from(bit) << at).sum()).collect()
    }

    /// Returns the number of bytes in the tables, or `None` for a corrupt stream. Asserts that every shorter
    /// stream is corrupt.
    fn tables(&self, width: u32, height: u32) -> Option<u64> {
        let tables = table_bytes(&self.bytes(), width, height).ok();
        if tables.is_some() {
            for length in 0..self.bytes().len() {
                assert!(table_bytes(&self.bytes()[..length], width, height).is_err(), "{length} bytes");
            }
        }
        tables
    }
}

/// Starts a stream that has no transforms, no colour cache and no entropy image.
fn plain() -> Writer {
    let mut writer = Writer::default();
    writer.put(0, 3);
    writer
}

/// Starts a stream that has no transforms and no colour cache, but an entropy image for blocks of 4×4 pixels.
fn with_groups() -> Writer {
    let mut writer = Writer::default();
    writer.put(0, 2).put(1, 1).put(0, 3);
    writer
}

/// Starts a stream as [`with_groups`] does, and writes the codes of the entropy image.
///
/// `greens` are the lengths of the codes of green. The other codes have a single symbol each.
fn with_greens(greens: &[u8]) -> Writer {
    let mut writer = with_groups();
    writer.put(0, 1).lengths(280, greens).others();
    writer
}

#[test]
fn table_bytes_is_the_sum_over_all_codes() {
    assert_eq!(plain().group().tables(1, 1), Some(GROUP_BYTES));
    let two = 2 * 4 + 2 * 32 + 32;
    assert_eq!(plain().simple(&[3, 200]).others().tables(1, 1), Some(GROUP_BYTES + two));
    let even = plain().lengths(280, &[8; 256]).others().tables(1, 1);
    assert_eq!(even, Some(GROUP_BYTES + 256 * 4 + 32));
    // Six symbols have codes of more than ten bits.
    let lengths: Vec<u8> = (1..=15).chain([15]).collect();
    let long = plain().lengths(280, &lengths).others().tables(1, 1);
    assert_eq!(long, Some(GROUP_BYTES + 1024 * 4 + 6 * 32 + 32));
    // A single symbol needs no table, even when the code is written as lengths.
    assert_eq!(plain().lengths(280, &[0, 0, 7]).others().tables(1, 1), Some(GROUP_BYTES));
}

#[test]
fn each_of_the_five_codes_of_a_group_is_counted() {
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
    // The alphabet of distances has 40 symbols.
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
fn colour_cache_extends_the_first_alphabet_and_invalid_sizes_are_refused() {
    for (size, fits) in [(0, false), (1, true), (11, true), (12, false), (15, false)] {
        let mut writer = Writer::default();
        writer.put(0, 1).put(1, 1).put(size, 4).put(0, 1);
        // The lengths are valid for every size of the cache, so that only the size can be refused.
        let cache = if fits { 1 << size } else { 0 };
        writer.lengths(280 + cache, &[1, 1]).others();
        let expected = fits.then_some(GROUP_BYTES + 2 * 4 + 32);
        assert_eq!(writer.tables(1, 1), expected, "{size}");
    }
}

#[test]
fn group_count_is_the_largest_value_of_the_entropy_image_plus_one() {
    for value in [0, 1, 15] {
        let mut writer = with_groups();
        writer.flat_image(value);
        (0..value).for_each(|_| {
            writer.group();
        });
        assert_eq!(writer.tables(16, 16), None, "{value}: one group too few");
        assert_eq!(writer.group().tables(16, 16), Some((u64::from(value) + 1) * GROUP_BYTES), "{value}");
    }
    // Red is the higher byte of the value.
    let mut writer = with_groups();
    writer.flat_image(0x100);
    (0..257).for_each(|_| {
        writer.group();
    });
    assert_eq!(writer.tables(68, 64), Some(257 * GROUP_BYTES));
    assert_eq!(writer.tables(64, 64), None, "there are only 256 blocks");
}

#[test]
fn more_groups_than_blocks_are_refused() {
    for value in [16, 0xFFFF] {
        let mut writer = with_groups();
        writer.flat_image(value);
        (0..=value).for_each(|_| {
            writer.group();
        });
        assert_eq!(table_bytes(&writer.bytes(), 16, 16).ok(), None, "{value}");
    }
}

#[test]
fn largest_value_is_found_in_every_block_of_the_entropy_image() {
    // The greens 0 and 2 have codes of one bit. One of the four blocks has the value 2, so there are three
    // groups.
    for position in 0..4 {
        let mut writer = with_greens(&[1, 0, 1]);
        (0..4).for_each(|block| {
            writer.put(u32::from(block == position), 1);
        });
        (0..3).for_each(|_| {
            writer.group();
        });
        assert_eq!(writer.tables(8, 8), Some(3 * GROUP_BYTES), "{position}");
    }
    // No block has the value 2, so there is one group.
    let mut writer = with_greens(&[1, 0, 1]);
    assert_eq!(writer.put(0, 4).group().tables(8, 8), Some(GROUP_BYTES));
}

/// Starts a stream whose entropy image has `symbols` symbols of green, with codes of the same length.
///
/// The symbols are the value 0 and `symbols` - 1 lengths of runs.
fn with_runs(symbols: usize) -> Writer {
    let mut lengths = vec![0; 256 + symbols - 1];
    let length = u8::try_from(symbols.ilog2()).unwrap();
    lengths[0] = length;
    lengths[256..].fill(length);
    with_greens(&lengths)
}

#[test]
fn runs_fill_the_entropy_image_exactly_or_the_stream_is_refused() {
    // The image is one block and a run of three blocks, which has no extra bits.
    let mut writer = with_runs(4);
    writer.put(0, 2).put(0b11, 2).group();
    assert_eq!(writer.tables(8, 8), Some(GROUP_BYTES));
    // A run of four is longer than the image.
    assert_eq!(with_runs(8).put(0, 3).put(0b001, 3).group().tables(8, 8), None);
    // One extra bit selects a run of seven or eight blocks. Together with the first block, these are all
    // eight blocks of the image, or one block too many.
    let run = |bit| with_runs(8).put(0, 3).put(0b011, 3).put(bit, 1).group().tables(32, 4);
    assert_eq!(run(0), Some(GROUP_BYTES));
    assert_eq!(run(1), None);
}

#[test]
fn incomplete_and_oversubscribed_codes_are_refused() {
    let is_accepted = |lengths: &[u8]| plain().lengths(280, lengths).others().tables(1, 1).is_some();
    assert!(is_accepted(&[1, 1]) && is_accepted(&[2, 2, 1]) && is_accepted(&[3, 3, 2, 1]));
    for (name, lengths) in [
        ("no code", &[][..]),
        ("a code of two bits is missing", &[1, 2]),
        ("one code too many", &[1, 1, 1]),
        ("many codes too many", &[1; 280]),
        ("the last code is missing", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    ] {
        assert!(!is_accepted(lengths), "{name}");
    }
}

#[test]
fn runs_of_code_lengths_are_expanded_and_refused_past_the_end() {
    // Four symbols have codes of two bits: the length 1, a repetition of the previous length (16), and runs
    // of zeros (17 and 18).
    let runs = |symbols: &[(u32, u32, u32)], limit: Option<u32>| {
        let mut writer = plain();
        writer.put(0, 1).put(15, 4);
        // The format defines the order of the symbols: 17, 18, 0, 1, 2, 3, 4, 5, 16, 6 …
        let lengths = [2, 2, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        lengths.iter().for_each(|&length| {
            writer.put(length, 3);
        });
        match limit {
            Some(limit) => writer.put(1, 1).put(3, 3).put(limit - 2, 8),
            None => writer.put(0, 1),
        };
        for &(symbol, more, bits) in symbols {
            let code = [1, 16, 17, 18].iter().position(|&coded| coded == symbol).unwrap();
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
    assert_eq!(runs(&[ONE, ONE], Some(2)), two, "the lengths after the first two are left out");
    assert_eq!(runs(&[ONE, zeros(138), ONE], Some(3)), two);
    // The symbol 16 repeats the previous length three times.
    assert_eq!(runs(&[ONE, (16, 0, 2)], Some(2)), None, "four ones");
}

#[test]
fn more_code_lengths_than_symbols_are_refused() {
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
fn transforms_are_skipped_and_a_repeated_transform_is_refused() {
    let with = |transforms: &[u32]| {
        let mut writer = Writer::default();
        for &transform in transforms {
            writer.put(1, 1).put(transform, 2);
            match transform {
                0 | 1 => {
                    writer.put(0, 3).flat_image(5);
                }
                3 => {
                    writer.put(255, 8).flat_image(7);
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
fn palette_of_few_colours_makes_the_coded_image_narrower() {
    // `blocks` is the number of blocks of four pixels in the coded row, which is the maximum number of
    // groups.
    for (colours, blocks) in [(2, 2), (3, 4), (4, 4), (5, 8), (16, 8), (17, 16), (256, 16)] {
        for (groups, fits) in [(blocks, true), (blocks + 1, false)] {
            let mut writer = Writer::default();
            writer.put(1, 1).put(3, 2).put(colours - 1, 8).flat_image(0);
            // Writes that there are no more transforms, no colour cache, and an entropy image.
            writer.put(0, 2).put(1, 1).put(0, 3).flat_image(groups - 1);
            (0..groups).for_each(|_| {
                writer.group();
            });
            let expected = fits.then_some(u64::from(groups) * GROUP_BYTES);
            assert_eq!(writer.tables(64, 1), expected, "{colours} colours, {groups} groups");
        }
    }
}

#[test]
fn symbols_without_bits_are_read_in_constant_time() {
    // The entropy image has 2^60 blocks, in runs of one block that need no bits. Counting the runs one by one
    // would never end.
    let mut lengths = [0; 257];
    lengths[256] = 1;
    let mut writer = with_greens(&lengths);
    writer.group();
    assert_eq!(table_bytes(&writer.bytes(), u32::MAX, u32::MAX).ok(), Some(GROUP_BYTES));
}

#[test]
fn empty_stream_is_refused() {
    assert!(table_bytes(&[], 1, 1).is_err());
    assert!(table_bytes(&[], u32::MAX, u32::MAX).is_err());
}

#[test]
fn stream_of_an_encoder_is_read_up_to_its_last_code() {
    let pixels: Vec<u8> = (0..64 * 48 * 3u32).map(|at| ((at * at) >> 7).to_le_bytes()[0]).collect();
    let mut file = Cursor::new(Vec::new());
    WebPEncoder::new_lossless(&mut file).write_image(&pixels, 64, 48, ExtendedColorType::Rgb8).unwrap();
    // The first 25 bytes are RIFF, a length, WEBP, VP8L, a length, the signature and the size.
    let stream = &file.get_ref()[25..];
    let bytes = table_bytes(stream, 64, 48).unwrap();
    assert!(bytes > GROUP_BYTES);
    // Half of the stream gives the same result, because the pixels are not read.
    assert_eq!(table_bytes(&stream[..stream.len() / 2], 64, 48).unwrap(), bytes);
}
