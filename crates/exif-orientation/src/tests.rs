//! Tests with every way to store an orientation, and with damaged and random data.

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::Config,
};

use super::{ENTRY_BYTES, ORIENTATION, PREFIX, read_orientation};
use crate::testing::{BYTE, ByteOrder, Entry, LONG, SHORT};

const ASCII: u16 = 2;
const SIGNED_SHORT: u16 = 8;

/// An entry that precedes the orientation in files of cameras: the offset of the maker's name.
const MAKER: Entry = (0x10F, ASCII, 5, 8);

fn orientation_entry(value: u32, value_type: u16) -> Entry {
    (ORIENTATION, value_type, 1, value)
}

/// Writes a TIFF structure whose directory begins at `directory_offset`.
fn write_block(byte_order: ByteOrder, directory_offset: usize, entries: &[Entry]) -> Vec<u8> {
    let mut block = byte_order.tiff_header(u32::try_from(directory_offset).unwrap());
    block.resize(directory_offset, 0xAA);
    block.extend(byte_order.tiff_directory(entries));
    block
}

#[test]
fn orientation_is_read_with_every_prefix_byte_order_type_and_place() {
    for byte_order in ByteOrder::ALL {
        for value_type in [BYTE, SHORT, LONG] {
            for orientation in 1..=8 {
                let entry = orientation_entry(orientation.into(), value_type);
                for (offset, entries) in
                    [(8, vec![entry]), (9, vec![MAKER, entry]), (70_000, vec![entry, MAKER])]
                {
                    let block = write_block(byte_order, offset, &entries);
                    for prefix in [&b""[..], b"Exif\0\0", b"Exif\0\0Exif\0\0"] {
                        let block = [prefix, &block].concat();
                        assert_eq!(read_orientation(&block), Some(orientation), "{:x?}", &block[..32]);
                    }
                }
            }
        }
    }
}

#[test]
fn invalid_orientation_is_ignored() {
    for byte_order in ByteOrder::ALL {
        let read = |entries: &[Entry]| read_orientation(&write_block(byte_order, 8, entries));
        for (value, value_type) in [
            (0, BYTE),
            (9, BYTE),
            (0, SHORT),
            (9, SHORT),
            (0x106, SHORT),
            (0x600, SHORT),
            (0, LONG),
            (0x10006, LONG),
            (u32::MAX, LONG),
            (6, ASCII),
            (6, SIGNED_SHORT),
        ] {
            let entry = orientation_entry(value, value_type);
            assert_eq!(read(&[entry]), None, "{value} of type {value_type}");
            let valid = orientation_entry(6, SHORT);
            assert_eq!(read(&[entry, valid]), Some(6), "a valid entry after {value} of type {value_type}");
        }
        for value_count in [0, 2, u32::MAX] {
            assert_eq!(read(&[(ORIENTATION, SHORT, value_count, 6)]), None, "{value_count} values");
        }
        assert_eq!(read(&[(ORIENTATION + 1, SHORT, 1, 6)]), None, "another tag");
        assert_eq!(read(&[]), None);
        // Only the first directory counts. The second one describes the thumbnail.
        let mut block = write_block(byte_order, 8, &[MAKER]);
        let second = block.len();
        block.splice(second - 4.., byte_order.long(u32::try_from(second).unwrap()));
        block.extend(&write_block(byte_order, 8, &[orientation_entry(6, SHORT)])[8..]);
        assert_eq!(read_orientation(&block), None);
    }
    for other in [&b"II\0*\x08\0\0\0"[..], b"MM*\0\0\0\0\x08", b"II+\0\x08\0\0\0", b"Exif\0\xFFII*\0"] {
        assert_eq!(read_orientation(other), None, "{other:x?}");
    }
}

#[test]
fn truncated_block_has_an_orientation_only_if_its_entry_is_whole() {
    for byte_order in ByteOrder::ALL {
        let whole = write_block(byte_order, 8, &[MAKER, orientation_entry(6, SHORT)]);
        let end_of_entry = 8 + 2 + 2 * ENTRY_BYTES;
        for length in 0..=whole.len() {
            let expected = (length >= end_of_entry).then_some(6);
            assert_eq!(read_orientation(&whole[..length]), expected, "{length} bytes");
        }
    }
}

#[test]
fn directory_in_its_own_header_or_beyond_the_data_is_ignored() {
    for byte_order in ByteOrder::ALL {
        for offset in [0, 1, 4, 7, 1000, u32::MAX - 1, u32::MAX] {
            let mut block = write_block(byte_order, 8, &[orientation_entry(6, SHORT)]);
            block.splice(4..8, byte_order.long(offset));
            assert_eq!(read_orientation(&block), None, "{offset}");
        }
    }
}

/// Generates valid blocks with some bytes overwritten, and truncated.
fn damaged_block() -> impl Strategy<Value = Vec<u8>> {
    let blocks: Vec<Vec<u8>> = ByteOrder::ALL
        .into_iter()
        .flat_map(|order| {
            [BYTE, SHORT, LONG].map(|kind| write_block(order, 8, &[MAKER, orientation_entry(6, kind)]))
        })
        .flat_map(|block| [[PREFIX, &block].concat(), block])
        .collect();
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    (select(blocks), changes, any::<Index>()).prop_map(|(mut block, changes, length)| {
        for (position, byte) in changes {
            let index = position.index(block.len());
            block[index] = byte;
        }
        block.truncate(length.index(block.len() + 1));
        block
    })
}

/// Generates random bytes after a signature.
fn random_block() -> impl Strategy<Value = Vec<u8>> {
    let signature = select(vec![
        &b""[..],
        b"Exif\0\0",
        b"II*\0",
        b"MM\0*",
        b"II*\0\x08\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08",
    ]);
    (signature, prop::collection::vec(any::<u8>(), 0..256))
        .prop_map(|(signature, bytes)| [signature, &bytes].concat())
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_bytes_give_a_valid_orientation_or_none(block in prop_oneof![random_block(), damaged_block()]) {
        prop_assert!(read_orientation(&block).is_none_or(|orientation| (1..=8).contains(&orientation)));
    }
}
