//! Tests of sequences.

use super::{
    decode_bytes as decode,
    hostile::{plan_error, process},
    quarters,
    test_file::{SIDE, TestFile, hvcc, ispe, sps, write_box},
    test_sequence::{DATA_OFFSET, TestSequence, TestTrack},
};
use crate::{ColourSpace, Error, Plan, boxes::Boxes};

/// Returns the offset of the content of the first box of this type in `stbl`.
fn find_table(file: &[u8], kind: &[u8; 4]) -> usize {
    file.windows(4).position(|window| window == kind).unwrap() + 4
}

/// Replaces four bytes of the first box of this type, `offset` bytes behind its header.
fn with_number(file: &[u8], kind: &[u8; 4], offset: usize, number: u32) -> Vec<u8> {
    let mut file = file.to_vec();
    let start = find_table(&file, kind) + offset;
    file[start..start + 4].copy_from_slice(&number.to_be_bytes());
    file
}

#[track_caller]
fn assert_corrupt(file: &[u8], reason: &str) {
    let error = plan_error(file);
    assert!(matches!(error, Error::Corrupt(found) if found.contains(reason)), "{error}");
}

#[track_caller]
fn assert_unsupported(file: &[u8], reason: &str) {
    let error = plan_error(file);
    assert!(error.is_unsupported() && error.to_string().contains(reason), "{error}");
}

#[test]
fn first_picture_of_a_sequence_is_decoded() {
    let mut file = TestSequence::with_picture();
    file.tracks[0].chunks[0].push(vec![0xFF; 50]);
    for (handler, kind) in [(b"pict", b"hvc1"), (b"vide", b"hev1")] {
        (file.tracks[0].handler, file.tracks[0].entry_kind) = (handler, kind);
        let bytes = file.write();
        let plan = Plan::read(&bytes).unwrap();
        assert_eq!((plan.size(), plan.orientation().to_exif(), plan.is_grey()), ((SIDE, SIDE), 1, false));
        assert_eq!((plan.coded_pixels(), plan.alpha_size()), (u64::from(SIDE * SIDE), None));
        assert_eq!(decode(&bytes).0, quarters());
    }
    file.tracks[0].has_wide_times = true;
    assert_eq!(decode(&file.write()).0, quarters());
}

#[test]
fn first_sync_sample_is_found_in_every_kind_of_table() {
    let picture = TestTrack::with_picture(1).picture();
    let other = vec![0xFF; picture.len()];
    let layouts = [
        // All samples in one chunk.
        vec![vec![other.clone(), other.clone(), other.clone(), picture.clone(), other.clone()]],
        // Several chunks with different numbers of samples.
        vec![vec![other.clone()], vec![other.clone(), other.clone()], vec![picture.clone()]],
        vec![vec![other.clone(), other.clone()], vec![other.clone(), picture.clone()], vec![other.clone()]],
        // A chunk without samples.
        vec![vec![other.clone(); 3], vec![], vec![picture, other]],
    ];
    for chunks in layouts {
        for (has_wide_offsets, has_common_size) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let mut file = TestSequence::with_picture();
            let track = &mut file.tracks[0];
            *track = TestTrack { has_wide_offsets, sync_samples: Some(vec![4, 5]), ..track.clone() };
            // All samples have the same length.
            let first = track.picture();
            track.chunks = chunks.clone();
            track.has_common_size = has_common_size;
            assert_eq!(track.picture().len(), first.len());
            assert_eq!(
                decode(&file.write()).0,
                quarters(),
                "{chunks:?} {has_wide_offsets} {has_common_size}"
            );
        }
    }
}

#[test]
fn run_of_chunks_with_the_same_number_of_samples_is_followed() {
    let mut file = TestSequence::with_picture();
    let picture = file.tracks[0].picture();
    file.tracks[0].chunks = vec![vec![vec![0; 9]; 2], vec![vec![0; 9]; 2], vec![vec![0; 9], picture]];
    file.tracks[0].sync_samples = Some(vec![6]);
    // The first of the three runs is made the only one.
    let bytes = with_number(&file.write(), b"stsc", 4, 1);
    assert_eq!(decode(&bytes).0, quarters());
}

#[test]
fn matrix_of_the_track_becomes_the_orientation() {
    for (matrix, expected) in [
        ([1, 0, 0, 1], 1),
        ([-1, 0, 0, 1], 2),
        ([-1, 0, 0, -1], 3),
        ([1, 0, 0, -1], 4),
        ([0, 1, 1, 0], 5),
        ([0, 1, -1, 0], 6),
        ([0, -1, -1, 0], 7),
        ([0, -1, 1, 0], 8),
    ] {
        let mut file = TestSequence::with_picture();
        file.tracks[0].matrix = matrix;
        let bytes = file.write();
        let plan = Plan::read(&bytes).unwrap();
        assert_eq!(plan.orientation().to_exif(), expected, "{matrix:?}");
        // Only the caller turns the pixels.
        assert_eq!(decode(&bytes).0, quarters());
    }
    for matrix in [[1, 1, 0, 1], [0; 4], [1, 0, 0, 0]] {
        let mut file = TestSequence::with_picture();
        file.tracks[0].matrix = matrix;
        assert_unsupported(&file.write(), "multiple of 90 degrees");
    }
}

#[test]
fn crop_and_colours_come_from_the_sample_entry() {
    let mut file = TestSequence::with_picture();
    file.tracks[0].matrix = [0, 1, -1, 0];
    let crop = [32u32, 1, 16, 1, 0, 1, 0, 1].iter().flat_map(|field| field.to_be_bytes());
    let boxes = &mut file.tracks[0].entry_boxes;
    boxes.push((b"ccst", vec![0; 8]));
    boxes.push((b"pasp", vec![0; 8]));
    boxes.push((b"clap", crop.collect()));
    boxes.push((b"colr", b"nclx\0\x09\0\x0E\0\x06\x80".to_vec()));
    let bytes = file.write();
    let plan = Plan::read(&bytes).unwrap();
    let crop = plan.crop();
    assert_eq!((crop.left, crop.top, crop.width, crop.height), (16, 24, 32, 16));
    assert_eq!((plan.size(), plan.orientation().to_exif()), ((SIDE, SIDE), 6));
    assert_eq!(plan.colour_space(), ColourSpace::Cicp { primaries: 9, transfer: 14 });
    file.tracks[0].entry_boxes.push((b"colr", b"profabc".to_vec()));
    assert_eq!(Plan::read(&file.write()).unwrap().colour_space(), ColourSpace::Icc(b"abc"));
}

#[test]
fn auxiliary_track_becomes_the_alpha_channel() {
    let mut file = TestSequence::with_picture();
    file.tracks.insert(0, TestTrack::with_alpha(2));
    let (colours, alpha) = decode(&file.write());
    assert_eq!(colours, quarters());
    // Yellow is brighter than blue.
    assert!(alpha[48 * 64 + 48] > 180 && alpha[48 * 64 + 16] < 100, "{alpha:?}");
    let bytes = file.write();
    let plan = Plan::read(&bytes).unwrap();
    assert_eq!((plan.alpha_size(), plan.is_premultiplied()), (Some((SIDE, SIDE)), false));
    assert_eq!(plan.coded_pixels(), u64::from(2 * SIDE * SIDE));
    file.tracks[1].references.push((b"prem", vec![2]));
    assert!(Plan::read(&file.write()).unwrap().is_premultiplied());
}

#[test]
fn tracks_of_other_kinds_are_ignored() {
    let mut file = TestSequence::with_picture();
    let sound =
        TestTrack { handler: b"soun", entry_kind: b"mp4a", chunks: vec![], ..TestTrack::with_picture(2) };
    let thumbnails = TestTrack { references: vec![(b"thmb", vec![1])], ..sound.clone() };
    let thumbnails = TestTrack { handler: b"pict", ..thumbnails };
    let disabled = TestTrack { handler: b"vide", is_enabled: false, ..sound.clone() };
    let mut depth = TestTrack::with_alpha(3);
    depth.entry_boxes[1].1 = b"\0\0\0\0urn:mpeg:hevc:2015:auxid:2\0".to_vec();
    depth.chunks.clear();
    let alpha_of_another = TestTrack { references: vec![(b"auxl", vec![7, 9])], ..TestTrack::with_alpha(4) };
    file.tracks.splice(0..0, [sound, thumbnails, disabled, depth, alpha_of_another]);
    let bytes = file.write();
    assert_eq!(decode(&bytes).0, quarters());
    assert_eq!(Plan::read(&bytes).unwrap().alpha_size(), None);
}

#[test]
fn disabled_track_is_shown_if_there_is_no_other() {
    let mut file = TestSequence::with_picture();
    file.tracks[0].is_enabled = false;
    assert_eq!(decode(&file.write()).0, quarters());
}

#[test]
fn sequence_is_used_only_if_there_is_no_primary_item() {
    let mut sequence = TestSequence::with_picture();
    sequence.tracks[0].size = (48, 40);
    let sequence = sequence.write();
    // The box `meta` of a video describes no items.
    let empty_meta = [&sequence[..], &write_box(b"meta", &[0; 4])].concat();
    assert_eq!(Plan::read(&empty_meta).unwrap().size(), (48, 40));
    let mut still = TestFile::with_picture();
    still.items[0].properties[1].1 = ispe(32, 24);
    let both = [still.write(), sequence].concat();
    assert_eq!(Plan::read(&both).unwrap().size(), (32, 24));
}

#[test]
fn bytes_behind_the_last_box_do_not_matter() {
    let bytes = [&TestSequence::with_picture().write()[..], &[0xFF; 3]].concat();
    assert_eq!(decode(&bytes).0, quarters());
}

#[test]
fn sizes_are_limited_like_those_of_a_still_picture() {
    let mut file = TestSequence::with_picture();
    file.tracks[0].size = (65, 64);
    assert_corrupt(&file.write(), "smaller than its item");
    file.tracks[0].size = (0, 64);
    assert_corrupt(&file.write(), "width or height 0");
    file.tracks[0].size = (64, 64);
    file.tracks[0].entry_boxes[0].1 = hvcc(&[&sps(4096, 4096, None)]);
    assert_eq!(Plan::read(&file.write()).unwrap().coded_pixels(), 1 << 24);
}

#[test]
fn sequence_of_another_codec_is_named() {
    let mut file = TestSequence::with_picture();
    file.tracks[0].entry_kind = b"avc1";
    assert!(matches!(plan_error(&file.write()), Error::OtherCodec(kind) if kind == *b"avc1"));
}

#[test]
fn contradictory_tables_are_refused() {
    let mut file = TestSequence::with_picture();
    file.tracks[0].chunks.push(vec![vec![0; 50]]);
    file.tracks[0].sync_samples = Some(vec![1]);
    let bytes = file.write();
    // The number of the sync sample.
    assert_corrupt(&with_number(&bytes, b"stss", 8, 0), "number 0");
    assert_corrupt(&with_number(&bytes, b"stss", 8, 3), "in no chunk");
    assert_unsupported(&with_number(&bytes, b"stss", 4, 0), "depend on others");
    // The first chunk of each run, the samples per chunk and the sample entry.
    assert_corrupt(&with_number(&bytes, b"stsc", 8, 2), "not in order");
    assert_corrupt(&with_number(&bytes, b"stsc", 20, 1), "not in order");
    let too_many = with_number(&bytes, b"stsc", 24, 9);
    assert_corrupt(&with_number(&too_many, b"stss", 8, 3), "no size");
    assert_corrupt(&with_number(&bytes, b"stsc", 16, 0), "sample entry is missing");
    assert_corrupt(&with_number(&bytes, b"stsc", 16, 2), "sample entry is missing");
    assert_corrupt(&with_number(&bytes, b"stsc", 4, 0), "in no chunk");
    // The size of the sample, and the offset of its chunk.
    assert_corrupt(&with_number(&bytes, b"stsz", 12, 0), "empty");
    assert_corrupt(&with_number(&bytes, b"stsz", 12, u32::MAX), "outside the file");
    assert_corrupt(&with_number(&bytes, b"stco", 8, u32::MAX), "outside the file");
    assert_unsupported(&with_number(&bytes, b"stsz", 8, 0), "without a table of its samples");
    file.tracks[0].has_wide_offsets = true;
    assert_corrupt(&with_number(&file.write(), b"co64", 8, u32::MAX), "outside the file");
    for kind in [b"stsd", b"stsc", b"stsz", b"co64"] {
        let mut bytes = file.write();
        let start = find_table(&bytes, kind) - 4;
        bytes[start] = b'x';
        assert_corrupt(&bytes, "lacks a table");
    }
    file.tracks[0].entry_boxes.clear();
    assert_corrupt(&file.write(), "no configuration");
    file.tracks.clear();
    assert_corrupt(&file.write(), "no track of pictures");
}

#[test]
fn tables_that_state_more_entries_than_they_have_are_refused() {
    let mut file = TestSequence::with_picture();
    file.tracks[0].sync_samples = Some(vec![1]);
    for count in [3, 1000, u32::MAX / 12, u32::MAX] {
        for (kind, offset) in [(b"stsc", 4), (b"stsz", 8), (b"stco", 4), (b"stss", 4)] {
            assert_corrupt(&with_number(&file.write(), kind, offset, count), "ends too early");
        }
    }
    // Samples of the same size need no entries.
    file.tracks[0].has_common_size = true;
    let bytes = with_number(&file.write(), b"stsz", 8, u32::MAX);
    assert_eq!(decode(&bytes).0, quarters());
    // The last sample of a run of billions.
    let bytes = with_number(&bytes, b"stsc", 12, u32::MAX);
    assert_eq!(decode(&bytes).0, quarters());
    assert_corrupt(&with_number(&bytes, b"stss", 8, u32::MAX), "outside the file");
}

/// Takes hours if the time is not in proportion to the length of the file.
#[test]
fn millions_of_boxes_and_entries_are_read() {
    const COUNT: usize = 1 << 20;
    // Empty tracks, and a track with many empty boxes in front of its own.
    let empty_tracks = write_box(b"moov", &write_box(b"trak", &[]).repeat(COUNT));
    assert_corrupt(&empty_tracks, "no track of pictures");
    let track = &TestTrack::with_picture(1).write(DATA_OFFSET)[8..];
    let many = [write_box(b"free", &[]).repeat(COUNT), track.to_vec()].concat();
    // The offset of the chunk is that of another file.
    assert_corrupt(&write_box(b"moov", &write_box(b"trak", &many)), "ends too early");
    let mut samples = TestSequence::with_picture();
    let picture = samples.tracks[0].picture();
    samples.tracks[0].chunks = vec![vec![vec![0]; COUNT], vec![vec![1]; COUNT - 1]];
    samples.tracks[0].chunks[1].push(picture);
    samples.tracks[0].sync_samples = Some(vec![u32::try_from(2 * COUNT).unwrap()]);
    assert_eq!(decode(&samples.write()).0, quarters());
}

#[test]
fn truncated_sequence_is_refused_at_every_length() {
    let bytes = TestSequence::with_picture().write();
    for length in 0..bytes.len() {
        assert!(process(&bytes[..length]).is_err(), "{length} bytes");
    }
    process(&bytes).unwrap();
}

/// A sequence with an alpha channel that libheif wrote.
const BY_LIBHEIF: &[u8] = include_bytes!("../../../../fuzz/corpus/heif_picture/heic_sequence_alpha");

#[test]
fn sequence_of_libheif_has_its_colours_and_alpha() {
    assert!(Boxes::new(BY_LIBHEIF).all(|found| found.unwrap().kind != b"meta"));
    let (colours, alpha) = decode(BY_LIBHEIF);
    for ((x, y), (colour, opacity)) in [(40, 30), (120, 30), (40, 90), (120, 90)].into_iter().zip([
        ([200, 30, 40], 255u8),
        ([30, 180, 60], 64),
        ([40, 60, 200], 128),
        ([220, 210, 50], 0),
    ]) {
        let index: usize = x + y * 160;
        let near = colours[index].iter().zip(colour).all(|(&a, b)| a.abs_diff(b) <= 4);
        assert!(near && alpha[index].abs_diff(opacity) <= 2, "{:?} {}", colours[index], alpha[index]);
    }
}
