//! Compares the pixels of progressive files with those of the same coefficients in a sequential file, and
//! tests progressive files that are incomplete or damaged.

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use jpeg_scaled::{Decoder, Error, Scale};
use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::TestRunner,
};

use crate::{
    files::{TestPicture, decode, proptest_config, test_pictures, usual_picture},
    progressive_writer::{Scan, scripts, usual_script, with_progressive_scans},
};

/// Returns a progressive file of [`usual_picture`] with the usual scans.
pub(crate) fn usual_progressive_file() -> Vec<u8> {
    with_progressive_scans(&usual_picture().encode_in_one_scan(), &usual_script())
}

#[test]
fn progressive_picture_has_the_pixels_of_the_same_coefficients_in_a_sequential_file() {
    TestRunner::new(proptest_config(1500))
        .run(&(test_pictures(), scripts(3), scripts(1)), |(test_picture, scans, grey_scans)| {
            let sequential = test_picture.encode_in_one_scan();
            let scans = if test_picture.sampling.is_some() { &scans } else { &grey_scans };
            let progressive = with_progressive_scans(&sequential, scans);
            for scale in Scale::ALL {
                prop_assert!(decode(&progressive, scale) == decode(&sequential, scale), "{scale:?}");
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn progressive_file_of_jpeg_encoder_has_the_pixels_of_its_sequential_file() {
    for (across, down) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        for is_optimized in [false, true] {
            let encode = |is_progressive| {
                let mut file = Vec::new();
                let mut encoder = Encoder::new(&mut file, 90);
                encoder.set_sampling_factor(SamplingFactor::from_factors(across, down).unwrap());
                encoder.set_progressive(is_progressive);
                encoder.set_optimized_huffman_tables(is_optimized);
                encoder.encode(&usual_picture().draw(), 45, 37, ColorType::Rgb).unwrap();
                file
            };
            for scale in Scale::ALL {
                assert!(decode(&encode(true), scale).unwrap() == decode(&encode(false), scale).unwrap());
            }
        }
    }
}

#[test]
fn long_runs_of_blocks_without_coefficients_are_decoded() {
    // 1200 × 1792 pixels have 33,600 blocks, more than the 32,767 of the longest run.
    let grey = vec![90; 1200 * 1792];
    let mut sequential = Vec::new();
    Encoder::new(&mut sequential, 90).encode(&grey, 1200, 1792, ColorType::Luma).unwrap();
    let scan = |band, missing_before, missing_after| Scan {
        components: vec![0],
        band,
        missing_before,
        missing_after,
        restart_interval: 0,
    };
    let scans = [scan((0, 0), 0, 0), scan((1, 63), 0, 1), scan((1, 63), 1, 0)];
    let progressive = with_progressive_scans(&sequential, &scans);
    assert!(progressive.len() < sequential.len());
    for scale in Scale::ALL {
        assert!(decode(&progressive, scale).unwrap() == decode(&sequential, scale).unwrap());
    }
}

#[test]
fn progressive_file_without_its_last_refinements_is_decoded_if_it_has_an_end_marker() {
    let sequential = usual_picture().encode_in_one_scan();
    let script = usual_script();
    let whole = decode(&sequential, Scale::Full).unwrap().2;
    for scan_count in 1..script.len() {
        let file = with_progressive_scans(&sequential, &script[..scan_count]);
        for scale in Scale::ALL {
            decode(&file, scale).unwrap();
            // Without the end marker, the missing scans may have been cut off.
            assert_eq!(decode(&file[..file.len() - 2], scale), Err(Error::Truncated));
        }
        let pixels = decode(&file, Scale::Full).unwrap().2;
        let difference: u64 = pixels.iter().zip(&whole).map(|(&a, &b)| u64::from(a.abs_diff(b))).sum();
        // From the fifth scan on, only refinements are missing.
        assert!(scan_count < 5 || difference < 8 * whole.len() as u64, "{scan_count} scans: {difference}");
    }
}

#[test]
fn progressive_file_without_a_component_is_refused_as_truncated() {
    let sequential = usual_picture().encode_in_one_scan();
    let script: Vec<Scan> = (usual_script().into_iter())
        .filter(|scan| scan.components != [2])
        .map(|scan| Scan {
            components: scan.components.into_iter().filter(|&index| index != 2).collect(),
            ..scan
        })
        .collect();
    let file = with_progressive_scans(&sequential, &script);
    for scale in Scale::ALL {
        assert_eq!(decode(&file, scale), Err(Error::Truncated));
    }
}

#[test]
fn cut_progressive_file_is_refused_as_truncated_unless_only_the_end_marker_is_missing() {
    let cuts = prop::collection::vec(any::<Index>(), 40);
    TestRunner::new(proptest_config(200))
        .run(&(test_pictures(), scripts(3), cuts), |(test_picture, scans, cuts)| {
            prop_assume!(test_picture.sampling.is_some());
            let file = with_progressive_scans(&test_picture.encode_in_one_scan(), &scans);
            for scale in Scale::ALL {
                let whole = decode(&file, scale).unwrap();
                prop_assert!(decode(&file[..file.len() - 2], scale) == Ok(whole));
                for length in cuts.iter().map(|cut| cut.index(file.len() - 4)) {
                    let refused = decode(&file[..length], scale);
                    prop_assert_eq!(refused, Err(Error::Truncated), "cut to {} bytes", length);
                }
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn progressive_file_that_is_cut_inside_a_scan_is_refused_despite_an_end_marker() {
    let file = usual_progressive_file();
    let markers = [scan_positions(&file), vec![file.len() - 2]].concat();
    for scan in markers.windows(2) {
        let cut_file = [&file[..usize::midpoint(scan[0] + 12, scan[1])], b"\xFF\xD9"].concat();
        for scale in Scale::ALL {
            assert_eq!(decode(&cut_file, scale), Err(Error::Truncated));
        }
    }
}

/// Returns the positions of the scan headers.
fn scan_positions(file: &[u8]) -> Vec<usize> {
    let pairs = file.windows(2).enumerate();
    pairs.filter(|(_, pair)| *pair == [0xFF, 0xDA]).map(|(position, _)| position).collect()
}

#[test]
fn scans_that_repeat_or_omit_bits_are_refused_as_corrupt() {
    let sequential = usual_picture().encode_in_one_scan();
    let usual = usual_script();
    let mut scripts = Vec::new();
    for index in 0..usual.len() {
        let mut repeated = usual.clone();
        repeated.insert(index, usual[index].clone());
        scripts.push(repeated);
    }
    let mut ac_first = usual.clone();
    ac_first.swap(0, 1);
    let mut refinement_first = usual.clone();
    refinement_first.swap(1, 5);
    let mut bit_omitted = usual.clone();
    bit_omitted.remove(5);
    scripts.extend([ac_first, refinement_first, bit_omitted]);
    for script in scripts {
        let refused = decode(&with_progressive_scans(&sequential, &script), Scale::Quarter);
        assert!(matches!(refused, Err(Error::Corrupt(_))), "{refused:?} for {script:?}");
    }
}

#[test]
fn file_with_more_scans_than_the_limit_is_refused() {
    let file = usual_progressive_file();
    let mut decoder = Decoder::default();
    decoder.set_max_scans(10);
    decoder.decode(&file, Scale::Full).unwrap();
    decoder.set_max_scans(9);
    assert!(matches!(decoder.decode(&file, Scale::Full), Err(Error::Corrupt(_))));
    // The limit also holds for sequential files.
    let in_scans = TestPicture { scans: Some(&[&[0], &[1], &[2]]), ..usual_picture() }.encode();
    decoder.decode(&in_scans, Scale::Full).unwrap();
    decoder.set_max_scans(2);
    assert!(matches!(decoder.decode(&in_scans, Scale::Full), Err(Error::Corrupt(_))));
}

#[test]
fn fuzzed_scan_headers_never_cause_a_panic() {
    let file = usual_progressive_file();
    let changes = prop::collection::vec((select(scan_positions(&file)), 2..12usize, any::<u8>()), 1..4);
    TestRunner::new(proptest_config(2000))
        .run(&changes, |changes| {
            let mut file = file.clone();
            for (header, offset, byte) in changes {
                file[header + offset] = byte;
            }
            for scale in Scale::ALL {
                let _ = decode(&file, scale);
            }
            Ok(())
        })
        .unwrap();
}
