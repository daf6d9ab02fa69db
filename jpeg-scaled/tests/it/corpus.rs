//! What fuzzing starts from, and what it has found, decoded once more.

use std::{fs, path::Path};

use jpeg_scaled::{Header, Scale, Workspace};

/// What `fuzz/fuzz_targets/jpeg_scaled.rs` does with its bytes.
#[test]
fn the_corpus_of_the_fuzz_target_is_decoded_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/jpeg_scaled");
    let (mut decoded, mut refused) = (0, 0);
    let mut workspace = Workspace::default();
    for entry in fs::read_dir(corpus).unwrap() {
        let file = fs::read(entry.unwrap().path()).unwrap();
        let Ok(header) = Header::read(&file) else {
            refused += 1;
            continue;
        };
        if u64::from(header.width) * u64::from(header.height) > 1 << 20 {
            continue;
        }
        for scale in Scale::ALL {
            match workspace.decode(&file, scale) {
                Ok(_) => decoded += 1,
                Err(_) => refused += 1,
            }
        }
    }
    assert!(decoded > 10 && refused > 10, "{decoded} decoded, {refused} refused");
}
