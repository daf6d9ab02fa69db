//! Replays the fuzz corpus on stable Rust, with the assertions of the targets in `fuzz/`.

use std::{fs, path::PathBuf};

use preprocess::image::{Coding, Limits, ProcessingPlan, Recipe, process};

use super::{FILES, files::HostileFile};
use crate::test_image::recipe;

/// Maximum length of a corpus file. Fuzzing is too slow with longer files.
const MAX_CORPUS_FILE_BYTES: usize = 12_000;

fn corpus_folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// Returns the content of every file in the corpus of a fuzz target.
fn read_corpus(target: &str) -> impl Iterator<Item = Vec<u8>> {
    fs::read_dir(corpus_folder(target)).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap())
}

/// Replays the corpus of `fuzz/fuzz_targets/header.rs`.
#[test]
fn every_file_of_the_header_corpus_gives_a_plan_within_the_limits_or_an_error() {
    let recipe = recipe();
    let limits = &recipe.limits;
    let (mut planned_count, mut refused_count) = (0, 0);
    for file in read_corpus("header") {
        let Ok(plan) = ProcessingPlan::new(&file, &recipe) else {
            refused_count += 1;
            continue;
        };
        planned_count += 1;
        let (header, cost) = (plan.header(), plan.cost());
        assert!(header.width >= 1 && header.height >= 1);
        assert!(header.width.max(header.height) <= limits.max_side);
        assert!(cost.pixels == header.pixel_count() && cost.pixels <= limits.max_pixels);
        assert!((1..=limits.max_processing_bytes).contains(&cost.bytes));
        if let Coding::Jpeg(jpeg) = header.coding {
            assert!((1..=limits.max_scans).contains(&jpeg.scan_count));
        }
    }
    assert!(planned_count >= 20 && refused_count >= 20, "{planned_count} planned, {refused_count} refused");
}

/// Replays the corpus of `fuzz/fuzz_targets/preprocess.rs`.
///
/// The fuzz target also checks the memory with a counting allocator. This test does not, because the
/// allocator would also count the memory of other tests that run at the same time.
#[test]
fn every_file_of_the_preprocess_corpus_gives_an_image_or_an_error() {
    let limits = Limits { max_pixels: 1 << 18, max_kept_bytes: 1 << 20, ..recipe().limits };
    let recipe = Recipe { shorter_side: 32, limits, ..recipe() };
    let (mut processed_count, mut refused_count) = (0, 0);
    for file in read_corpus("preprocess") {
        match process(&file, &recipe) {
            Ok(image) => {
                assert!(image.width >= 1 && image.height >= 1);
                assert!(image.jpeg.starts_with(b"\xFF\xD8") && image.jpeg.ends_with(b"\xFF\xD9"));
                processed_count += 1;
            }
            Err(_) => refused_count += 1,
        }
    }
    assert!(
        processed_count >= 20 && refused_count >= 20,
        "{processed_count} processed, {refused_count} refused"
    );
}

#[test]
#[ignore = "overwrites the fuzz corpus"]
fn write_the_corpus() {
    for target in ["header", "preprocess"] {
        fs::create_dir_all(corpus_folder(target)).unwrap();
        for HostileFile { name, bytes, .. } in
            FILES.iter().filter(|file| file.bytes.len() <= MAX_CORPUS_FILE_BYTES)
        {
            fs::write(corpus_folder(target).join(name), bytes).unwrap();
        }
    }
}
