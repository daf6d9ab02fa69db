//! Checks that the decoder never panics on a damaged file and never returns a picture with missing pixels.

use std::cell::RefCell;

use jpeg_scaled::{Decoder, Error, JpegHeader, Scale};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

use crate::files::{decode, proptest_config, test_pictures, to_rgb};

/// Decodes a file at every scale if the header contains a small size, as a caller with a size limit does.
fn decode_if_small(decoder: &mut Decoder, file: &[u8]) {
    let is_small = |header: JpegHeader| header.width <= 2048 && header.height <= 2048;
    if !JpegHeader::read(file).is_ok_and(is_small) {
        return;
    }
    for scale in Scale::ALL {
        if let Ok(picture) = decoder.decode(file, scale) {
            let header = JpegHeader::read(file).unwrap();
            assert_eq!(
                (picture.width, picture.height),
                (scale.apply(header.width), scale.apply(header.height))
            );
            assert_eq!(to_rgb(&picture).len(), 3 * picture.width as usize * picture.height as usize);
        }
    }
}

/// A change to a file. [`Index`] selects the position of the change.
#[derive(Clone, Debug)]
enum Damage {
    /// Replaces a byte.
    Overwrite(Index, u8),
    /// Inverts a bit, 0 to 7.
    FlipBit(Index, u8),
    /// Inserts bytes.
    Insert(Index, Vec<u8>),
    /// Removes this many bytes.
    Remove(Index, usize),
}

fn damage_lists() -> impl Strategy<Value = Vec<Damage>> {
    let damage = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(index, byte)| Damage::Overwrite(index, byte)),
        (any::<Index>(), 0..8u8).prop_map(|(index, bit)| Damage::FlipBit(index, bit)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..5))
            .prop_map(|(index, bytes)| Damage::Insert(index, bytes)),
        (any::<Index>(), 1..5usize).prop_map(|(index, length)| Damage::Remove(index, length)),
    ];
    prop::collection::vec(damage, 1..6)
}

fn apply_damages(mut file: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        match damage {
            Damage::Overwrite(index, byte) => {
                let position = index.index(file.len());
                file[position] = *byte;
            }
            Damage::FlipBit(index, bit) => {
                let position = index.index(file.len());
                file[position] ^= 1 << bit;
            }
            Damage::Insert(index, bytes) => {
                let position = index.index(file.len());
                file.splice(position..position, bytes.iter().copied());
            }
            Damage::Remove(index, length) => {
                let position = index.index(file.len());
                file.drain(position..(position + length).min(file.len() - 1));
            }
        }
    }
    file
}

#[test]
fn damaged_files_never_cause_a_panic() {
    let decoder = RefCell::new(Decoder::default());
    TestRunner::new(proptest_config(2000))
        .run(&(test_pictures(), damage_lists()), |(test_picture, damages)| {
            // All files share a decoder, to check that one file does not affect the decoding of the next.
            decode_if_small(&mut decoder.borrow_mut(), &apply_damages(test_picture.encode(), &damages));
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_bytes_after_a_valid_header_never_cause_a_panic() {
    let decoder = RefCell::new(Decoder::default());
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    TestRunner::new(proptest_config(500))
        .run(&(test_pictures(), bytes), |(test_picture, bytes)| {
            let file = test_picture.encode();
            let header = &file[..crate::files::entropy_coded_start(&file)];
            decode_if_small(&mut decoder.borrow_mut(), &[header, &bytes].concat());
            Ok(())
        })
        .unwrap();
}

#[test]
fn decoding_a_cut_file_fails_with_truncated_unless_only_the_end_marker_is_missing() {
    let cuts = prop::collection::vec(any::<Index>(), 40);
    TestRunner::new(proptest_config(300))
        .run(&(test_pictures(), cuts), |(test_picture, cuts)| {
            let file = test_picture.encode();
            // Random cuts rarely remove only the end marker, so the last lengths are always tested.
            let last_lengths = file.len() - 12..file.len();
            let lengths = cuts.iter().map(|cut| cut.index(file.len()));
            let lengths: Vec<usize> = lengths.chain(last_lengths).collect();
            for scale in Scale::ALL {
                let whole = decode(&file, scale).unwrap();
                for &length in &lengths {
                    match decode(&file[..length], scale) {
                        Ok(pixels) => {
                            // Only the end marker and a byte of padding may be missing.
                            prop_assert!(length + 3 >= file.len(), "cut to {length} of {} bytes", file.len());
                            prop_assert_eq!(&pixels, &whole);
                        }
                        Err(error) => {
                            prop_assert_eq!(error, Error::Truncated);
                            prop_assert!(length < file.len() - 2, "cut to {length} of {} bytes", file.len());
                        }
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_used_decoder_decodes_like_a_new_one() {
    let decoder = RefCell::new(Decoder::default());
    TestRunner::new(proptest_config(200))
        .run(&(test_pictures(), damage_lists()), |(test_picture, damages)| {
            let file = test_picture.encode();
            decode_if_small(&mut decoder.borrow_mut(), &apply_damages(file.clone(), &damages));
            for scale in Scale::ALL {
                let expected = decode(&file, scale).unwrap();
                let mut decoder = decoder.borrow_mut();
                let picture = decoder.decode(&file, scale).unwrap();
                prop_assert_eq!((picture.width, picture.height, to_rgb(&picture)), expected);
            }
            Ok(())
        })
        .unwrap();
}
