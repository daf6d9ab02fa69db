//! Whatever the bytes: no panic, and never a picture without all of its pixels.

use std::cell::RefCell;

use jpeg_scaled::{Error, Header, Scale, Workspace};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

use crate::files::{config, decode, recipes, rgb};

/// As a caller does: the size is looked at first.
fn decode_if_small(workspace: &mut Workspace, file: &[u8]) {
    let small = |header: Header| header.width <= 2048 && header.height <= 2048;
    if !Header::read(file).is_ok_and(small) {
        return;
    }
    for scale in Scale::ALL {
        if let Ok(picture) = workspace.decode(file, scale) {
            let header = Header::read(file).unwrap();
            assert_eq!(
                (picture.width, picture.height),
                (scale.apply(header.width), scale.apply(header.height))
            );
            assert_eq!(rgb(&picture).len(), 3 * picture.width as usize * picture.height as usize);
        }
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Overwrite(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
}

fn damages() -> impl Strategy<Value = Vec<Damage>> {
    let damage = prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Overwrite(at, byte)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..5))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), 1..5usize).prop_map(|(at, length)| Damage::Remove(at, length)),
    ];
    prop::collection::vec(damage, 1..6)
}

fn damaged(mut file: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        match damage {
            Damage::Overwrite(at, byte) => {
                let at = at.index(file.len());
                file[at] = *byte;
            }
            Damage::Flip(at, bit) => {
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
fn damaged_files_never_panic() {
    let workspace = RefCell::new(Workspace::default());
    TestRunner::new(config(2000))
        .run(&(recipes(), damages()), |(recipe, damages)| {
            // One workspace for all of them: what one leaves behind must not harm the next.
            decode_if_small(&mut workspace.borrow_mut(), &damaged(recipe.encode(), &damages));
            Ok(())
        })
        .unwrap();
}

#[test]
fn random_bytes_behind_a_header_never_panic() {
    let workspace = RefCell::new(Workspace::default());
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    TestRunner::new(config(500))
        .run(&(recipes(), bytes), |(recipe, bytes)| {
            let file = recipe.encode();
            let header = &file[..crate::files::pixels_at(&file)];
            decode_if_small(&mut workspace.borrow_mut(), &[header, &bytes].concat());
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_file_that_was_cut_is_refused_or_whole() {
    let cuts = prop::collection::vec(any::<Index>(), 40);
    TestRunner::new(config(300))
        .run(&(recipes(), cuts), |(recipe, cuts)| {
            let file = recipe.encode();
            let last = file.len() - 12..file.len();
            let lengths: Vec<usize> = cuts.iter().map(|cut| cut.index(file.len())).chain(last).collect();
            for scale in Scale::ALL {
                let whole = decode(&file, scale).unwrap();
                for &length in &lengths {
                    match decode(&file[..length], scale) {
                        Ok(pixels) => {
                            // Only the end marker may be missing, and a byte of padding.
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
fn a_workspace_that_was_used_decodes_like_a_new_one() {
    let workspace = RefCell::new(Workspace::default());
    TestRunner::new(config(200))
        .run(&(recipes(), damages()), |(recipe, damages)| {
            let file = recipe.encode();
            decode_if_small(&mut workspace.borrow_mut(), &damaged(file.clone(), &damages));
            for scale in Scale::ALL {
                let expected = decode(&file, scale).unwrap();
                let mut workspace = workspace.borrow_mut();
                let picture = workspace.decode(&file, scale).unwrap();
                prop_assert_eq!((picture.width, picture.height, rgb(&picture)), expected);
            }
            Ok(())
        })
        .unwrap();
}
