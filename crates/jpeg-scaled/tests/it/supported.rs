//! Tests that files are decoded, or refused with the documented kind of error.

use jpeg_scaled::{ColourSpace, Error, JpegHeader, Scale};

use crate::{
    files::{
        TestPicture, decode, entropy_coded_start, segment_position, usual_file, usual_picture,
        with_component_ids, with_inserted, without_segment,
    },
    progressive::usual_progressive_file,
};

/// Returns Adobe's APP14 segment with the colour transform `transform`.
fn adobe_segment(transform: u8) -> Vec<u8> {
    [&b"\xFF\xEE\x00\x0EAdobe\x00\x64\x00\x00\x00\x00"[..], &[transform]].concat()
}

#[track_caller]
fn assert_unsupported(file: &[u8], case: &str) {
    for scale in Scale::ALL {
        match decode(file, scale) {
            Err(Error::Unsupported(_)) => {}
            other => panic!("{case}: {other:?}"),
        }
    }
}

#[track_caller]
fn assert_corrupt(file: &[u8], case: &str) {
    for scale in Scale::ALL {
        match decode(file, scale) {
            Err(Error::Corrupt(_)) => {}
            other => panic!("{case}: {other:?}"),
        }
    }
}

/// Asserts that both files decode to the same pixels.
#[track_caller]
fn assert_same_pixels(file: &[u8], other: &[u8], case: &str) {
    for scale in Scale::ALL {
        assert_eq!(decode(file, scale).unwrap(), decode(other, scale).unwrap(), "{case}");
    }
}

#[test]
fn the_header_has_the_size_and_the_colour_space_of_the_file() {
    let header = |file: &[u8]| JpegHeader::read(file).unwrap();
    let file = usual_file();
    let usual_header =
        JpegHeader { width: 45, height: 37, colour_space: ColourSpace::YCbCr, is_progressive: false };
    assert_eq!(header(&file), usual_header);
    assert_eq!(header(&usual_progressive_file()), JpegHeader { is_progressive: true, ..usual_header });
    let grey = TestPicture { sampling: None, ..usual_picture() }.encode();
    assert_eq!(header(&grey).colour_space, ColourSpace::Grey);

    // JFIF implies YCbCr. Without JFIF, Adobe's segment decides. Without both, the component identifiers
    // decide.
    assert_eq!(header(&with_component_ids(&file, *b"RGB")).colour_space, ColourSpace::YCbCr);
    let without_jfif = without_segment(&file, 0xE0);
    assert_eq!(header(&without_jfif).colour_space, ColourSpace::YCbCr);
    assert_eq!(header(&with_component_ids(&without_jfif, *b"RGB")).colour_space, ColourSpace::Rgb);
    assert_eq!(header(&with_inserted(&without_jfif, 2, &adobe_segment(0))).colour_space, ColourSpace::Rgb);
    assert_eq!(header(&with_inserted(&without_jfif, 2, &adobe_segment(1))).colour_space, ColourSpace::YCbCr);
    assert_eq!(
        header(&with_inserted(&with_component_ids(&without_jfif, *b"RGB"), 2, &adobe_segment(1)))
            .colour_space,
        ColourSpace::YCbCr
    );
}

#[test]
fn samples_of_rgb_and_grey_files_are_not_converted() {
    let grey = TestPicture { sampling: None, ..usual_picture() };
    let ycbcr = TestPicture { sampling: Some((1, 1)), ..usual_picture() };
    let rgb_file = with_component_ids(&without_segment(&ycbcr.encode(), 0xE0), *b"RGB");
    for scale in Scale::ALL {
        let (_, _, as_rgb) = decode(&rgb_file, scale).unwrap();
        let (_, _, as_ycbcr) = decode(&ycbcr.encode(), scale).unwrap();
        assert_ne!(as_rgb, as_ycbcr);
        // A grey file has equal red, green and blue.
        let (_, _, grey_pixels) = decode(&grey.encode(), scale).unwrap();
        assert!(grey_pixels.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
    }
}

#[test]
fn comments_fill_bytes_and_bytes_outside_the_segments_are_ignored() {
    let file = usual_file();
    let comment = b"\xFF\xFE\x00\x06abcd";
    assert_same_pixels(&with_inserted(&file, segment_position(&file, 0xDB), comment), &file, "a comment");
    assert_same_pixels(
        &with_inserted(&file, segment_position(&file, 0xDA), b"\xFF\xFF\xFF"),
        &file,
        "fill bytes",
    );
    assert_same_pixels(
        &[&file[..], b"trailing \xFF\xD8 rubbish \xFF"].concat(),
        &file,
        "bytes after the end marker",
    );
    let end = file.len() - 2;
    assert_same_pixels(&with_inserted(&file, end, &[0xFF; 50]), &file, "fill bytes before the end marker");
    assert_same_pixels(&file[..end], &file, "no end marker");
    assert_same_pixels(
        &[&file[..end], b"a trailer of a phone \xFF\xD8 \xFF\xD9"].concat(),
        &file,
        "a trailer in place of the end marker",
    );
    assert_same_pixels(&[&file[..end], &file].concat(), &file, "another JPEG in place of the end marker");
    assert_same_pixels(&with_inserted(&file, end, b"more"), &file, "a few bytes after the last MCU");
    assert_same_pixels(&with_inserted(&file, end, b"\xFF\xD0"), &file, "a restart marker after the last MCU");
    assert_same_pixels(
        &with_inserted(&file, segment_position(&file, 0xDA), b"rubbish"),
        &file,
        "bytes between segments",
    );
    let mut extended = file.clone();
    let frame_position = segment_position(&file, 0xC0);
    extended[frame_position + 1] = 0xC1;
    assert_same_pixels(&extended, &file, "SOF1");
}

#[test]
fn a_quantisation_table_of_16_bits_is_decoded() {
    let file = usual_file();
    let position = segment_position(&file, 0xDB);
    let mut table = vec![0xFF, 0xDB, 0, 131, 0x10];
    table.extend(file[position + 5..position + 69].iter().flat_map(|&step| [0, step]));
    // This table comes after the tables of 8 bits and replaces the first one.
    assert_same_pixels(&with_inserted(&file, segment_position(&file, 0xC0), &table), &file, "16 bits");
}

#[test]
fn file_without_huffman_tables_is_decoded_with_those_of_the_standard() {
    // `jpeg-encoder` uses the same tables, one in each segment.
    let file = usual_file();
    let without_tables = (0..4).fold(file.clone(), |file, _| without_segment(&file, 0xC4));
    assert!(!without_tables.windows(2).any(|pair| pair == [0xFF, 0xC4]));
    assert_same_pixels(&without_tables, &file, "no tables");
}

#[test]
fn restart_markers_that_are_missing_or_out_of_order_are_refused() {
    let test_picture = TestPicture { width: 200, restart_interval: 1, ..usual_picture() };
    let file = test_picture.encode();
    let marker_positions: Vec<usize> = (entropy_coded_start(&file)..file.len() - 2)
        .filter(|&position| file[position] == 0xFF && (0xD0..=0xD7).contains(&file[position + 1]))
        .collect();
    // 13 columns and 3 rows of MCUs, with a marker between two MCUs.
    assert_eq!(marker_positions.len(), 13 * 3 - 1);
    for (number, &position) in marker_positions.iter().enumerate() {
        assert_same_pixels(&with_inserted(&file, position, &[0xFF; 50]), &file, "fill bytes");
        assert_same_pixels(&with_inserted(&file, position, &[0; 50]), &file, "zeros before a restart marker");
        assert_eq!(usize::from(file[position + 1] & 7), number % 8);
        let mut wrong = file.clone();
        wrong[position + 1] ^= 1;
        assert_corrupt(&wrong, "a different restart marker");
        wrong[position + 1] = 0xD9;
        for scale in Scale::ALL {
            assert_eq!(decode(&wrong, scale), Err(Error::Truncated));
        }
        let without_marker = [&file[..position], &file[position + 2..]].concat();
        assert!(decode(&without_marker, Scale::Eighth).is_err());
        assert_same_pixels(
            &with_inserted(&file, position, b"\x12\x34"),
            &file,
            "bytes before a restart marker",
        );
        assert_corrupt(&with_inserted(&file, position, &[0x12; 10]), "many bytes before a restart marker");
    }
}

#[test]
fn features_outside_the_supported_subset_are_refused_as_unsupported() {
    let file = usual_file();
    let frame_position = segment_position(&file, 0xC0);
    let changed = |position: usize, byte: u8| {
        let mut file = file.clone();
        file[position] = byte;
        file
    };
    for marker in [0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF] {
        assert_unsupported(&changed(frame_position + 1, marker), "a different coding process");
    }
    assert_unsupported(&changed(frame_position + 4, 12), "12 bits");
    let mut late_height = changed(frame_position + 5, 0);
    late_height[frame_position + 6] = 0;
    assert_unsupported(&late_height, "a height that follows the scan");
    let mut two_thirds = changed(frame_position + 11, 0x31);
    two_thirds[frame_position + 14] = 0x21;
    assert_unsupported(&two_thirds, "a sampling of two thirds");
    let mut two_components = changed(frame_position + 9, 2);
    two_components.drain(frame_position + 16..frame_position + 19);
    two_components[frame_position + 3] -= 3;
    assert_unsupported(&two_components, "two components");
}

#[test]
fn violations_of_the_standard_are_refused_as_corrupt() {
    let file = usual_file();
    let (frame_position, scan_position) = (segment_position(&file, 0xC0), segment_position(&file, 0xDA));
    let changed = |position: usize, byte: u8| {
        let mut file = file.clone();
        file[position] = byte;
        file
    };
    assert_corrupt(b"\x89PNG\r\n\x1a\n", "no JPEG");
    assert_corrupt(b"\xFF\xD8\xFF\xD9", "no segments");
    assert_corrupt(
        &with_inserted(&file, scan_position, &file[frame_position..scan_position]),
        "two frame headers",
    );
    assert_corrupt(&without_segment(&file, 0xC0), "no frame header");
    assert_corrupt(&without_segment(&without_segment(&file, 0xDB), 0xDB), "no quantisation table");
    assert_corrupt(&changed(frame_position + 11, 0), "a sampling factor of zero");
    assert_corrupt(&changed(frame_position + 11, 0x44), "too many blocks");
    assert_corrupt(&changed(frame_position + 3, 16), "a wrong length");
    assert_corrupt(&changed(scan_position + 6, 0x44), "a Huffman table with an invalid number");
    assert_corrupt(&changed(segment_position(&file, 0xC4) + 5, 255), "too many codes");
    let mut no_width = changed(frame_position + 7, 0);
    no_width[frame_position + 8] = 0;
    assert_corrupt(&no_width, "no width");
    let end = file.len() - 2;
    assert_corrupt(&with_inserted(&file, end, &[0x55; 9]), "many bytes after the last MCU");
    assert_corrupt(&with_inserted(&file, end, b"\xFF\xDA\x00\x02"), "a second scan");
    assert_corrupt(&with_inserted(&file, scan_position, b"\xFF\x02\x00\x02"), "a reserved marker");
    assert_corrupt(&changed(scan_position + 5, 9), "an unknown component");
}

#[test]
fn a_file_that_ends_before_or_in_its_data_is_refused_as_truncated() {
    let file = usual_file();
    for length in [
        0,
        1,
        2,
        10,
        entropy_coded_start(&file) - 1,
        entropy_coded_start(&file),
        entropy_coded_start(&file) + 20,
    ] {
        for scale in Scale::ALL {
            assert_eq!(decode(&file[..length], scale), Err(Error::Truncated), "cut to {length} bytes");
        }
    }
}
