//! Property tests with random bytes and with damaged streams.

use proptest::prelude::*;

use super::{
    super::{GROUP_BYTES, table_bytes},
    BitWriter,
};

/// Writes one prefix code of a group. The bits of `seed` select the kind of the code, its symbols and the
/// lengths of its code words.
fn put_code(writer: &mut BitWriter, alphabet_size: usize, seed: u32) {
    match seed % 4 {
        0 => {
            writer.put_simple_code(&[seed >> 2 & 31]);
        }
        1 => {
            writer.put_simple_code(&[seed >> 2 & 31, seed >> 7 & 31]);
        }
        2 => {
            writer.put_code_lengths(alphabet_size, &vec![seed.to_le_bytes()[1] & 15; 1 << (seed >> 4 & 3)]);
        }
        _ => {
            writer.put_code_lengths(alphabet_size, &(1..=15).chain([15]).collect::<Vec<u8>>());
        }
    }
}

/// Generates streams that consist of transforms, an entropy image and groups. Each of these parts may be
/// invalid. Flips up to three bits of each stream, and cuts off the end of some streams.
fn damaged_stream() -> impl Strategy<Value = Vec<u8>> {
    let transforms = prop::collection::vec((0..4u32, 0..8u32, 0..1024u32), 0..4);
    let code_seeds = prop::collection::vec(any::<u32>(), 0..12);
    let flips = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (transforms, prop::option::of(0..6u32), code_seeds, flips, any::<prop::sample::Index>(), any::<bool>())
        .prop_map(|(transforms, largest_group, code_seeds, flips, end, is_cut)| {
            let mut writer = BitWriter::default();
            for (transform, block_bits, value) in transforms {
                writer.put(1, 1).put(transform, 2);
                match transform {
                    0 | 1 => {
                        writer.put(block_bits, 3).put_flat_image(value);
                    }
                    3 => {
                        writer.put(value & 255, 8).put_flat_image(value);
                    }
                    _ => {}
                }
            }
            writer.put(0, 2);
            match largest_group {
                Some(number) => {
                    writer.put(1, 1).put(0, 3).put_flat_image(number);
                }
                None => {
                    writer.put(0, 1);
                }
            }
            let alphabet_sizes = [280, 256, 256, 256, 40].into_iter().cycle();
            for (&seed, alphabet_size) in code_seeds.iter().zip(alphabet_sizes) {
                put_code(&mut writer, alphabet_size, seed);
            }
            for flip in flips {
                let index = flip.index(writer.0.len());
                writer.0[index] = !writer.0[index];
            }
            let mut bytes = writer.to_bytes();
            if is_cut {
                bytes.truncate(end.index(bytes.len()));
            }
            bytes
        })
}

fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..512), damaged_stream()]
}

fn any_side() -> impl Strategy<Value = u32> {
    prop_oneof![1..64u32, 1..=16_384u32]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    /// Asserts that no stream causes a panic, that the tables are no larger than the bits of the stream can
    /// describe, and that bytes after the last prefix code do not change the result.
    #[test]
    fn any_stream_is_refused_or_gives_tables_no_larger_than_its_bits_allow(
        stream in any_stream(),
        width in any_side(),
        height in any_side(),
        more in prop::collection::vec(any::<u8>(), 1..16),
    ) {
        /// Minimum length of a group in bits: five prefix codes of one symbol, with four bits each.
        const MIN_GROUP_BITS: u64 = 20;
        /// Maximum number of bytes for one prefix code: a table of 1024 entries, the overhead of the
        /// allocations, and two nodes for each symbol of the longest alphabet.
        const MAX_CODE_BYTES: u64 = 4096 + 32 + 32 * (280 + 2048);
        let result = table_bytes(&stream, width, height).ok();
        if let Some(bytes) = result {
            let max_groups = 8 * stream.len() as u64 / MIN_GROUP_BITS;
            prop_assert!((GROUP_BYTES..=max_groups * (GROUP_BYTES + 5 * MAX_CODE_BYTES)).contains(&bytes));
            prop_assert_eq!(table_bytes(&[&stream[..], &more].concat(), width, height).ok(), result);
        }
    }
}
