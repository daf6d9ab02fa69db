//! Tests with valid and invalid streams. The tests write most streams bit by bit, because no encoder produces
//! them.

mod damaged;

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder, codecs::webp::WebPEncoder};

use super::*;

/// Writes numbers bit by bit, the lowest bit first.
#[derive(Clone, Default)]
struct BitWriter(Vec<bool>);

impl BitWriter {
    fn put(&mut self, value: u32, bits: u32) -> &mut Self {
        self.0.extend((0..bits).map(|bit| value >> bit & 1 == 1));
        self
    }

    /// Writes a prefix code of one or two symbols.
    fn put_simple_code(&mut self, symbols: &[u32]) -> &mut Self {
        self.put(1, 1).put(u32::from(symbols.len() == 2), 1);
        // This bit says that the first symbol is written in eight bits.
        self.put(1, 1);
        symbols.iter().for_each(|&symbol| {
            self.put(symbol, 8);
        });
        self
    }

    /// Writes the second prefix code, in which the lengths of the code words of another code are written.
    /// Each length from 0 to 15 has a code word of four bits.
    fn put_length_code(&mut self) -> &mut Self {
        self.put(0, 1).put(15, 4);
        // The format defines the order of the symbols. The first two and the ninth symbol stand for runs,
        // which are not used here and get no code word.
        [0, 0, 4, 4, 4, 4, 4, 4, 0].iter().for_each(|&length| {
            self.put(length, 3);
        });
        (9..19).for_each(|_| {
            self.put(4, 3);
        });
        self
    }

    /// Writes the length of a code word, in the code of [`Self::put_length_code`].
    fn put_length(&mut self, length: u8) -> &mut Self {
        self.put(u32::from(length).reverse_bits() >> 28, 4)
    }

    /// Writes a prefix code as the lengths of its code words. Symbols without an entry in `lengths` are
    /// unused.
    fn put_code_lengths(&mut self, alphabet_size: usize, lengths: &[u8]) -> &mut Self {
        self.put_length_code().put(0, 1);
        let rest = std::iter::repeat_n(&0, alphabet_size - lengths.len());
        lengths.iter().chain(rest).for_each(|&length| {
            self.put_length(length);
        });
        self
    }

    /// Writes the codes of red, blue, alpha and distance with a single symbol each.
    fn put_other_codes(&mut self) -> &mut Self {
        [0; 4].iter().for_each(|&symbol| {
            self.put_simple_code(&[symbol]);
        });
        self
    }

    /// Writes a group of five codes with a single symbol each.
    fn put_group(&mut self) -> &mut Self {
        self.put_simple_code(&[0]).put_other_codes()
    }

    /// Writes an entropy or transform image in which every pixel has this value.
    fn put_flat_image(&mut self, value: u32) -> &mut Self {
        self.put(0, 1).put_simple_code(&[value & 255]).put_simple_code(&[value >> 8]);
        [0; 3].iter().for_each(|&symbol| {
            self.put_simple_code(&[symbol]);
        });
        self
    }

    fn to_bytes(&self) -> Vec<u8> {
        self.0
            .chunks(8)
            .map(|bits| (0..).zip(bits).map(|(index, &bit)| u8::from(bit) << index).sum())
            .collect()
    }

    /// Returns the result of [`table_bytes`], or `None` for a corrupt stream. Asserts that a valid stream
    /// becomes corrupt if it is cut off anywhere.
    fn checked_table_bytes(&self, width: u32, height: u32) -> Option<u64> {
        let result = table_bytes(&self.to_bytes(), width, height).ok();
        if result.is_some() {
            for length in 0..self.to_bytes().len() {
                assert!(table_bytes(&self.to_bytes()[..length], width, height).is_err(), "{length} bytes");
            }
        }
        result
    }
}

/// Starts a stream that has no transforms, no colour cache and no entropy image.
fn plain_stream() -> BitWriter {
    let mut writer = BitWriter::default();
    writer.put(0, 3);
    writer
}

/// Starts a stream that has no transforms and no colour cache, but an entropy image for blocks of 4×4 pixels.
fn stream_with_groups() -> BitWriter {
    let mut writer = BitWriter::default();
    writer.put(0, 2).put(1, 1).put(0, 3);
    writer
}

/// Starts a stream as [`stream_with_groups`] does, and writes the codes of the entropy image.
///
/// `green_lengths` are the lengths of the code words of green. The codes of red, blue, alpha and distance
/// have a single symbol each.
fn stream_with_greens(green_lengths: &[u8]) -> BitWriter {
    let mut writer = stream_with_groups();
    writer.put(0, 1).put_code_lengths(280, green_lengths).put_other_codes();
    writer
}

#[test]
fn table_bytes_is_the_sum_over_all_codes() {
    assert_eq!(plain_stream().put_group().checked_table_bytes(1, 1), Some(GROUP_BYTES));
    let two_symbol_bytes = 2 * 4 + 2 * 32 + 32;
    assert_eq!(
        plain_stream().put_simple_code(&[3, 200]).put_other_codes().checked_table_bytes(1, 1),
        Some(GROUP_BYTES + two_symbol_bytes)
    );
    let equal_lengths =
        plain_stream().put_code_lengths(280, &[8; 256]).put_other_codes().checked_table_bytes(1, 1);
    assert_eq!(equal_lengths, Some(GROUP_BYTES + 256 * 4 + 32));
    // Six code words have more than ten bits.
    let lengths: Vec<u8> = (1..=15).chain([15]).collect();
    let long_code_words =
        plain_stream().put_code_lengths(280, &lengths).put_other_codes().checked_table_bytes(1, 1);
    assert_eq!(long_code_words, Some(GROUP_BYTES + 1024 * 4 + 6 * 32 + 32));
    // A single symbol needs no table, even if its code is written as lengths.
    assert_eq!(
        plain_stream().put_code_lengths(280, &[0, 0, 7]).put_other_codes().checked_table_bytes(1, 1),
        Some(GROUP_BYTES)
    );
}

#[test]
fn each_of_the_five_codes_of_a_group_is_counted() {
    let alphabet_sizes = [280, 256, 256, 256, 40];
    for index_with_table in 0..5 {
        let mut writer = plain_stream();
        for (index, alphabet_size) in alphabet_sizes.into_iter().enumerate() {
            if index == index_with_table {
                writer.put_code_lengths(alphabet_size, &[2; 4]);
            } else {
                writer.put_simple_code(&[0]);
            }
        }
        let expected = Some(GROUP_BYTES + 4 * 4 + 32);
        assert_eq!(writer.checked_table_bytes(1, 1), expected, "code {index_with_table}");
    }
    // The alphabet of distances has 40 symbols.
    for (symbol, fits) in [(39, true), (40, false)] {
        let mut writer = plain_stream();
        (0..4).for_each(|_| {
            writer.put_simple_code(&[0]);
        });
        assert_eq!(writer.put_simple_code(&[symbol]).checked_table_bytes(1, 1).is_some(), fits, "{symbol}");
        let mut writer = plain_stream();
        (0..4).for_each(|_| {
            writer.put_simple_code(&[0]);
        });
        assert_eq!(
            writer.put_simple_code(&[0, symbol]).checked_table_bytes(1, 1).is_some(),
            fits,
            "0 and {symbol}"
        );
    }
}

#[test]
fn colour_cache_extends_the_first_alphabet_and_invalid_sizes_are_refused() {
    for (size, fits) in [(0, false), (1, true), (11, true), (12, false), (15, false)] {
        let mut writer = BitWriter::default();
        writer.put(0, 1).put(1, 1).put(size, 4).put(0, 1);
        // The lengths are valid for every size of the cache, so that only the size can be refused.
        let cache_symbol_count = if fits { 1 << size } else { 0 };
        writer.put_code_lengths(280 + cache_symbol_count, &[1, 1]).put_other_codes();
        let expected = fits.then_some(GROUP_BYTES + 2 * 4 + 32);
        assert_eq!(writer.checked_table_bytes(1, 1), expected, "{size}");
    }
}

#[test]
fn group_count_is_the_largest_value_of_the_entropy_image_plus_one() {
    for value in [0, 1, 15] {
        let mut writer = stream_with_groups();
        writer.put_flat_image(value);
        (0..value).for_each(|_| {
            writer.put_group();
        });
        assert_eq!(writer.checked_table_bytes(16, 16), None, "{value}: one group too few");
        assert_eq!(
            writer.put_group().checked_table_bytes(16, 16),
            Some((u64::from(value) + 1) * GROUP_BYTES),
            "{value}"
        );
    }
    // Red is the higher byte of the value.
    let mut writer = stream_with_groups();
    writer.put_flat_image(0x100);
    (0..257).for_each(|_| {
        writer.put_group();
    });
    assert_eq!(writer.checked_table_bytes(68, 64), Some(257 * GROUP_BYTES));
    assert_eq!(writer.checked_table_bytes(64, 64), None, "there are only 256 blocks");
}

#[test]
fn more_groups_than_blocks_are_refused() {
    for value in [16, 0xFFFF] {
        let mut writer = stream_with_groups();
        writer.put_flat_image(value);
        (0..=value).for_each(|_| {
            writer.put_group();
        });
        assert_eq!(table_bytes(&writer.to_bytes(), 16, 16).ok(), None, "{value}");
    }
}

#[test]
fn largest_value_is_found_in_every_block_of_the_entropy_image() {
    // The greens 0 and 2 have code words of one bit. One of the four blocks has the value 2, so there are
    // three groups.
    for position in 0..4 {
        let mut writer = stream_with_greens(&[1, 0, 1]);
        (0..4).for_each(|block| {
            writer.put(u32::from(block == position), 1);
        });
        (0..3).for_each(|_| {
            writer.put_group();
        });
        assert_eq!(writer.checked_table_bytes(8, 8), Some(3 * GROUP_BYTES), "{position}");
    }
    // No block has the value 2, so there is one group.
    let mut writer = stream_with_greens(&[1, 0, 1]);
    assert_eq!(writer.put(0, 4).put_group().checked_table_bytes(8, 8), Some(GROUP_BYTES));
}

/// Starts a stream whose entropy image has `symbol_count` symbols of green, with code words of the same
/// length.
///
/// The symbols are the value 0 and `symbol_count` - 1 prefixes of the lengths of runs.
fn stream_with_runs(symbol_count: usize) -> BitWriter {
    let mut lengths = vec![0; 256 + symbol_count - 1];
    let length = u8::try_from(symbol_count.ilog2()).unwrap();
    lengths[0] = length;
    lengths[256..].fill(length);
    stream_with_greens(&lengths)
}

#[test]
fn runs_fill_the_entropy_image_exactly_or_the_stream_is_refused() {
    // The pixels of the entropy image are one literal and a run of three. This length needs no extra bits.
    let mut writer = stream_with_runs(4);
    writer.put(0, 2).put(0b11, 2).put_group();
    assert_eq!(writer.checked_table_bytes(8, 8), Some(GROUP_BYTES));
    // A literal and a run of four are one pixel too long for four blocks.
    assert_eq!(stream_with_runs(8).put(0, 3).put(0b001, 3).put_group().checked_table_bytes(8, 8), None);
    // After the literal, one extra bit selects a run of seven or eight. The entropy image has eight pixels,
    // so a run of eight is one pixel too long.
    let table_bytes_with_run = |extra_bit| {
        stream_with_runs(8).put(0, 3).put(0b011, 3).put(extra_bit, 1).put_group().checked_table_bytes(32, 4)
    };
    assert_eq!(table_bytes_with_run(0), Some(GROUP_BYTES));
    assert_eq!(table_bytes_with_run(1), None);
}

#[test]
fn incomplete_and_oversubscribed_codes_are_refused() {
    let is_accepted = |lengths: &[u8]| {
        plain_stream().put_code_lengths(280, lengths).put_other_codes().checked_table_bytes(1, 1).is_some()
    };
    assert!(is_accepted(&[1, 1]) && is_accepted(&[2, 2, 1]) && is_accepted(&[3, 3, 2, 1]));
    for (name, lengths) in [
        ("no code word", &[][..]),
        ("a code word of two bits is missing", &[1, 2]),
        ("one code word too many", &[1, 1, 1]),
        ("many code words too many", &[1; 280]),
        ("the last code word is missing", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
    ] {
        assert!(!is_accepted(lengths), "{name}");
    }
}

#[test]
fn runs_of_code_lengths_are_expanded_and_refused_past_the_end() {
    // Four symbols of the second code have code words of two bits: the length 1, a repetition of the previous
    // length (16), and runs of zeros (17 and 18).
    let table_bytes_with = |symbols: &[(u32, u32, u32)], symbol_count: Option<u32>| {
        let mut writer = plain_stream();
        writer.put(0, 1).put(15, 4);
        // The format defines the order of the symbols: 17, 18, 0, 1, 2, 3, 4, 5, 16, 6 …
        let lengths = [2, 2, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        lengths.iter().for_each(|&length| {
            writer.put(length, 3);
        });
        match symbol_count {
            Some(count) => writer.put(1, 1).put(3, 3).put(count - 2, 8),
            None => writer.put(0, 1),
        };
        for &(symbol, extra, extra_bits) in symbols {
            let index = [1, 16, 17, 18].iter().position(|&used| used == symbol).unwrap();
            let code_word = u32::try_from(index).unwrap().reverse_bits() >> 30;
            writer.put(code_word, 2).put(extra, extra_bits);
        }
        writer.put_other_codes().checked_table_bytes(1, 1)
    };
    /// The symbol for one code word of one bit.
    const ONE: (u32, u32, u32) = (1, 0, 0);
    let zeros = |count: u32| (18, count - 11, 7);
    let two_symbols = Some(GROUP_BYTES + 2 * 4 + 32);
    assert_eq!(
        table_bytes_with(&[ONE, ONE, zeros(138), zeros(138), ONE, ONE], None),
        None,
        "four code words of one bit"
    );
    assert_eq!(table_bytes_with(&[ONE, zeros(138), zeros(130), (17, 7, 3), ONE], None), two_symbols);
    assert_eq!(table_bytes_with(&[ONE, zeros(138), zeros(130), zeros(12)], None), None, "past the end");
    assert_eq!(
        table_bytes_with(&[ONE, ONE], Some(2)),
        two_symbols,
        "the lengths after the first two are left out"
    );
    assert_eq!(table_bytes_with(&[ONE, zeros(138), ONE], Some(3)), two_symbols);
    // The symbol 16 repeats the previous length three times.
    assert_eq!(table_bytes_with(&[ONE, (16, 0, 2)], Some(2)), None, "four code words of one bit");
}

#[test]
fn more_code_lengths_than_symbols_are_refused() {
    for (count, fits) in [(280, true), (281, false), (1 << 16, false)] {
        let mut writer = plain_stream();
        writer.put_length_code().put(1, 1).put(7, 3).put(count - 2, 16);
        [1, 1].iter().for_each(|&length| {
            writer.put_length(length);
        });
        (2..280).for_each(|_| {
            writer.put_length(0);
        });
        assert_eq!(writer.put_other_codes().checked_table_bytes(1, 1).is_some(), fits, "{count}");
    }
}

#[test]
fn transforms_are_skipped_and_a_repeated_transform_is_refused() {
    let table_bytes_with = |transforms: &[u32]| {
        let mut writer = BitWriter::default();
        for &transform in transforms {
            writer.put(1, 1).put(transform, 2);
            match transform {
                0 | 1 => {
                    writer.put(0, 3).put_flat_image(5);
                }
                3 => {
                    writer.put(255, 8).put_flat_image(7);
                }
                _ => {}
            }
        }
        writer.put(0, 3).put_group();
        writer.checked_table_bytes(16, 16)
    };
    assert_eq!(table_bytes_with(&[0, 1, 2, 3]), Some(GROUP_BYTES));
    assert_eq!(table_bytes_with(&[3, 2, 1, 0]), Some(GROUP_BYTES));
    for transform in 0..4 {
        assert_eq!(table_bytes_with(&[transform]), Some(GROUP_BYTES), "{transform}");
        assert_eq!(table_bytes_with(&[transform, transform]), None, "{transform} twice");
    }
}

#[test]
fn palette_of_few_colours_makes_the_coded_image_narrower() {
    // The maximum number of groups is the number of blocks of four pixels in the coded row.
    for (colour_count, block_count) in [(2, 2), (3, 4), (4, 4), (5, 8), (16, 8), (17, 16), (256, 16)] {
        for (group_count, fits) in [(block_count, true), (block_count + 1, false)] {
            let mut writer = BitWriter::default();
            writer.put(1, 1).put(3, 2).put(colour_count - 1, 8).put_flat_image(0);
            // There are no more transforms and no colour cache, but an entropy image.
            writer.put(0, 2).put(1, 1).put(0, 3).put_flat_image(group_count - 1);
            (0..group_count).for_each(|_| {
                writer.put_group();
            });
            let expected = fits.then_some(u64::from(group_count) * GROUP_BYTES);
            let found = writer.checked_table_bytes(64, 1);
            assert_eq!(found, expected, "{colour_count} colours, {group_count} groups");
        }
    }
}

#[test]
fn symbols_without_bits_are_read_in_constant_time() {
    // With sides of 2^32 - 1 pixels and blocks of 4×4 pixels, the entropy image has 2^60 pixels. All of them
    // are runs of one pixel, which need no bits. Reading the runs one by one would take years.
    let mut lengths = [0; 257];
    lengths[256] = 1;
    let mut writer = stream_with_greens(&lengths);
    writer.put_group();
    assert_eq!(table_bytes(&writer.to_bytes(), u32::MAX, u32::MAX).ok(), Some(GROUP_BYTES));
}

#[test]
fn empty_stream_is_refused() {
    assert!(table_bytes(&[], 1, 1).is_err());
    assert!(table_bytes(&[], u32::MAX, u32::MAX).is_err());
}

#[test]
fn stream_of_an_encoder_is_read_up_to_its_last_prefix_code() {
    let pixels: Vec<u8> = (0..64 * 48 * 3u32).map(|index| ((index * index) >> 7).to_le_bytes()[0]).collect();
    let mut file = Cursor::new(Vec::new());
    WebPEncoder::new_lossless(&mut file).write_image(&pixels, 64, 48, ExtendedColorType::Rgb8).unwrap();
    // The first 25 bytes are RIFF, a length, WEBP, VP8L, a length, the signature and the size.
    let stream = &file.get_ref()[25..];
    let bytes = table_bytes(stream, 64, 48).unwrap();
    assert!(bytes > GROUP_BYTES);
    // Half of the stream gives the same result, because the pixels are not read.
    assert_eq!(table_bytes(&stream[..stream.len() / 2], 64, 48).unwrap(), bytes);
}
