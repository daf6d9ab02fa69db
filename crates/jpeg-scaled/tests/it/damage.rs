//! Checks that the decoder never panics on a damaged file and never returns a picture with missing pixels.

use std::cell::RefCell;

use jpeg_scaled::{Decoder, Error, JpegHeader, Scale};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};

use crate::{
    files::{
        TestPicture, decode, entropy_coded_start, proptest_config, test_pictures, to_rgb, usual_picture,
    },
    progressive_writer::{usual_script, with_progressive_scans},
};

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
            if test_picture.sampling.is_some() {
                let progressive = with_progressive_scans(&test_picture.encode_in_one_scan(), &usual_script());
                decode_if_small(&mut decoder.borrow_mut(), &apply_damages(progressive, &damages));
            }
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
            let header = &file[..entropy_coded_start(&file)];
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
            if test_picture.sampling.is_some() {
                let progressive = with_progressive_scans(&test_picture.encode_in_one_scan(), &usual_script());
                decode_if_small(&mut decoder.borrow_mut(), &apply_damages(progressive, &damages));
            }
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

/// Decodes copies of `file` with 64 zero bytes at different positions of the entropy-coded data at every scale.
/// Returns the number of copies, the number of refused copies, and the maximum of the mean differences between
/// the pixels of a decoded copy and those of `file`.
fn overwrite_with_zeros(file: &[u8]) -> (usize, usize, f64) {
    const ZERO_COUNT: usize = 64;
    let (mut copy_count, mut refused_count, mut max_difference) = (0, 0, 0.0f64);
    let whole = decode(file, Scale::Full).unwrap().2;
    for position in (entropy_coded_start(file)..file.len() - ZERO_COUNT - 2).step_by(97) {
        let mut damaged = file.to_vec();
        damaged[position..position + ZERO_COUNT].fill(0);
        copy_count += 1;
        let decoded = decode(&damaged, Scale::Full);
        for scale in Scale::ALL {
            assert_eq!(
                decode(&damaged, scale).err(),
                decoded.as_ref().err().copied(),
                "{position} at {scale:?}"
            );
        }
        match decoded {
            Ok((_, _, pixels)) => {
                let sum: u64 = whole.iter().zip(&pixels).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let difference = sum as f64 / whole.len() as f64;
                max_difference = max_difference.max(difference);
            }
            Err(_) => refused_count += 1,
        }
    }
    (copy_count, refused_count, max_difference)
}

fn large_picture() -> TestPicture {
    TestPicture { width: 320, height: 240, ..usual_picture() }
}

#[test]
fn zero_bytes_in_the_data_of_a_sequential_file_are_refused() {
    for restart_interval in [0, 20] {
        for quality in [50, 85, 95] {
            let file = TestPicture { restart_interval, quality, ..large_picture() }.encode();
            let (copy_count, refused_count, _) = overwrite_with_zeros(&file);
            assert_eq!(
                refused_count, copy_count,
                "quality {quality}, restarts every {restart_interval} MCUs"
            );
        }
    }
}

#[test]
fn zero_bytes_in_the_data_of_a_progressive_file_are_refused_or_change_only_details() {
    let file = with_progressive_scans(&large_picture().encode_in_one_scan(), &usual_script());
    let (copy_count, refused_count, max_difference) = overwrite_with_zeros(&file);
    assert!(10 * refused_count >= 8 * copy_count, "{refused_count} of {copy_count}");
    assert!(max_difference < 3.0, "{max_difference}");
}

#[test]
fn dc_coefficient_far_out_of_range_is_refused() {
    // Each block has a difference of 2047, the largest of its length, and no AC coefficients.
    let file = TestPicture { sampling: None, width: 80, height: 8, quality: 100, ..usual_picture() }.encode();
    let mut differences = file[..entropy_coded_start(&file)].to_vec();
    for _ in 0..10 {
        // In the standard tables, 111111110 is the code word of differences of 11 bits, and 1010 ends a block.
        differences.extend([0b1111_1111, 0, 0b0111_1111, 0b1111_1010]);
    }
    differences.extend(b"\xFF\xD9");
    for scale in Scale::ALL {
        assert_eq!(decode(&differences, scale), Err(Error::Corrupt("a DC coefficient is out of range")));
    }
}
