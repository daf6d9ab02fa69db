//! Which kinds of files are decoded, and which are refused as what.

use jpeg_encoder::{ColorType, Encoder};
use jpeg_scaled::{Colour, Error, Header, Scale};

use crate::files::{
    Recipe, decode, pixels_at, position, renamed, usual, usual_recipe, with_inserted, without,
};

/// APP14 with a transform.
fn adobe(transform: u8) -> Vec<u8> {
    [&b"\xFF\xEE\x00\x0EAdobe\x00\x64\x00\x00\x00\x00"[..], &[transform]].concat()
}

#[track_caller]
fn assert_unsupported(file: &[u8], what: &str) {
    for scale in Scale::ALL {
        match decode(file, scale) {
            Err(Error::Unsupported(_)) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[track_caller]
fn assert_corrupt(file: &[u8], what: &str) {
    for scale in Scale::ALL {
        match decode(file, scale) {
            Err(Error::Corrupt(_)) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// Decodes like another file.
#[track_caller]
fn assert_same(file: &[u8], other: &[u8], what: &str) {
    for scale in Scale::ALL {
        assert_eq!(decode(file, scale).unwrap(), decode(other, scale).unwrap(), "{what}");
    }
}

#[test]
fn the_header_says_size_and_colours() {
    let header = |file: &[u8]| Header::read(file).unwrap();
    let file = usual();
    assert_eq!(header(&file), Header { width: 45, height: 37, colour: Colour::YCbCr });
    let grey = Recipe { sampling: None, ..usual_recipe() }.encode();
    assert_eq!(header(&grey).colour, Colour::Grey);

    // JFIF means YCbCr, then Adobe's marker has the word, then the names of the components.
    assert_eq!(header(&renamed(&file, *b"RGB")).colour, Colour::YCbCr);
    let plain = without(&file, 0xE0);
    assert_eq!(header(&plain).colour, Colour::YCbCr);
    assert_eq!(header(&renamed(&plain, *b"RGB")).colour, Colour::Rgb);
    assert_eq!(header(&with_inserted(&plain, 2, &adobe(0))).colour, Colour::Rgb);
    assert_eq!(header(&with_inserted(&plain, 2, &adobe(1))).colour, Colour::YCbCr);
    assert_eq!(header(&with_inserted(&renamed(&plain, *b"RGB"), 2, &adobe(1))).colour, Colour::YCbCr);
}

#[test]
fn red_green_and_blue_are_left_as_they_are() {
    let grey = Recipe { sampling: None, ..usual_recipe() };
    let colourful = Recipe { sampling: Some((1, 1)), ..usual_recipe() };
    let rgb = renamed(&without(&colourful.encode(), 0xE0), *b"RGB");
    for scale in Scale::ALL {
        let (_, _, as_rgb) = decode(&rgb, scale).unwrap();
        let (_, _, as_ycbcr) = decode(&colourful.encode(), scale).unwrap();
        assert_ne!(as_rgb, as_ycbcr);
        // The first component is brightness in the one file and red in the other.
        let (_, _, brightness) = decode(&grey.encode(), scale).unwrap();
        assert!(brightness.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
    }
}

#[test]
fn what_stands_between_and_after_changes_nothing() {
    let file = usual();
    let comment = b"\xFF\xFE\x00\x06abcd";
    assert_same(&with_inserted(&file, position(&file, 0xDB), comment), &file, "a comment");
    assert_same(&with_inserted(&file, position(&file, 0xDA), b"\xFF\xFF\xFF"), &file, "fill bytes");
    assert_same(&[&file[..], b"trailing \xFF\xD8 rubbish \xFF"].concat(), &file, "after the end");
    let end = file.len() - 2;
    assert_same(&with_inserted(&file, end, b"\xFF\xFF"), &file, "fill bytes before the end marker");
    assert_same(&file[..end], &file, "no end marker");
    let mut extended = file.clone();
    let frame = position(&file, 0xC0);
    extended[frame + 1] = 0xC1;
    assert_same(&extended, &file, "SOF1");
}

#[test]
fn a_table_of_16_bits_is_a_table() {
    let file = usual();
    let at = position(&file, 0xDB);
    let mut table = vec![0xFF, 0xDB, 0, 131, 0x10];
    table.extend(file[at + 5..at + 69].iter().flat_map(|&step| [0, step]));
    // After the tables of 8 bits, in place of the first one.
    assert_same(&with_inserted(&file, position(&file, 0xC0), &table), &file, "16 bits");
}

#[test]
fn restart_markers_must_be_there_in_their_order() {
    let recipe = Recipe { width: 200, restart_interval: 1, ..usual_recipe() };
    let file = recipe.encode();
    let markers: Vec<usize> = (pixels_at(&file)..file.len() - 2)
        .filter(|&at| file[at] == 0xFF && (0xD0..=0xD7).contains(&file[at + 1]))
        .collect();
    assert_eq!(markers.len(), 13 * 3 - 1);
    for (number, &at) in markers.iter().enumerate() {
        assert_same(&with_inserted(&file, at, b"\xFF"), &file, "a fill byte");
        assert_eq!(usize::from(file[at + 1] & 7), number % 8);
        let mut wrong = file.clone();
        wrong[at + 1] ^= 1;
        assert_corrupt(&wrong, "another restart marker");
        wrong[at + 1] = 0xD9;
        for scale in Scale::ALL {
            assert_eq!(decode(&wrong, scale), Err(Error::Truncated));
        }
        let missing = [&file[..at], &file[at + 2..]].concat();
        assert!(decode(&missing, Scale::Eighth).is_err());
        assert_unsupported(&with_inserted(&file, at, b"\x12\x34"), "bytes before a restart marker");
    }
}

#[test]
fn what_is_left_to_others_is_unsupported() {
    let pixels = usual_recipe().pixels();
    let encode = |set: fn(&mut Encoder<&mut Vec<u8>>)| {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, 85);
        set(&mut encoder);
        encoder.encode(&pixels, 45, 37, ColorType::Rgb).unwrap();
        file
    };
    assert_unsupported(&encode(|encoder| encoder.set_progressive(true)), "progressive");
    assert_unsupported(&encode(|encoder| encoder.set_optimized_huffman_tables(true)), "scans of their own");
    let mut cmyk = Vec::new();
    let four = [&pixels[..], &pixels[..45 * 37]].concat();
    Encoder::new(&mut cmyk, 85).encode(&four, 45, 37, ColorType::Cmyk).unwrap();
    assert_unsupported(&cmyk, "CMYK");

    let file = usual();
    let (frame, scan) = (position(&file, 0xC0), position(&file, 0xDA));
    let changed = |at: usize, byte: u8| {
        let mut file = file.clone();
        file[at] = byte;
        file
    };
    for marker in [0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF] {
        assert_unsupported(&changed(frame + 1, marker), "another process");
    }
    assert_unsupported(&changed(frame + 4, 12), "12 bits");
    let mut later = changed(frame + 5, 0);
    later[frame + 6] = 0;
    assert_unsupported(&later, "a height that comes later");
    let mut thirds = changed(frame + 11, 0x31);
    thirds[frame + 14] = 0x21;
    assert_unsupported(&thirds, "a sampling of two thirds");
    assert_unsupported(&changed(scan + 12, 1), "not all coefficients");
    let mut swapped = renamed(&file, [2, 1, 3]);
    swapped[frame + 10] = 1;
    swapped[frame + 13] = 2;
    assert_unsupported(&swapped, "another order");
    assert_unsupported(&without(&without(&without(&without(&file, 0xC4), 0xC4), 0xC4), 0xC4), "no tables");
    assert_unsupported(&with_inserted(&file, scan, b"rubbish"), "rubbish between segments");
    let end = file.len() - 2;
    assert_unsupported(&with_inserted(&file, end, b"more"), "bytes after the last MCU");
    assert_unsupported(&with_inserted(&file, end, b"\xFF\xDA\x00\x02"), "another scan");
}

#[test]
fn what_breaks_the_rules_is_corrupt() {
    let file = usual();
    let (frame, scan) = (position(&file, 0xC0), position(&file, 0xDA));
    let changed = |at: usize, byte: u8| {
        let mut file = file.clone();
        file[at] = byte;
        file
    };
    assert_corrupt(b"\x89PNG\r\n\x1a\n", "no JPEG");
    assert_corrupt(b"\xFF\xD8\xFF\xD9", "nothing in it");
    assert_corrupt(&with_inserted(&file, scan, &file[frame..scan]), "two frame headers");
    assert_corrupt(&without(&file, 0xC0), "no frame header");
    assert_corrupt(&without(&without(&file, 0xDB), 0xDB), "no quantisation table");
    assert_corrupt(&changed(frame + 11, 0), "no sampling");
    assert_corrupt(&changed(frame + 11, 0x44), "too many blocks");
    assert_corrupt(&changed(frame + 3, 16), "a wrong length");
    assert_corrupt(&changed(scan + 6, 0x44), "a Huffman table that cannot be");
    assert_corrupt(&changed(position(&file, 0xC4) + 5, 255), "too many codes");
    let mut no_width = changed(frame + 7, 0);
    no_width[frame + 8] = 0;
    assert_corrupt(&no_width, "no width");
}

#[test]
fn a_file_that_ends_before_its_pixels_is_truncated() {
    let file = usual();
    for length in [0, 1, 2, 10, pixels_at(&file) - 1, pixels_at(&file), pixels_at(&file) + 20] {
        for scale in Scale::ALL {
            assert_eq!(decode(&file[..length], scale), Err(Error::Truncated), "{length}");
        }
    }
}
