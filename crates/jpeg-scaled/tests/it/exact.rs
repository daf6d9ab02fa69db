//! The pixels are those of libjpeg-turbo, to the bit: files and what it made of them are written down
//! in `tests/reference/`, by the test `turbo::write_the_reference`.

use std::{fs, path::PathBuf};

use jpeg_scaled::{Scale, Workspace};
use sha2::{Digest, Sha256};

use crate::files::rgb;

pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

/// A line of `pixels.tsv`: what a file is at a scale.
pub(crate) fn line(name: &str, scale: Scale, width: u32, height: u32, rgb: &[u8]) -> String {
    let denominator = scale.denominator();
    format!("{name}\t1/{denominator}\t{width}×{height}\t{}\n", hex::encode(&Sha256::digest(rgb)[..16]))
}

#[test]
fn the_reference_files_have_the_pixels_of_libjpeg_turbo() {
    let mut names: Vec<String> = (fs::read_dir(folder()).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".jpg"))
        .collect();
    names.sort();
    let mut workspace = Workspace::default();
    let mut found = String::new();
    for name in &names {
        let file = fs::read(folder().join(name)).unwrap();
        for scale in Scale::ALL {
            let picture = workspace.decode(&file, scale).unwrap();
            found += &line(name, scale, picture.width, picture.height, &rgb(&picture));
        }
    }
    assert_eq!(found, fs::read_to_string(folder().join("pixels.tsv")).unwrap());
}
