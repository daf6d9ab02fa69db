//! Checks that the decoder never panics on a damaged file and never returns a picture with missing pixels.

use std::cell::RefCell;

use jpeg_scaled::{Decoder, Error, JpegHeader, Scale};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

use crate::files::{decode, proptest_config, recipes, to_rgb};

/// Decodes at every scale if the header announces a small picture, as a caller with a size limit does.
fn decode_if_small(decoder: &mut Decoder, file: &[u8]) {
    let small = |header: JpegHeader| header.width <= 2048 && header.height <= 2048;
    if !JpegHeader::read(file).is_ok_and(small) {
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

/// A change to a file. An index is a position in the file.
#[derive(Clone, Debug)]
enum Damage {
    Overwrite(Index, u8),
    FlipBit(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let damage = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Overwrite(at, byte)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::FlipBit(at, bit)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..5))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), 1..5usize).prop_map(|(at, length)| Damage::Remove(at, length)),
    ];
    prop::collection::vec(damage, 1..6)
}

fn apply_damages(mut file: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        match damage {
            Damage::Overwrite(at, byte) => {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            Damage::FlipBit(at, bit) => {
                let at = at.index(file.len());
                file[at] ^= 1 << bit;
            }
            Damage::Insert(at, bytes) => {
                let at = at.index(file.len());
                file.splice(at..at, bytes.iter().copied());
            }
            Damage::Remove(at, length) => {
                let at = at.index(file.len());
                file.drain(at..(at + length).min(file.len() - 1));
            }
        }
    }
    file
}

#[test]
fn damaged_files_never_cause_a_panic() {
    let decoder = RefCell::new(Decoder::default());
    TestRunner::new(proptest_config(2000))
        .run(&(recipes(), damages()), |(recipe, damages)| {
            // All files share a decoder, whose state after one file must not affect the next file.
            decode_if_small(&mut decoder.borrow_mut(), &apply_damages(recipe.encode(), &damages));
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_bytes_after_a_valid_header_never_cause_a_panic() {
    let decoder = RefCell::new(Decoder::default());
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    TestRunner::new(proptest_config(500))
        .run(&(recipes(), bytes), |(recipe, bytes)| {
            let file = recipe.encode();
            let header = &file[..crate::files::entropy_coded_start(&file)];
            decode_if_small(&mut decoder.borrow_mut(), &[header, &bytes].concat());
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_cut_file_is_truncated_unless_only_its_end_marker_is_missing() {
    let cuts = prop::collection::vec(any::<Index>(), 40);
    TestRunner::new(proptest_config(300))
        .run(&(recipes(), cuts), |(recipe, cuts)| {
            let file = recipe.encode();
            let last = file.len() - 12..file.len();
            let lengths: Vec<usize> = cuts.iter().map(|cut| cut.index(file.len())).chain(last).collect();
            for scale in Scale::ALL {
                let whole = decode(&file, scale).unwrap();
                for &length in &lengths {
                    match decode(&file[..length], scale) {
                        Ok(pixels) => {
                            // Only the end marker and a byte of padding may be missing.
                            prop_assert!(length + 3 >= file.len(), "{length} of {} bytes", file.len());
                            prop_assert_eq!(&pixels, &whole);
                        }
                        Err(error) => {
                            prop_assert_eq!(error, Error::Truncated);
                            prop_assert!(length < file.len() - 2, "{length} of {} bytes", file.len());
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
        .run(&(recipes(), damages()), |(recipe, damages)| {
            let file = recipe.encode();
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
