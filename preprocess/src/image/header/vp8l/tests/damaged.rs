//! Any bytes, and streams that were damaged.

use proptest::prelude::*;

use super::{
    super::{GROUP_BYTES, table_bytes},
    Writer,
};

/// A code of a group, by one number.
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

/// Much like a stream: transforms, an entropy image and groups of codes, each with what may be wrong with
/// it; then some bits are turned and the end is cut off.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
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
                        writer.put(block_bits, 3).flat_picture(value);
                    }
                    3 => {
                        writer.put(value & 255, 8).flat_picture(value);
                    }
                    _ => {}
                }
            }
            writer.put(0, 2);
            match largest {
                Some(largest) => {
                    writer.put(1, 1).put(0, 3).flat_picture(largest);
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
    prop_oneof![prop::collection::vec(any::<u8>(), 0..512), damaged()]
}

fn any_side() -> impl Strategy<Value = u32> {
    prop_oneof![1..64u32, 1..=16_384u32]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    /// No panic, no more tables than the bits can describe, and an answer that stands when more follows:
    /// the bits behind the end were never looked at.
    #[test]
    fn any_stream_has_an_answer(
        stream in any_stream(),
        width in any_side(),
        height in any_side(),
        more in prop::collection::vec(any::<u8>(), 1..16),
    ) {
        /// A code of one symbol takes four bits, and a group has five.
        const GROUP_BITS: u64 = 20;
        /// The longest alphabet there is, with codes as long as they can be.
        const MOST_OF_A_CODE: u64 = 4096 + 32 + 32 * (280 + 2048);
        let found = table_bytes(&stream, width, height).ok();
        if let Some(bytes) = found {
            let groups = 8 * stream.len() as u64 / GROUP_BITS;
            prop_assert!((GROUP_BYTES..=groups * (GROUP_BYTES + 5 * MOST_OF_A_CODE)).contains(&bytes));
            prop_assert_eq!(table_bytes(&[&stream[..], &more].concat(), width, height).ok(), found);
        }
    }
}
