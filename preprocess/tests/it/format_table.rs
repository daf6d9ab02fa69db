//! Test of the table of examples in `docs/formats.md`.

use preprocess::image::{ImageError, process};

use crate::{
    format_examples::{Answer, read_examples},
    test_image::{decode, is_near, quarter_colours, recipe},
};

/// Returns the status of the response for an error.
fn status(error: &ImageError) -> u16 {
    match error.kind() {
        "unsupported_format" => 415,
        "internal" => 500,
        _ => 422,
    }
}

#[test]
fn every_example_gets_the_answer_in_the_table_of_formats() {
    let mut failures = Vec::new();
    for mut example in read_examples("preprocess", cfg!(feature = "avif")) {
        if cfg!(not(feature = "heic")) && example.name.starts_with("heic") {
            example.answer = Answer::Refused(415);
        }
        let found = match process(&example.file, &recipe()) {
            Ok(processed) => Answer::Picture(quarter_colours(&decode(&processed))),
            Err(error) => Answer::Refused(status(&error)),
        };
        let is_right = match (found, example.answer) {
            (Answer::Picture(found), Answer::Picture(expected)) => {
                found.into_iter().zip(expected).all(|(found, expected)| is_near(found, expected))
            }
            (found, expected) => found == expected,
        };
        if !is_right {
            failures.push(format!("{}: found {found:?}, expected {:?}", example.name, example.answer));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
