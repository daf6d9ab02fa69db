//! What fuzzing starts from, and what it has found, once more: the targets of `fuzz/` on stable Rust.

use std::{fs, path::PathBuf};

use preprocess::image::{Coding, Limits, Plan, Recipe, process};

use super::{FILES, files::File};
use crate::pictures::recipe;

/// The longest file that fuzzing starts from: longer ones are changed too slowly.
const MOST_BYTES: usize = 12_000;

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

fn corpus(target: &str) -> impl Iterator<Item = Vec<u8>> {
    fs::read_dir(folder(target)).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap())
}

/// What `fuzz/fuzz_targets/header.rs` does with its bytes.
#[test]
fn the_corpus_of_the_header_is_planned_or_refused() {
    let recipe = recipe();
    let limits = &recipe.limits;
    let (mut planned, mut refused) = (0, 0);
    for file in corpus("header") {
        let Ok(plan) = Plan::of(&file, &recipe) else {
            refused += 1;
            continue;
        };
        planned += 1;
        let (header, cost) = (plan.header(), plan.cost());
        assert!(header.width >= 1 && header.height >= 1);
        assert!(header.width.max(header.height) <= limits.max_side);
        assert!(cost.pixels == header.pixels() && cost.pixels <= limits.max_pixels);
        assert!((1..=limits.max_bytes).contains(&cost.bytes));
        if let Coding::Jpeg(jpeg) = header.coding {
            assert!(jpeg.scans <= limits.max_scans && jpeg.whole);
        }
    }
    assert!(planned >= 20 && refused >= 20, "{planned} planned, {refused} refused");
}

/// What `fuzz/fuzz_targets/preprocess.rs` does with its bytes, but for counting the memory: every test of
/// this program would be counted.
#[test]
fn the_corpus_of_the_whole_way_gives_pictures_or_refusals() {
    let limits = Limits { max_pixels: 1 << 18, kept_bytes: 1 << 20, ..recipe().limits };
    let recipe = Recipe { shorter_side: 32, limits, ..recipe() };
    let (mut taken, mut refused) = (0, 0);
    for file in corpus("preprocess") {
        match process(&file, &recipe) {
            Ok(picture) => {
                assert!(picture.width >= 1 && picture.height >= 1);
                assert!(picture.jpeg.starts_with(b"\xFF\xD8") && picture.jpeg.ends_with(b"\xFF\xD9"));
                taken += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(taken >= 20 && refused >= 20, "{taken} taken, {refused} refused");
}

#[test]
#[ignore = "it writes what fuzzing starts from anew"]
fn write_the_corpus() {
    for target in ["header", "preprocess"] {
        fs::create_dir_all(folder(target)).unwrap();
        for File { name, bytes, .. } in FILES.iter().filter(|file| file.bytes.len() <= MOST_BYTES) {
            fs::write(folder(target).join(name), bytes).unwrap();
        }
    }
}
