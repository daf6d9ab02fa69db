//! Pictures that others test their decoders with, many of them broken: each is taken or refused, and takes
//! no more memory than was promised. `.ci/corpora` gets them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::hostile::{exceeds, rig};

/// Every file of a folder and those in it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn each_is_taken_or_refused() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/corpora");
    if !folder.is_dir() {
        println!("SKIPPED: public pictures: {} is not there (see .ci/corpora)", folder.display());
        return;
    }
    let (mut taken, mut wrong) = (0, Vec::new());
    let files = files(&folder);
    for path in &files {
        let cost = rig::cost(&fs::read(path).unwrap());
        println!("{}: {cost:?}", path.display());
        taken += usize::from(cost.outcome == "taken");
        // Its own mistakes.
        if exceeds(&cost) || cost.outcome == "internal" {
            wrong.push(format!("{}: {cost:?}", path.display()));
        }
    }
    println!("{taken} of {} taken", files.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken * 2 > files.len(), "{taken} of {} taken", files.len());
}
