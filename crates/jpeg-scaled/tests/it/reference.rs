//! Compares decoded pixels with recorded hashes of libjpeg-turbo's pixels.
//!
//! The test `turbo::write_reference` writes the files and hashes to `tests/reference/`.

use std::{fs, path::PathBuf};

use jpeg_scaled::{Decoder, Scale};
use sha2::{Digest, Sha256};

use crate::files::to_rgb;

pub(crate) fn reference_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/reference")
}

/// Formats a line of `pixels.tsv`: size and hash of a file decoded at a scale.
pub(crate) fn format_line(name: &str, scale: Scale, width: u32, height: u32, rgb: &[u8]) -> String {
    let denominator = scale.denominator();
    format!("{name}\t1/{denominator}\t{width}×{height}\t{}\n", hex::encode(&Sha256::digest(rgb)[..16]))
}

#[test]
fn reference_files_decode_to_the_recorded_pixels_of_libjpeg_turbo() {
    let mut names: Vec<String> = (fs::read_dir(reference_folder()).unwrap())
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".jpg"))
        .collect();
    names.sort();
    let mut decoder = Decoder::default();
    let mut actual = String::new();
    for name in &names {
        let file = fs::read(reference_folder().join(name)).unwrap();
        for scale in Scale::ALL {
            let picture = decoder.decode(&file, scale).unwrap();
            actual += &format_line(name, scale, picture.width, picture.height, &to_rgb(&picture));
        }
    }
    assert_eq!(actual, fs::read_to_string(reference_folder().join("pixels.tsv")).unwrap());
}
