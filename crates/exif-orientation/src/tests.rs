//! Tests with every way to store an orientation, and with damaged and random data.

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::Config,
};

use super::{
    ENTRY_BYTES, ORIENTATION, OrientationSources, PREFIX, png::MAX_CHUNKS, read_png_orientation,
    xmp::MAX_XMP_BYTES,
};
use crate::testing::{BYTE, ByteOrder, Entry, LONG, SHORT, exif, png_chunk, png_xmp_chunk, xmp_packets};

const ASCII: u16 = 2;
const SIGNED_SHORT: u16 = 8;

/// An entry that precedes the orientation in files of cameras: the offset of the maker's name.
const MAKER: Entry = (0x10F, ASCII, 5, 8);

fn read_orientation(exif: &[u8]) -> Option<u8> {
    OrientationSources { exif: Some(exif), xmp: None }.orientation()
}

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

fn read_xmp(packet: &[u8]) -> Option<u8> {
    OrientationSources { exif: None, xmp: Some(packet) }.orientation()
}

#[test]
fn orientation_in_xmp_is_one_digit_in_an_attribute_or_an_element() {
    for orientation in 1..=8 {
        for packet in xmp_packets(orientation) {
            assert_eq!(read_xmp(&packet), Some(orientation), "{}", packet.escape_ascii());
        }
    }
    for (packet, expected) in [
        ("tiff:Orientation=\"0\" tiff:Orientation=\"6\"", None),
        ("tiff:Orientation=\"9\"   ", None),
        ("tiff:Orientation=\"60\"  ", None),
        ("tiff:Orientation>60</tiff:Orientation>", None),
        ("tiff:Orientation='6'   ", None),
        ("tiff:Orientation=\"x\" tiff:Orientation=\"6\"", Some(6)),
        ("tiff:Orientation>6</tiff:Orientation><tiff:Orientation>3<", Some(6)),
        ("tiff:Orientation=\"6", None),
        ("", None),
    ] {
        assert_eq!(read_xmp(packet.as_bytes()), expected, "{packet}");
    }
}

#[test]
fn xmp_is_searched_up_to_its_limit() {
    let attribute = b"tiff:Orientation=\"6\"";
    let found = |offset: usize| read_xmp(&[&vec![b' '; offset], &attribute[..], &[b' '; 9]].concat());
    assert_eq!(found(MAX_XMP_BYTES - attribute.len()), Some(6));
    assert_eq!(found(MAX_XMP_BYTES - attribute.len() + 1), None);
}

#[test]
fn xmp_counts_only_if_exif_has_no_orientation() {
    let [packet, _] = xmp_packets(6);
    let read = |exif: &[u8]| OrientationSources { exif: Some(exif), xmp: Some(&packet) }.orientation();
    for byte_order in ByteOrder::ALL {
        assert_eq!(read(&write_block(byte_order, 8, &[orientation_entry(1, SHORT)])), Some(1));
        assert_eq!(read(&write_block(byte_order, 8, &[orientation_entry(9, SHORT)])), None, "invalid EXIF");
        assert_eq!(read(&write_block(byte_order, 8, &[MAKER])), Some(6), "EXIF without an orientation");
        assert_eq!(read(&byte_order.tiff_header(1000)), Some(6), "damaged EXIF");
    }
}

fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
    [b"\x89PNG\r\n\x1a\n", &chunks.concat()[..]].concat()
}

#[test]
fn damaged_chunk_and_other_text_of_a_png_are_ignored() {
    let [packet, _] = xmp_packets(6);
    let mut chunks = vec![png_chunk(b"eXIf", &exif(6, ByteOrder::BigEndian, SHORT))];
    chunks.extend([false, true].map(|is_compressed| png_xmp_chunk(&packet, is_compressed)));
    for chunk in chunks {
        let rest = png_chunk(b"IDAT", b"");
        assert_eq!(read_png_orientation(&png(&[rest.clone(), chunk.clone()])), Some(6));
        let mut wrong_checksum = chunk.clone();
        *wrong_checksum.last_mut().unwrap() ^= 1;
        assert_eq!(read_png_orientation(&png(&[rest.clone(), wrong_checksum])), None);
        let file = png(&[rest, chunk]);
        assert_eq!(read_png_orientation(&file[..file.len() - 1]), None, "cut off");
    }
    for data in [
        [b"Comment\0\0\0\0\0", &packet[..]].concat(),
        [b"XML:com.adobe.xmp\0\x01\x01\0\0", &packet[..]].concat(),
        [b"XML:com.adobe.xmp\0\x01\0\0\0", &packet[..]].concat(),
        b"XML:com.adobe.xmp\0\0\0\0".to_vec(),
        b"XML:com.adobe.xmp".to_vec(),
    ] {
        assert_eq!(read_png_orientation(&png(&[png_chunk(b"iTXt", &data)])), None, "{}", data.escape_ascii());
    }
}

#[test]
fn last_xmp_of_a_png_counts_and_first_exif() {
    let [xmp_3, _] = xmp_packets(3).map(|packet| png_xmp_chunk(&packet, true));
    let [xmp_6, _] = xmp_packets(6).map(|packet| png_xmp_chunk(&packet, false));
    assert_eq!(read_png_orientation(&png(&[xmp_3, xmp_6.clone()])), Some(6));
    let [exif_2, exif_8] = [2, 8].map(|value| png_chunk(b"eXIf", &exif(value, ByteOrder::BigEndian, SHORT)));
    assert_eq!(read_png_orientation(&png(&[exif_2, exif_8, xmp_6])), Some(2));
}

#[test]
fn chunks_of_a_png_are_searched_up_to_their_limit() {
    let exif = png_chunk(b"eXIf", &exif(6, ByteOrder::BigEndian, SHORT));
    let found =
        |count: usize| read_png_orientation(&png(&[png_chunk(b"IDAT", b"").repeat(count), exif.clone()]));
    assert_eq!(found(MAX_CHUNKS - 1), Some(6));
    assert_eq!(found(MAX_CHUNKS), None);
}

#[test]
fn compressed_xmp_that_is_too_long_is_searched_up_to_its_limit() {
    let [packet, _] = xmp_packets(6);
    for (packet, expected) in [
        ([&packet[..], &vec![b' '; 10 << 20]].concat(), Some(6)),
        ([&vec![b' '; 10 << 20], &packet[..]].concat(), None),
    ] {
        assert_eq!(read_png_orientation(&png(&[png_xmp_chunk(&packet, true)])), expected);
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
