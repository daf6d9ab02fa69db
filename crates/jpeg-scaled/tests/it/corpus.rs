//! Replays the corpus of the fuzz target: its initial files and the files that the fuzzer has found.

use std::{fs, path::PathBuf};

use jpeg_encoder::ColorType;
use jpeg_scaled::{Decoder, JpegHeader, Scale};

use crate::files::{
    TestPicture, entropy_coded_start, segment_position, usual_file, usual_picture, with_component_ids,
    with_inserted, without_segment,
};
use crate::{
    cmyk::encode_cmyk,
    progressive_writer::{Scan, usual_script, with_progressive_scans},
    scans::{with_last_scan_twice, without_last_scan},
};

fn corpus_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/jpeg_scaled")
}

/// Makes the same checks as `fuzz/fuzz_targets/jpeg_scaled.rs`.
#[test]
fn every_file_of_the_fuzz_corpus_is_decoded_or_refused() {
    let (mut decoded_count, mut refused_count) = (0, 0);
    let mut decoder = Decoder::default();
    for entry in fs::read_dir(corpus_folder()).unwrap() {
        let file = fs::read(entry.unwrap().path()).unwrap();
        let Ok(JpegHeader { width, height, colour_space, .. }) = JpegHeader::read(&file) else {
            refused_count += 1;
            continue;
        };
        if u64::from(width) * u64::from(height) > 1 << 20 {
            continue;
        }
        for scale in Scale::ALL {
            match decoder.decode(&file, scale) {
                Ok(picture) => {
                    assert_eq!((picture.width, picture.height), (scale.apply(width), scale.apply(height)));
                    assert_eq!(
                        picture.pixels.len(),
                        colour_space.channel_count() * picture.width as usize * picture.height as usize
                    );
                    decoded_count += 1;
                }
                Err(_) => refused_count += 1,
            }
        }
    }
    assert!(decoded_count >= 20 && refused_count >= 10, "{decoded_count} decoded, {refused_count} refused");
}

#[test]
#[ignore = "writes the initial files of the fuzz corpus"]
fn write_fuzz_corpus() {
    let small_picture = TestPicture { width: 19, height: 21, ..usual_picture() };
    let sampled =
        |across, down| TestPicture { sampling: Some((across, down)), ..small_picture.clone() }.encode();
    let restarts = TestPicture { restart_interval: 1, width: 40, ..small_picture.clone() }.encode();
    let file = usual_file();
    let middle_position = usize::midpoint(entropy_coded_start(&file), file.len());
    let mut too_wide = file.clone();
    too_wide[segment_position(&file, 0xC0) + 7] = 2;
    let scans = TestPicture { scans: Some(&[&[2], &[0], &[1]]), ..small_picture.clone() }.encode();
    let scan_restarts =
        TestPicture { scans: Some(&[&[0], &[1, 2]]), restart_interval: 2, ..small_picture.clone() }.encode();
    let one_scan = small_picture.encode_in_one_scan();
    let progressive = with_progressive_scans(&one_scan, &usual_script());
    let with_restarts = |scan: Scan| Scan { restart_interval: 2, ..scan };
    let restarts_script: Vec<Scan> = usual_script().into_iter().map(with_restarts).collect();
    let files: [(&str, Vec<u8>); 25] = [
        ("420", file.clone()),
        ("420-fine", TestPicture { quality: 100, noise: 255, ..small_picture.clone() }.encode()),
        ("422", sampled(2, 1)),
        ("440", sampled(1, 2)),
        ("444", sampled(1, 1)),
        ("grey", TestPicture { sampling: None, ..small_picture.clone() }.encode()),
        ("rgb", with_component_ids(&without_segment(&sampled(1, 1), 0xE0), *b"RGB")),
        ("restarts", restarts.clone()),
        ("restarts-cut", restarts[..restarts.len() - 30].to_vec()),
        ("scans", scans.clone()),
        ("scans-restarts", scan_restarts.clone()),
        ("scans-cut", scan_restarts[..scan_restarts.len() - 30].to_vec()),
        ("scans-missing", without_last_scan(&scans)),
        ("scans-twice", with_last_scan_twice(&scans)),
        ("progressive", progressive.clone()),
        ("progressive-restarts", with_progressive_scans(&one_scan, &restarts_script)),
        ("progressive-cut", progressive[..progressive.len() - 30].to_vec()),
        ("progressive-incomplete", with_progressive_scans(&one_scan, &usual_script()[..6])),
        ("cmyk", encode_cmyk(&small_picture, ColorType::Cmyk, (2, 2), false)),
        ("ycck-progressive", encode_cmyk(&small_picture, ColorType::CmykAsYcck, (2, 1), true)),
        ("cut", file[..middle_position].to_vec()),
        ("marker-inside", with_inserted(&file, middle_position, b"\xFF\xD3")),
        ("no-tables", without_segment(&file, 0xC4)),
        ("no-pixels", file[..entropy_coded_start(&file)].to_vec()),
        ("width-too-large", too_wide),
    ];
    fs::create_dir_all(corpus_folder()).unwrap();
    for (name, file) in files {
        fs::write(corpus_folder().join(name), file).unwrap();
    }
}
