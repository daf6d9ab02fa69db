//! Tests of pictures that are coded with AV1.

use super::{
    COLOURS, decode,
    hostile::{assert_corrupt, assert_unsupported, coded_pixels, process},
    test_file::{Bits, SIDE, TestFile, TestItem, ispe},
};
use crate::{Error, Plan, is_avif};

/// A picture of 64×64 pixels in 4:4:4 with the quarters of `quarters.heic`. libavif wrote the file.
const QUARTERS: &[u8] = include_bytes!("quarters.avif");

/// Types of OBUs.
const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const METADATA: u8 = 5;
const FRAME: u8 = 6;
const PADDING: u8 = 15;

fn picture(id: u16) -> TestItem {
    TestItem::from_file(QUARTERS, id, b"av01", b"av1C")
}

fn file_with(item: TestItem) -> TestFile {
    TestFile { items: vec![item], ..TestFile::with_picture() }
}

fn config(obus: &[u8]) -> Vec<u8> {
    [&[0x81, 0, 0, 0], obus].concat()
}

/// Writes an OBU of at most 127 bytes.
fn obu(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
}

/// Writes the sequence header of a still picture in 4:2:0 with 8 bits, whose only frame is shown.
fn sequence_header(width: u32, height: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    // The profile, a still picture with a reduced header, and the level.
    bits.write(0b11, 5);
    bits.write(8, 5);
    write_sizes(&mut bits, width, height);
    // Small superblocks without tools, 8 bits, no colours, limited range, chroma of an unknown position.
    bits.write(0, 6);
    bits.write(0, 8);
    bits.write(0x80, 8);
    obu(SEQUENCE_HEADER, &bits.bytes)
}

/// Writes the sequence header of several frames in 4:2:0 with 8 bits. `layers` has a bit for each spatial layer.
fn sequence_header_of_frames(width: u32, height: u32, layers: u64) -> Vec<u8> {
    let mut bits = Bits::default();
    // The profile, neither a still picture nor a reduced header, no times, and one operating point.
    bits.write(0, 3 + 2 + 2 + 5);
    bits.write(layers << 8, 12);
    bits.write(0, 5);
    write_sizes(&mut bits, width, height);
    // No frame ids. Small superblocks without tools and without the order of frames.
    bits.write(0, 1 + 3 + 5);
    // Frames choose the tools for screen content.
    bits.write(0b11, 2);
    // The rest is as in a reduced header.
    bits.write(0, 3 + 8);
    bits.write(0x80, 8);
    obu(SEQUENCE_HEADER, &bits.bytes)
}

fn write_sizes(bits: &mut Bits, width: u32, height: u32) {
    bits.write(15, 4);
    bits.write(15, 4);
    bits.write(u64::from(width) - 1, 16);
    bits.write(u64::from(height) - 1, 16);
}

/// Returns a file whose configuration and data contain these OBUs.
fn file_of(config_obus: &[u8], data: &[u8], size: (u32, u32)) -> TestFile {
    let properties = vec![(b"av1C", config(config_obus)), (b"ispe", ispe(size.0, size.1))];
    file_with(TestItem { properties, extents: vec![data.to_vec()], ..picture(1) })
}

#[test]
fn coded_picture_has_its_colours() {
    assert!(is_avif(QUARTERS) && !is_avif(super::QUARTERS));
    let (pixels, _) = decode(&file_with(picture(1)));
    for (index, expected) in [16 + 16 * 64, 48 + 16 * 64, 16 + 48 * 64, 48 + 48 * 64].into_iter().zip(COLOURS)
    {
        let near = pixels[index].iter().zip(expected).all(|(&a, b)| a.abs_diff(b) <= 4);
        assert!(near, "{index}: {:?} is not {expected:?}", pixels[index]);
    }
    let mut plan = file_with(picture(1));
    assert_eq!(coded_pixels(&plan), u64::from(SIDE * SIDE));
    // The data in several extents is the same.
    let data = plan.items[0].extents[0].clone();
    plan.items[0].extents = data.chunks(7).map(<[u8]>::to_vec).collect();
    assert_eq!(decode(&plan).0, pixels);
}

#[test]
fn alpha_item_becomes_the_alpha_channel() {
    let mut file = file_with(picture(1));
    file.items.push(picture(2).with_alpha_name());
    file.references.push((b"auxl", 2, vec![1]));
    let (_, alpha) = decode(&file);
    // Yellow is brighter than blue.
    assert!(alpha[48 * 64 + 48] > 180 && alpha[48 * 64 + 16] < 100, "{alpha:?}");
    assert_eq!(coded_pixels(&file), u64::from(2 * SIDE * SIDE));
}

#[test]
fn coded_pixels_are_the_maximum_of_all_sequence_headers_for_each_frame() {
    let header = |side| sequence_header_of_frames(side, side, 1);
    let (small, large) = (header(64), header(4096));
    // The frame is hidden.
    let frame = obu(FRAME, &[0; 9]);
    let pixels = |data: &[&[u8]]| coded_pixels(&file_of(&[], &data.concat(), (64, 64)));
    assert_eq!(pixels(&[&small, &frame]), 1 << 12);
    assert_eq!(pixels(&[&large, &frame]), 1 << 24);
    assert_eq!(pixels(&[&large, &small, &frame]), 1 << 24);
    // Each frame is decoded, even if it is not shown.
    assert_eq!(pixels(&[&large, &frame, &frame, &frame]), 3 << 24);
    let file = file_of(&[], &[large, frame.clone(), frame].concat(), (64, 64)).write();
    assert!(Plan::read(&file).unwrap().decoder_bytes() > 3 << 24);
}

#[test]
fn frames_behind_the_shown_one_count_only_if_the_stream_has_layers() {
    const SHOWN: u8 = 0x10;
    const SHOWS_EXISTING: u8 = 0x80;
    let (hidden, shown) = (obu(FRAME, &[0; 9]), obu(FRAME, &[SHOWN; 9]));
    let existing = obu(FRAME_HEADER, &[SHOWS_EXISTING]);
    let delimiter = obu(TEMPORAL_DELIMITER, &[]);
    let frame_count = |layers, frames: &[&[u8]]| {
        let data = [sequence_header_of_frames(64, 64, layers), frames.concat()].concat();
        coded_pixels(&file_of(&[], &data, (64, 64))) >> 12
    };
    for layers in [0, 1] {
        assert_eq!(frame_count(layers, &[&hidden, &shown, &hidden]), 2);
        assert_eq!(frame_count(layers, &[&shown, &delimiter, &shown]), 1);
        assert_eq!(frame_count(layers, &[&hidden, &existing, &shown]), 2);
    }
    assert_eq!(frame_count(0b11, &[&shown, &shown, &hidden]), 3);
    // The only frame of a reduced header is always shown.
    let data = [sequence_header(64, 64), hidden.repeat(20)].concat();
    assert_eq!(coded_pixels(&file_of(&[], &data, (64, 64))), 1 << 12);
}

#[test]
fn picture_without_a_size_is_refused() {
    assert_corrupt(&file_of(&sequence_header(64, 64), &obu(FRAME, &[0; 9]), (64, 64)), "states no size");
}

/// libavif stretches the picture.
#[test]
fn picture_of_another_size_than_its_item_keeps_its_pixels() {
    let (pixels, _) = decode(&file_with(picture(1)));
    for size in [(32, 32), (100, 30), (300, 200)] {
        let mut file = file_with(picture(1));
        file.items[0].properties[1].1 = ispe(size.0, size.1);
        assert_eq!(decode(&file).0, pixels);
        let bytes = file.write();
        let plan = Plan::read(&bytes).unwrap();
        assert_eq!((plan.size(), plan.decoded_size()), (size, (SIDE, SIDE)));
        assert_eq!((plan.crop().width, plan.crop().height), size);
        assert_eq!(coded_pixels(&file), u64::from(SIDE * SIDE));
    }
}

#[test]
fn largest_sizes_do_not_overflow() {
    let side = 1 << 15;
    let header = [sequence_header_of_frames(side, side, 0), obu(FRAME, &[0; 9]).repeat(16)].concat();
    let file = file_of(&[], &header, (side, side));
    assert_eq!(coded_pixels(&file), 16 << 30);
    assert!(Plan::read(&file.write()).unwrap().decoder_bytes() > 16 << 30);
    for (width, height) in [(side + 1, 1), (1, 1 << 16)] {
        assert_unsupported(&file_of(&[], &sequence_header(width, height), (1, 1)), "side above");
    }
}

#[test]
fn units_and_frames_are_limited_in_number() {
    let header = sequence_header_of_frames(64, 64, 0);
    let file = |kind: u8, count: usize| {
        file_of(&[], &[&header[..], &obu(kind, &[0; 2]).repeat(count)].concat(), (64, 64))
    };
    assert!(Plan::read(&file(PADDING, 1023).write()).is_ok());
    assert_unsupported(&file(PADDING, 1024), "more than 1024 units");
    assert!(Plan::read(&file(FRAME, 16).write()).is_ok());
    assert_unsupported(&file(FRAME, 17), "more than 16 frames");
}

#[test]
fn metadata_does_not_reach_the_decoder() {
    let mut item = picture(1);
    let data = item.extents.concat();
    let (delimiter, frames) = data.split_at(2);
    // Metadata by ITU-T T.35 without any byte of its payload. A length of two bytes is the longer way to write it.
    for metadata in [obu(METADATA, &[4, 0x80]), vec![METADATA << 3 | 2, 0x82, 0, 4, 0x80]] {
        item.extents = vec![[delimiter, &metadata, frames].concat()];
        let file = file_with(item);
        assert_eq!(decode(&file), decode(&file_with(picture(1))));
        item = picture(1);
    }
}

#[test]
fn frame_of_a_redundant_header_does_not_reach_the_decoder() {
    let file = include_bytes!("../../../../fuzz/corpus/heif_picture/avif_redundant_frame_header");
    // The tiles remain, but no header.
    process(file).map(drop).unwrap_err();
}

#[test]
fn damaged_units_are_refused() {
    let header = sequence_header(64, 64);
    assert_corrupt(&file_of(&[], &header[..6], (64, 64)), "ends too early");
    // Longer than the data, and a length of more than eight bytes.
    let too_long = [&header[..], &[FRAME << 3 | 2, 100, 0]].concat();
    assert_corrupt(&file_of(&[], &too_long, (64, 64)), "ends too early");
    let endless = [&header[..], &[FRAME << 3 | 2], &[0x80; 9]].concat();
    assert_corrupt(&file_of(&[], &endless, (64, 64)), "too many bytes");
    let long = obu(SEQUENCE_HEADER, &[0; 127]).split_off(2).repeat(9);
    let long = [&[SEQUENCE_HEADER << 3 | 2, 0xF7, 8], &long[..]].concat();
    assert_corrupt(&file_of(&[], &long, (64, 64)), "sequence header is too long");
    for length in 0..QUARTERS.len() {
        assert!(process(&QUARTERS[..length]).is_err(), "{length} bytes");
    }
    process(QUARTERS).unwrap();
}

/// libavif reads only the fields in front of the units.
#[test]
fn units_in_the_configuration_are_ignored() {
    let expected = decode(&file_with(picture(1)));
    let header = sequence_header(4096, 4096);
    for units in [&header[..], &header[..5], &[0xFF; 20], &[FRAME << 3 | 2, 0x80], &[0; 100_000]] {
        let mut file = file_with(picture(1));
        file.items[0].properties[0].1 = config(units);
        assert_eq!(decode(&file), expected, "{units:?}");
        assert_eq!(coded_pixels(&file), u64::from(SIDE * SIDE));
    }
    let mut short = file_with(picture(1));
    short.items[0].properties[0].1.truncate(3);
    assert_corrupt(&short, "ends too early");
}

#[test]
fn bytes_behind_the_shown_frame_are_ignored() {
    let expected = decode(&file_with(picture(1)));
    let data = picture(1).extents.concat();
    let other_frame = obu(FRAME, &[0; 9]);
    for rest in [
        &[0; 7][..],
        &[0xFF; 9],
        b"\x32",
        b"trailing text",
        &[FRAME << 3 | 2, 100, 1],
        &[[FRAME << 3 | 2].as_slice(), &[0x80; 9]].concat(),
        &obu(SEQUENCE_HEADER, &[0xFF; 3]),
        &sequence_header(4096, 4096),
        &obu(METADATA, &[4, 0x80]),
        &obu(PADDING, &[]).repeat(2000),
        &other_frame.repeat(40),
        &data.repeat(20),
        &data[..data.len() / 2],
    ] {
        let mut file = file_with(picture(1));
        file.items[0].extents[0].extend(rest);
        assert_eq!(decode(&file), expected, "{rest:?}");
        assert_eq!(coded_pixels(&file), u64::from(SIDE * SIDE));
    }
}

/// The alpha channel is the brightness of its item.
#[test]
fn unknown_colour_matrix_of_an_alpha_item_is_ignored() {
    let mut file = file_with(picture(1));
    file.items.push(picture(2).with_alpha_name());
    file.references.push((b"auxl", 2, vec![1]));
    let expected = decode(&file);
    for matrix in [0, 3, 8, 14, 77] {
        let mut file = file.clone();
        let nclx = [b"nclx\0\x01\0\x0D\0", &[matrix, 0x80][..]].concat();
        file.items[1].properties.push((b"colr", nclx.clone()));
        assert_eq!(decode(&file), expected, "{matrix}");
        file.items[0].properties.push((b"colr", nclx));
        assert_eq!(process(&file.write()).is_err(), matrix != 0, "{matrix}");
    }
}

#[test]
fn alpha_in_av1_of_a_tile_in_hevc_is_named() {
    let mut grid = TestFile::with_grid((1, 2), (128, 64));
    grid.items.push(picture(2).with_alpha_name());
    grid.references.push((b"auxl", 2, vec![1]));
    assert_unsupported(&grid, "a grid in AVIF");
    // Without a grid, the codecs may differ.
    let mut mixed = TestFile::with_picture();
    mixed.items.push(picture(2).with_alpha_name());
    mixed.references.push((b"auxl", 2, vec![1]));
    assert!(decode(&mixed).1[48 * 64 + 16] < 100);
}

#[test]
fn frame_above_the_size_in_its_sequence_header_is_refused_in_plain_words() {
    // A shown key frame that chooses its size: the bits in front of the size, 256×256, and the same size for display.
    let mut bits = Bits::default();
    bits.write(0b000_1001, 7);
    bits.write(255, 16);
    bits.write(255, 16);
    bits.write(0, 64);
    let data = [sequence_header_of_frames(64, 64, 0), obu(FRAME, &bits.bytes)].concat();
    let error = process(&file_of(&[], &data, (64, 64)).write()).unwrap_err();
    assert_eq!(error.to_string(), "AV1: a frame is damaged, or larger than its sequence header states");
}

#[test]
fn grids_and_selected_layers_are_named() {
    let mut grid = TestFile::with_grid((1, 2), (128, 64));
    grid.items[0] = picture(1);
    assert_unsupported(&grid, "a grid in AVIF");
    // Between the grid and its tiles, there can be another item.
    grid.items.push(TestItem { kind: b"iden", extents: vec![], ..picture(2) });
    grid.references = vec![(b"dimg", 100, vec![2, 2]), (b"dimg", 2, vec![1])];
    assert_unsupported(&grid, "a grid in AVIF");
    assert_unsupported(&file_with(picture(1).with(b"lsel", [0, 1])), "one layer is selected");
    process(&file_with(picture(1).with(b"lsel", [0xFF, 0xFF])).write()).unwrap();
    process(&file_with(picture(1).with(b"a1op", [0])).write()).unwrap();
    let operating_point = file_with(picture(1).with(b"a1op", [32])).write();
    assert!(matches!(process(&operating_point), Err(Error::Av1(_))));
}
