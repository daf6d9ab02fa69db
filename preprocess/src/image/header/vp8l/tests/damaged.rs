//! Property tests with random bytes and with damaged streams.

use proptest::prelude::*;

use super::{
    super::{GROUP_BYTES, table_bytes},
    Writer,
};

/// Writes one prefix code of a group. The number `kind` determines the code.
fn put_code(writer: &mut Writer, alphabet: usize, kind: u32) {
    match kind % 4 {
        0 => {
            writer.simple(&[kind >> 2 & 31]);
        }
        1 => {
            writer.simple(&[kind >> 2 & 31, kind >> 7 & 31]);
        }
        2 => {
            writer.lengths(alphabet, &vec![kind.to_le_bytes()[1] & 15; 1 << (kind >> 4 & 3)]);
        }
        _ => {
            writer.lengths(alphabet, &(1..=15).chain([15]).collect::<Vec<u8>>());
        }
    }
}

/// Generates streams of transforms, an entropy image and groups, each of which may be invalid. In each
/// stream, some bits are flipped, and the end may be cut off.
fn damaged_stream() -> impl Strategy<Value = Vec<u8>> {
    let transforms = prop::collection::vec((0..4u32, 0..8u32, 0..1024u32), 0..4);
    let groups = prop::collection::vec(any::<u32>(), 0..12);
    let noise = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (transforms, prop::option::of(0..6u32), groups, noise, any::<prop::sample::Index>(), any::<bool>())
        .prop_map(|(transforms, largest, kinds, flips, end, cut)| {
            let mut writer = Writer::default();
            for (transform, block_bits, value) in transforms {
                writer.put(1, 1).put(transform, 2);
                match transform {
                    0 | 1 => {
                        writer.put(block_bits, 3).flat_image(value);
                    }
                    3 => {
                        writer.put(value & 255, 8).flat_image(value);
                    }
                    _ => {}
                }
            }
            writer.put(0, 2);
            match largest {
                Some(largest) => {
                    writer.put(1, 1).put(0, 3).flat_image(largest);
                }
                None => {
                    writer.put(0, 1);
                }
            }
            let alphabets = [280, 256, 256, 256, 40].into_iter().cycle();
            for (&kind, alphabet) in kinds.iter().zip(alphabets) {
                put_code(&mut writer, alphabet, kind);
            }
            for flip in flips {
                let at = flip.index(writer.0.len());
                writer.0[at] = !writer.0[at];
            }
            let mut bytes = writer.bytes();
            if cut {
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

    /// Asserts that no stream causes a panic, that the tables are no larger than the bits can describe, and
    /// that bytes after the last code do not change the result.
    #[test]
    fn any_stream_is_refused_or_gives_tables_no_larger_than_its_bits_allow(
        stream in any_stream(),
        width in any_side(),
        height in any_side(),
        more in prop::collection::vec(any::<u8>(), 1..16),
    ) {
        /// Minimum length of a group in bits: five codes of one symbol, with four bits each.
        const MIN_GROUP_BITS: u64 = 20;
        /// Maximum number of bytes for one code, that is, for the longest alphabet with the longest codes.
        const MAX_CODE_BYTES: u64 = 4096 + 32 + 32 * (280 + 2048);
        let result = table_bytes(&stream, width, height).ok();
        if let Some(bytes) = result {
            let groups = 8 * stream.len() as u64 / MIN_GROUP_BITS;
            prop_assert!((GROUP_BYTES..=groups * (GROUP_BYTES + 5 * MAX_CODE_BYTES)).contains(&bytes));
            prop_assert_eq!(table_bytes(&[&stream[..], &more].concat(), width, height).ok(), result);
        }
    }
}
