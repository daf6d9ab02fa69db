//! Tests with the public test images of other image libraries. Many of the images are damaged.
//!
//! `.ci/corpora` downloads the images.

#[cfg(not(any(feature = "turbo", feature = "avif")))]
mod comparison;
#[cfg(not(any(feature = "turbo", feature = "avif")))]
mod difference;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::hostile::{exceeds_memory, rig};

/// Returns the folder with this name in the folder of the build.
fn target_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target").join(name)
}

/// Returns every file in a folder and its subfolders.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files_in(&path) } else { vec![path] }).collect()
}

/// Each image must be processed or refused within the memory of its processing plans.
#[test]
fn public_image_is_processed_or_refused_within_the_planned_memory() {
    let folder = target_folder("corpora");
    if !folder.is_dir() {
        println!("SKIPPED: public images: {} is not there (see .ci/corpora)", folder.display());
        return;
    }
    let (mut processed_count, mut failures) = (0, Vec::new());
    let files = files_in(&folder);
    for path in &files {
        let measured = rig::measure(&fs::read(path).unwrap());
        println!("{}: {measured:?}", path.display());
        processed_count += usize::from(measured.outcome == rig::PROCESSED);
        // The outcome `internal` means a bug of this crate.
        if exceeds_memory(&measured) || measured.outcome == "internal" {
            failures.push(format!("{}: {measured:?}", path.display()));
        }
    }
    println!("{processed_count} of {} images were processed", files.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(
        processed_count * 2 > files.len(),
        "only {processed_count} of {} images were processed",
        files.len()
    );
}
