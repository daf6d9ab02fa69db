//! What fuzzing starts from, and what it has found, decoded once more.

use std::{fs, path::PathBuf};

use jpeg_scaled::{Colour, Header, Scale, Workspace};

use crate::files::{Recipe, pixels_at, position, renamed, usual, usual_recipe, with_inserted, without};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/jpeg_scaled")
}

/// What `fuzz/fuzz_targets/jpeg_scaled.rs` does with its bytes.
#[test]
fn the_corpus_of_the_fuzz_target_is_decoded_or_refused() {
    let (mut decoded, mut refused) = (0, 0);
    let mut workspace = Workspace::default();
    for entry in fs::read_dir(folder()).unwrap() {
        let file = fs::read(entry.unwrap().path()).unwrap();
        let Ok(Header { width, height, colour }) = Header::read(&file) else {
            refused += 1;
            continue;
        };
        if u64::from(width) * u64::from(height) > 1 << 20 {
            continue;
        }
        for scale in Scale::ALL {
            match workspace.decode(&file, scale) {
                Ok(picture) => {
                    assert_eq!((picture.width, picture.height), (scale.apply(width), scale.apply(height)));
                    let channels = if colour == Colour::Grey { 1 } else { 3 };
                    assert_eq!(
                        picture.pixels.len(),
                        channels * picture.width as usize * picture.height as usize
                    );
                    decoded += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(decoded >= 20 && refused >= 10, "{decoded} decoded, {refused} refused");
}

#[test]
#[ignore = "it writes what fuzzing starts from anew"]
fn write_the_corpus() {
    let small = Recipe { width: 19, height: 21, ..usual_recipe() };
    let sampled = |across, down| Recipe { sampling: Some((across, down)), ..small.clone() }.encode();
    let restarts = Recipe { restart_interval: 1, width: 40, ..small.clone() }.encode();
    let file = usual();
    let middle = usize::midpoint(pixels_at(&file), file.len());
    let mut wide = file.clone();
    wide[position(&file, 0xC0) + 7] = 2;
    let files: [(&str, Vec<u8>); 14] = [
        ("420", file.clone()),
        ("420-fine", Recipe { quality: 100, noise: 255, ..small.clone() }.encode()),
        ("422", sampled(2, 1)),
        ("440", sampled(1, 2)),
        ("444", sampled(1, 1)),
        ("grey", Recipe { sampling: None, ..small.clone() }.encode()),
        ("rgb", renamed(&without(&sampled(1, 1), 0xE0), *b"RGB")),
        ("restarts", restarts.clone()),
        ("restarts-cut", restarts[..restarts.len() - 30].to_vec()),
        ("cut", file[..middle].to_vec()),
        ("marker-inside", with_inserted(&file, middle, b"\xFF\xD3")),
        ("no-tables", without(&file, 0xC4)),
        ("no-pixels", file[..pixels_at(&file)].to_vec()),
        ("wider-than-it-is", wide),
    ];
    fs::create_dir_all(folder()).unwrap();
    for (name, file) in files {
        fs::write(folder().join(name), file).unwrap();
    }
}
