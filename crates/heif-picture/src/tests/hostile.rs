//! Tests with hostile files.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::test_file::{QUARTERS, SIDE, TestFile, TestItem, find_in_meta, hvcc, ispe, sps};
use super::test_sequence::sequence_with_alpha;
use crate::{Error, Plan};

pub(super) fn plan_error(file: &[u8]) -> Error {
    match Plan::read(file) {
        Ok(_) => panic!("the file was accepted"),
        Err(error) => error,
    }
}

#[track_caller]
pub(super) fn assert_corrupt(file: &TestFile, reason: &str) {
    let error = plan_error(&file.write());
    assert!(!error.is_unsupported() && error.to_string().contains(reason), "{error}");
}

#[track_caller]
pub(super) fn assert_unsupported(file: &TestFile, reason: &str) {
    let error = plan_error(&file.write());
    assert!(error.is_unsupported() && error.to_string().contains(reason), "{error}");
}

pub(super) fn coded_pixels(file: &TestFile) -> u64 {
    Plan::read(&file.write()).unwrap().coded_pixels()
}

/// Plans and decodes a file if that is cheap.
pub(super) fn process(file: &[u8]) -> Result<(), Error> {
    let plan = Plan::read(file)?;
    let (width, height) = plan.size();
    if plan.coded_pixels() > 1 << 16 || u64::from(width) * u64::from(height) > 1 << 16 {
        return Ok(());
    }
    let (mut colours, mut alpha) = (vec![0; plan.colour_bytes()], vec![0; plan.alpha_bytes()]);
    plan.decode(&mut colours, &mut alpha)
}

/// Returns units with their lengths.
pub(super) fn units(units: &[&[u8]]) -> Vec<u8> {
    units
        .iter()
        .flat_map(|unit| [&u32::try_from(unit.len()).unwrap().to_be_bytes(), *unit].concat())
        .collect()
}

#[test]
fn coded_pixels_are_the_maximum_of_all_parameter_sets() {
    let mut file = TestFile::with_picture();
    file.items[0] = TestItem::with_parameter_set(1, &sps(4096, 4096, None), (64, 64));
    assert_eq!(coded_pixels(&file), 1 << 24);
    // A small set follows a large one.
    file.items[0].properties[0].1 = hvcc(&[&sps(4096, 4096, None), &sps(64, 64, None)]);
    assert_eq!(coded_pixels(&file), 1 << 24);
    // The large set is in the coded data.
    file.items[0] = TestItem::with_parameter_set(1, &sps(64, 64, None), (64, 64));
    file.items[0].extents = vec![units(&[&[0x46, 1, 0], &sps(8192, 4096, None)])];
    assert_eq!(coded_pixels(&file), 1 << 25);
    assert!(Plan::read(&file.write()).unwrap().decoder_bytes() > 5 << 25);
}

#[test]
fn tiles_count_as_often_as_they_are_used_and_even_if_they_are_not_shown() {
    let mut file = TestFile::with_grid((3, 5), (60, 40));
    file.items[0] = TestItem::with_parameter_set(1, &sps(4096, 4096, None), (64, 64));
    assert_eq!(coded_pixels(&file), 15 << 24);
}

#[test]
fn largest_sizes_do_not_overflow() {
    let mut file = TestFile::with_grid((255, 4), (60, 40));
    file.items[0] = TestItem::with_parameter_set(1, &sps(1 << 15, 1 << 15, None), (64, 64));
    assert_eq!(coded_pixels(&file), 1020 << 30);
    let mut file = TestFile::with_picture();
    // The largest number of the code is 2³² - 2.
    for (width, height) in [((1 << 15) + 8, 8), (8, (1 << 15) + 8), (0xFFFF_FFF8, 0xFFFF_FFF8)] {
        file.items[0] = TestItem::with_parameter_set(1, &sps(width, height, None), (8, 8));
        assert_unsupported(&file, "side above");
    }
    file.items[0] = TestItem {
        properties: vec![(b"hvcC", hvcc(&[])), (b"ispe", ispe(u32::MAX, u32::MAX))],
        ..TestItem::picture(1)
    };
    assert!(process(&file.write()).is_err());
}

#[test]
fn long_configurations_and_parameter_sets_are_refused() {
    let mut file = TestFile::with_picture();
    let (config, picture) = (file.items[0].properties[0].1.clone(), file.items[0].extents[0].clone());
    file.items[0].properties[0].1.resize((64 << 10) + 1, 0);
    assert_corrupt(&file, "configuration is too long");
    file.items[0].properties[0].1 = config;
    let pps = [&[0x44, 1][..], &[0xFF; 8 << 10]].concat();
    file.items[0].extents = vec![[units(&[&pps]), picture].concat()];
    assert_corrupt(&file, "parameter set is too long");
}

#[test]
fn parameter_sets_of_an_item_are_limited_in_number() {
    let sps = sps(64, 64, None);
    for (unit, max_count) in [(&sps[..], 16), (&[0x44, 1, 0xFF], 64)] {
        let mut file = TestFile::with_picture();
        // One of them is in the configuration.
        file.items[0] = TestItem::with_parameter_set(1, &sps, (64, 64));
        file.items[0].properties[0].1 = if unit == sps { hvcc(&[unit]) } else { hvcc(&[&sps, unit]) };
        file.items[0].extents = vec![units(&vec![unit; max_count - 1])];
        Plan::read(&file.write()).unwrap();
        file.items[0].extents = vec![units(&vec![unit; max_count])];
        assert_unsupported(&file, &format!("more than {max_count} parameter sets"));
    }
}

#[test]
fn decoder_is_limited_to_the_pixels_of_the_plan() {
    let mut file = TestFile::with_picture();
    file.items[0].properties[1].1 = ispe(65, 64);
    assert_corrupt(&file, "smaller than its item");
    // Without a parameter set there would be no limit.
    file.items[0] =
        TestItem { properties: vec![(b"hvcC", hvcc(&[])), (b"ispe", ispe(9, 9))], ..TestItem::picture(1) };
    assert!(process(&file.write()).is_err());
}

#[test]
fn cycles_and_deep_derivations_are_refused() {
    let mut grid = TestFile::with_grid((1, 2), (64, 64));
    grid.references = vec![(b"dimg", 100, vec![100, 100])];
    assert!(plan_error(&grid.write()).is_unsupported());
    let mut chain = TestFile::with_picture();
    for id in 2..=6 {
        chain.items.push(TestItem { kind: b"iden", extents: vec![], ..TestItem::picture(id) });
        chain.references.push((b"dimg", id, vec![id - 1]));
    }
    chain.primary = 5;
    assert!(Plan::read(&chain.write()).is_ok());
    chain.primary = 6;
    assert_unsupported(&chain, "derived more than 4 times");
    chain.references[0] = (b"dimg", 2, vec![6]);
    assert_unsupported(&chain, "derived more than 4 times");
    // A picture that is its own alpha channel.
    let mut own_alpha = TestFile::with_picture();
    own_alpha.items[0] = TestItem::picture(1).with_alpha_name();
    own_alpha.references.push((b"auxl", 1, vec![1]));
    process(&own_alpha.write()).unwrap();
}

#[test]
fn too_many_parts_are_refused() {
    assert!(Plan::read(&TestFile::with_grid((30, 39), (64, 64)).write()).is_ok());
    assert_unsupported(&TestFile::with_grid((30, 40), (64, 64)), "more than 1200 parts");
    let mut nested = TestFile::with_grid((30, 30), (64, 64));
    nested.items.push(TestItem::grid(101, (30, 30), (64, 64)));
    nested.references.push((b"dimg", 101, vec![100; 900]));
    nested.primary = 101;
    assert_unsupported(&nested, "more than 1200 parts");
    let mut many = TestFile::with_picture();
    many.items.extend((2..=4097).map(|id| TestItem {
        properties: vec![],
        extents: vec![],
        ..TestItem::grid(id, (1, 1), (1, 1))
    }));
    assert_unsupported(&many, "more than 4096 items");
}

#[test]
fn sizes_of_zero_are_refused() {
    let mut file = TestFile::with_picture();
    for (width, height) in [(0, 64), (64, 0), (0, 0)] {
        file.items[0].properties[1].1 = ispe(width, height);
        assert_corrupt(&file, "width or height 0");
    }
    assert_corrupt(&TestFile::with_grid((1, 1), (0, 64)), "width or height 0");
    file.items[0].properties.truncate(1);
    assert_corrupt(&file, "no size");
}

#[test]
fn contradictory_grids_are_refused() {
    let mut file = TestFile::with_grid((2, 2), (128, 128));
    file.references = vec![(b"dimg", 100, vec![1; 3])];
    assert_corrupt(&file, "wrong number of tiles");
    assert_corrupt(&TestFile::with_grid((2, 2), (129, 128)), "do not cover");
    let mut file = TestFile::with_grid((1, 2), (128, 64));
    file.items.push(TestItem::with_parameter_set(2, &sps(32, 64, None), (32, 64)));
    file.references = vec![(b"dimg", 100, vec![1, 2])];
    assert_corrupt(&file, "different sizes");
    file.references = vec![(b"dimg", 100, vec![1, 77])];
    assert_corrupt(&file, "item is missing");
}

/// libheif refuses such files, too. A crop would show the wrong part of the picture.
#[test]
fn coded_picture_of_another_size_than_its_item_is_refused() {
    let refuses = |file: &TestFile| !process(&file.write()).unwrap_err().is_unsupported();
    for (width, height) in [(32, 32), (63, 64), (64, 63), (65, 64), (128, 128)] {
        let mut file = TestFile::with_picture();
        file.items[0].properties[1].1 = ispe(width, height);
        assert!(refuses(&file), "{width}×{height}");
    }
    let mut grid = TestFile::with_grid((1, 2), (126, 64));
    grid.items[0].properties[1].1 = ispe(63, 64);
    assert!(refuses(&grid));
    // The alpha channel of a tile.
    let mut alpha = TestFile::with_grid((1, 2), (128, 64));
    alpha.items.push(TestItem::picture(2).with_alpha_name());
    alpha.items[2].properties[1].1 = ispe(32, 64);
    alpha.references.push((b"auxl", 2, vec![1]));
    assert!(refuses(&alpha));
}

#[test]
fn data_outside_the_file_is_refused() {
    let bytes = TestFile::with_picture().write();
    // The fields behind the version, the sizes of the fields, the count, the id, the method, the file and the count of
    // extents.
    let extent = find_in_meta(&bytes, b"iloc") + 4 + 2 + 2 + 2 + 2 + 2 + 2;
    for (offset, length) in [(0u32, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX), (1 << 20, 0)] {
        let mut file = bytes.clone();
        file[extent..extent + 4].copy_from_slice(&offset.to_be_bytes());
        file[extent + 4..extent + 8].copy_from_slice(&length.to_be_bytes());
        let error = plan_error(&file);
        assert!(!error.is_unsupported() && error.to_string().contains("outside the file"), "{error}");
    }
    // Extents without any byte in the file.
    let mut file = bytes.clone();
    let sizes = find_in_meta(&bytes, b"iloc") + 4;
    file[sizes] = 0;
    file[extent - 2..extent].copy_from_slice(&[0xFF, 0xFF]);
    let error = plan_error(&file);
    assert!(error.is_unsupported() && error.to_string().contains("extents"), "{error}");
}

#[test]
fn units_are_limited_in_number() {
    let mut file = TestFile::with_picture();
    let picture = file.items[0].extents[0].clone();
    file.items[0].extents = vec![[units(&vec![&[0x4E, 1][..]; 2047]), picture.clone()].concat()];
    process(&file.write()).unwrap();
    file.items[0].extents = vec![[units(&vec![&[0x4E, 1][..]; 2048]), picture].concat()];
    assert_unsupported(&file, "more than 2048 units");
}

#[test]
fn parts_that_share_much_data_are_refused() {
    let mut file = TestFile::with_grid((30, 30), (64, 64));
    let padding = [&[0x4E, 1][..], &vec![0xFF; 20_000]].concat();
    file.items[0].extents[0].extend(units(&[&padding]));
    assert_corrupt(&file, "share their data");
}

#[test]
fn unsupported_features_are_named() {
    let with_item = |item| TestFile { items: vec![item], ..TestFile::with_picture() };
    let picture = || TestItem::picture(1);
    assert_unsupported(&with_item(TestItem { kind: b"iovl", ..picture() }), "overlay");
    assert_unsupported(&with_item(TestItem { is_encrypted: true, ..picture() }), "encrypted");
    assert_unsupported(&with_item(picture().with(b"abcd", [])), "essential property `abcd`");
    let jpeg = with_item(TestItem { kind: b"jpeg", ..picture() });
    assert!(matches!(plan_error(&jpeg.write()), Error::OtherCodec(kind) if kind == *b"jpeg"));
    let mut turned_tile = TestFile::with_grid((1, 1), (64, 64));
    turned_tile.items[0] = picture().with(b"irot", [1]);
    assert_unsupported(&turned_tile, "turned or cropped on its own");
}

/// A build without AV1 names the codec, so that the caller can tell the user.
#[cfg(not(feature = "avif"))]
#[test]
fn av1_is_named_without_its_feature() {
    let error = plan_error(include_bytes!("quarters.avif"));
    assert!(matches!(error, Error::OtherCodec(kind) if kind == *b"av01"), "{error}");
}

#[test]
fn truncated_file_is_refused_at_every_length() {
    for length in 0..QUARTERS.len() {
        assert!(process(&QUARTERS[..length]).is_err(), "{length} bytes");
    }
    process(QUARTERS).unwrap();
}

/// Replays the corpus of `fuzz/fuzz_targets/heif_picture.rs`.
#[test]
fn every_file_of_the_corpus_gives_a_picture_or_an_error() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/heif_picture");
    let files = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    let decoded_count = files.filter(|file| process(file).is_ok()).count();
    assert!(decoded_count >= 10, "{decoded_count} files were decoded");
}

/// Returns files that use most features.
fn valid_files() -> Vec<Vec<u8>> {
    let mut rich = TestFile::with_grid((2, 2), (100, 90));
    rich.items.push(TestItem::grid(101, (2, 2), (100, 90)).with_alpha_name().with(b"irot", [1]));
    rich.items.push(TestItem::picture(2).with(b"colr", b"nclx\0\x01\0\x0D\0\x06\x80".as_slice()));
    rich.references = vec![
        (b"dimg", 100, vec![1, 2, 1, 1]),
        (b"dimg", 101, vec![1; 4]),
        (b"auxl", 101, vec![100]),
        (b"prem", 100, vec![101]),
    ];
    let crop = [32u32, 1, 16, 1, 0, 1, 0, 1].iter().flat_map(|field| field.to_be_bytes()).collect::<Vec<_>>();
    rich.items[1] = rich.items[1].clone().with(b"clap", crop).with(b"imir", [1]).with(b"irot", [3]);
    vec![
        QUARTERS.to_vec(),
        TestFile::with_picture().write(),
        rich.write(),
        sequence_with_alpha(),
        #[cfg(feature = "avif")]
        include_bytes!("quarters.avif").to_vec(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_file_causes_no_panic(
        file in prop::sample::select(valid_files()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        length in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = file;
        for (index, byte) in changes {
            let index = index.index(file.len());
            file[index] = byte;
        }
        if let Some(length) = length {
            file.truncate(length.index(file.len()));
        }
        let _ = process(&file);
    }
}

#[test]
fn valid_files_of_the_mutation_test_are_decoded() {
    for file in valid_files() {
        process(&file).unwrap();
    }
    assert_eq!(Plan::read(QUARTERS).unwrap().size(), (SIDE, SIDE));
}
