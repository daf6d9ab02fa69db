//! Compares the stored pictures of public test images with the pixels that Pillow reads.
//!
//! `.ci/corpora` runs `reference.py`, which writes the pixels. The comparison is not part of a build with the feature
//! `turbo`, whose decoders in C are also the decoders of Pillow. The pixels are those of the default build's formats,
//! so the comparison is not part of a build with the feature `avif` either.

use std::{collections::BTreeMap, fs, path::Path};

use preprocess::image::process;

use super::{
    difference::{describe_difference, parse_ppm},
    files_in, target_folder,
};
use crate::test_image::{decode, recipe};

/// Files for which preprocess and Pillow differ. A line has the path, the [`Side`] and the reason.
const KNOWN_DIFFERENCES: &str = include_str!("known_differences.tsv");

/// The way in which preprocess and Pillow differ for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    WeRefuse,
    TheyRefuse,
    OtherPixels,
}

impl Side {
    const ALL: [Self; 3] = [Self::WeRefuse, Self::TheyRefuse, Self::OtherPixels];

    fn name(self) -> &'static str {
        match self {
            Self::WeRefuse => "we refuse",
            Self::TheyRefuse => "they refuse",
            Self::OtherPixels => "other pixels",
        }
    }
}

/// Result of the comparison of a file.
enum Outcome {
    Same,
    BothRefuse,
    /// The text explains the difference.
    Different(Side, String),
}

/// Processes a file and compares the result with the one of Pillow, which is in `reference` with another ending.
fn compare(file: &[u8], reference: &Path) -> Outcome {
    let with_ending = |ending: &str| {
        let mut path = reference.as_os_str().to_owned();
        path.push(ending);
        fs::read(path).ok()
    };
    let stored = process(file, &recipe());
    match (stored, with_ending(".ppm"), with_ending(".refused")) {
        (Ok(stored), Some(pixels), None) => {
            match describe_difference(&decode(&stored), &parse_ppm(&pixels)) {
                None => Outcome::Same,
                Some(difference) => Outcome::Different(Side::OtherPixels, difference),
            }
        }
        (Err(_), None, Some(_)) => Outcome::BothRefuse,
        (Err(error), Some(_), None) => Outcome::Different(Side::WeRefuse, format!("{error:?}")),
        (Ok(_), None, Some(reason)) => {
            Outcome::Different(Side::TheyRefuse, String::from_utf8_lossy(&reason).trim().to_owned())
        }
        _ => panic!("{} is no result of Pillow; run .ci/corpora", reference.display()),
    }
}

/// Parses a list of differences.
fn parse_differences(list: &str) -> BTreeMap<&str, Side> {
    let mut sides = BTreeMap::new();
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[path, side, reason] = fields.as_slice() else { panic!("three fields: {line}") };
        let side = Side::ALL.into_iter().find(|known| known.name() == side);
        let side = side.unwrap_or_else(|| panic!("a known side: {line}"));
        assert!(!reason.is_empty(), "a reason: {line}");
        assert!(sides.insert(path, side).is_none(), "one line per file: {line}");
    }
    sides
}

/// Returns a line for each file that is on another side than the list states.
fn changes(known: &BTreeMap<&str, Side>, found: &BTreeMap<String, (Side, String)>) -> Vec<String> {
    let found_changes = found
        .iter()
        .filter(|(path, (side, _))| known.get(path.as_str()) != Some(side))
        .map(|(path, (side, explanation))| format!("new difference: {path}\t{}\t{explanation}", side.name()));
    let gone = known.iter().filter(|(path, _)| !found.contains_key(**path));
    found_changes.chain(gone.map(|(path, side)| format!("no longer: {path}\t{}", side.name()))).collect()
}

#[test]
fn stored_picture_of_public_image_equals_the_reference_or_is_a_known_difference() {
    let (folder, references) = (target_folder("corpora"), target_folder("corpora-reference/pixels"));
    if !references.is_dir() {
        println!(
            "SKIPPED: comparison of public images: {} is not there (see .ci/corpora)",
            references.display()
        );
        return;
    }
    let mut known = parse_differences(KNOWN_DIFFERENCES);
    // `.ci/corpora` reports a set of images that it cannot download as skipped.
    known.retain(|path, _| folder.join(path.split('/').next().unwrap()).is_dir());
    let (mut same_count, mut refused_count, mut found) = (0, 0, BTreeMap::new());
    for path in files_in(&folder) {
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap();
        match compare(&fs::read(&path).unwrap(), &references.join(name)) {
            Outcome::Same => same_count += 1,
            Outcome::BothRefuse => refused_count += 1,
            Outcome::Different(side, explanation) => {
                found.insert(name.to_owned(), (side, explanation));
            }
        }
    }
    println!("{same_count} are the same, both refuse {refused_count}, {} differ", found.len());
    let changes = changes(&known, &found);
    assert!(changes.is_empty(), "public_files/known_differences.tsv is not right:\n{}", changes.join("\n"));
}

#[test]
fn file_that_changes_its_side_in_any_direction_is_reported() {
    let known = parse_differences("# comment\na\twe refuse\tr\nb\tother pixels\tr\nc\tthey refuse\tr\n");
    let difference = |path: &str, side| (path.to_owned(), (side, String::from("why")));
    let found = BTreeMap::from([
        difference("a", Side::TheyRefuse),
        difference("b", Side::OtherPixels),
        difference("d", Side::OtherPixels),
    ]);
    assert_eq!(
        changes(&known, &found),
        [
            "new difference: a\tthey refuse\twhy",
            "new difference: d\tother pixels\twhy",
            "no longer: c\tthey refuse"
        ]
    );
}
