//! Test of the table of examples in `docs/formats.md`.

#[path = "../../../../tests/common/format_examples.rs"]
mod format_examples;

use self::format_examples::{Answer, read_examples};
use super::*;

/// Maximum difference per channel that encoding the example as JPEG may cause.
const TOLERANCE: u8 = 12;

#[test]
fn every_example_gets_the_answer_in_the_table_of_formats() {
    let mut failures = Vec::new();
    for example in read_examples("classify", false) {
        let found = match decode_crop(&example.file) {
            Ok(crop) => Answer::Picture([(1, 1), (3, 1), (1, 3), (3, 3)].map(|(x, y)| {
                let side = GEOMETRY.crop.width as usize;
                crop.bytes().as_chunks().0[side * y / 4 * side + side * x / 4]
            })),
            Err(ImageError::UnsupportedFormat(_)) => Answer::Refused(415),
            Err(_) => Answer::Refused(422),
        };
        let is_right = match (found, example.answer) {
            (Answer::Picture(found), Answer::Picture(expected)) => {
                largest_difference(found.as_flattened(), expected.as_flattened()) <= TOLERANCE
            }
            (found, expected) => found == expected,
        };
        if !is_right {
            failures.push(format!("{}: found {found:?}, expected {:?}", example.name, example.answer));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
