//! Reads the table of examples in `docs/formats.md`. The tests of both services include this file.

use std::{collections::BTreeSet, fs, path::Path};

/// Colours of a picture, as the column `shows` names them.
const COLOURS: [[u8; 3]; 4] = [[200, 30, 40], [30, 180, 60], [40, 60, 200], [220, 210, 50]];
const GREY: [[u8; 3]; 4] = [[60; 3], [120; 3], [180; 3], [240; 3]];
const BLACK_AND_WHITE: [[u8; 3]; 4] = [[0; 3], [0; 3], [255; 3], [255; 3]];
const WHITE_CORNER: [[u8; 3]; 4] = [COLOURS[0], [255; 3], COLOURS[2], COLOURS[3]];

/// A file, and the answer of a service to it.
pub(crate) struct Example {
    pub(crate) name: String,
    pub(crate) file: Vec<u8>,
    pub(crate) answer: Answer,
}

/// The answer of a service to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The service accepts the picture, whose quarters have these colours, row by row.
    Picture([[u8; 3]; 4]),
    /// The service refuses the file with this status.
    Refused(u16),
}

/// Separates the answer of the default build from the answer of a build that accepts AVIF.
const WITH_AVIF: &str = "; with `avif`: ";

/// Reads the answers in the column `service` of the table, and the files.
///
/// # Panics
/// Panics if a row has no file, if a file has no row, or if a cell has an unknown text.
pub(crate) fn read_examples(service: &str, accepts_avif: bool) -> Vec<Example> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder = root.join("tests/data/formats");
    let text = fs::read_to_string(root.join("docs/formats.md")).unwrap();
    let mut rows = text.lines().skip_while(|line| !line.starts_with("| kind | example |")).map(cells);
    let Some(header) = rows.next() else { panic!("docs/formats.md has no table of examples") };
    let column = |name: &str| header.iter().position(|&cell| cell == name).unwrap();
    let [name_column, picture_column, answer_column] = ["example", "shows", service].map(column);
    // The second line of a table separates the header from the rows.
    let examples: Vec<Example> = rows
        .skip(1)
        .take_while(|row| !row.is_empty())
        .map(|row| {
            let name = row[name_column].trim_matches('`').to_owned();
            let file = fs::read(folder.join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
            let cell = row[answer_column];
            let (default, with_avif) = cell.split_once(WITH_AVIF).unwrap_or((cell, cell));
            let answer = match (if accepts_avif { with_avif } else { default }, row[picture_column]) {
                (cell, picture) if cell == "accepted" || cell.starts_with("converted: ") => {
                    Answer::Picture(colours_of(picture))
                }
                (status, _) => Answer::Refused(status.parse().unwrap_or_else(|_| panic!("{name}: {status}"))),
            };
            Example { name, file, answer }
        })
        .collect();
    let names: BTreeSet<String> = examples.iter().map(|example| example.name.clone()).collect();
    assert_eq!(names.len(), examples.len(), "two rows have the same file");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    assert_eq!(files, names, "each file needs a row");
    examples
}

/// Returns the cells of a row of a table. Any other line has none.
fn cells(line: &str) -> Vec<&str> {
    match line.strip_prefix('|').and_then(|rest| rest.strip_suffix('|')) {
        Some(row) => row.split('|').map(str::trim).collect(),
        None => Vec::new(),
    }
}

fn colours_of(picture: &str) -> [[u8; 3]; 4] {
    match picture {
        "colours" => COLOURS,
        "grey" => GREY,
        "black and white" => BLACK_AND_WHITE,
        "white corner" => WHITE_CORNER,
        other => panic!("unknown picture: {other}"),
    }
}
