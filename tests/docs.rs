//! These tests check the documentation.
//!
//! `docs/settings.md` must list every setting of the programs with its default, every relative link must lead
//! to an existing file and heading, the README must be short, and `docs/reliability.md` must name existing tests.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a panic in a helper fails the test"
)]

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use clap::{Arg, CommandFactory};

const SETTINGS: &str = include_str!("../docs/settings.md");
const README: &str = include_str!("../README.md");
const RELIABILITY: &str = include_str!("../docs/reliability.md");

/// Maximum number of words in the README. The words in code blocks and tables are included.
const MAX_README_WORDS: usize = 950;

/// Environment variables that only the build reads. No program has an argument for them.
const BUILD_VARIABLES: [&str; 3] = ["CLASSIFY_MODEL", "CLASSIFY_MODEL_ONNX", "CLASSIFY_MODEL_FETCH"];

/// Returns the first cell of a table row, or `None` for any other line.
fn first_cell(line: &str) -> Option<&str> {
    line.strip_prefix('|')?.split('|').next()
}

/// Returns the table row of `docs/settings.md` whose first cell names `variable`.
fn settings_row(variable: &str) -> Option<&'static str> {
    let name = format!("`{variable}`");
    SETTINGS.lines().find(|line| first_cell(line).is_some_and(|cell| cell.contains(&name)))
}

/// Returns the arguments of the three programs.
fn program_arguments() -> Vec<Arg> {
    [image_pipeline::Config::command(), preprocess::Config::command(), classify::Config::command()]
        .iter()
        .flat_map(|command| command.get_arguments().cloned().collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_setting_of_the_programs_is_in_settings_md_with_its_default() {
    let mut variable_count = 0;
    for argument in program_arguments() {
        let Some(variable) = argument.get_env() else {
            assert!(["help", "version"].contains(&argument.get_id().as_str()), "{argument} has no variable");
            continue;
        };
        let variable = variable.to_str().unwrap();
        let row = settings_row(variable).unwrap_or_else(|| panic!("{variable} is not in docs/settings.md"));
        variable_count += 1;
        if argument.is_hide_default_value_set() {
            continue;
        }
        for default in argument.get_default_values() {
            let default = default.to_str().unwrap();
            let default_cell = row.split('|').nth(2).unwrap();
            assert!(
                default_cell.contains(default),
                "{variable} is {default} by default, but docs/settings.md says {default_cell}"
            );
        }
    }
    assert!(variable_count > 40, "only {variable_count} variables were compared");
}

#[test]
fn every_variable_in_settings_md_is_a_setting_of_a_program_or_of_the_build() {
    let arguments = program_arguments();
    let settings: HashSet<&str> =
        arguments.iter().filter_map(|argument| argument.get_env()?.to_str()).collect();
    // When a cell is split at its backticks, the parts at odd positions are the code spans.
    let code_spans =
        SETTINGS.lines().filter_map(first_cell).flat_map(|cell| cell.split('`').skip(1).step_by(2));
    for name in code_spans.filter(|name| !name.starts_with("--")) {
        assert!(
            settings.contains(name) || BUILD_VARIABLES.contains(&name),
            "neither a program nor the build reads {name}"
        );
    }
}

#[test]
fn flag_has_the_same_words_as_its_variable_or_is_named_in_settings_md() {
    for argument in program_arguments() {
        let Some(variable) = argument.get_env().and_then(|variable| variable.to_str()) else { continue };
        let flag = argument.get_long().unwrap();
        let has_same_words = flag.replace('-', "_").eq_ignore_ascii_case(variable);
        let is_documented = settings_row(variable).is_some_and(|row| row.contains(&format!("`--{flag}`")));
        assert!(
            has_same_words || is_documented,
            "--{flag} does not have the words of {variable}, and docs/settings.md does not name the flag"
        );
    }
}

#[test]
fn readme_has_at_most_950_words() {
    let word_count = README.split_whitespace().count();
    assert!(
        word_count <= MAX_README_WORDS,
        "{word_count} words: move the parts that a newcomer does not need first to docs/"
    );
}

/// Returns the lines of the Markdown `text` that are outside code blocks.
fn prose_lines(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// Returns the targets of the Markdown links in `text`.
fn link_targets(text: &str) -> Vec<&str> {
    prose_lines(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split(')').next())
        .collect()
}

/// Returns the link anchors that GitHub generates for the headings in the Markdown `text`.
fn heading_anchors(text: &str) -> HashSet<String> {
    let anchor = |heading: &str| {
        let kept_chars =
            heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept_chars.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    prose_lines(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// Returns the paths of the files with this extension in `folder` and in the folders below it.
fn files_with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files_with_extension(&path, extension),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect()
}

#[test]
fn every_test_in_reliability_md_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source_code: String = ["classify", "crates", "preprocess", "tests"]
        .iter()
        .flat_map(|folder| files_with_extension(&root.join(folder), "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let rows = RELIABILITY.lines().filter(|line| line.starts_with("| **"));
    let mut test_count = 0;
    for test in
        rows.filter_map(|row| row.split('|').nth(2)).flat_map(|cell| cell.split('`').skip(1).step_by(2))
    {
        assert!(source_code.contains(&format!("fn {test}()")), "there is no test {test}");
        test_count += 1;
    }
    assert!(test_count > 20, "only {test_count} tests were found");
}

#[test]
fn relative_links_of_the_documentation_lead_to_an_existing_file_and_heading() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = files_with_extension(&root.join("docs"), "md");
    files.extend(["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    let mut link_count = 0;
    let mut broken = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        for target in link_targets(&text).into_iter().filter(|target| !target.contains("://")) {
            link_count += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { file.clone() } else { file.parent().unwrap().join(path) };
            let target_exists = path.exists()
                && (anchor.is_empty()
                    || heading_anchors(&fs::read_to_string(&path).unwrap()).contains(anchor));
            if !target_exists {
                broken.push(format!("{}: {target}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(link_count > 40, "only {link_count} links were found");
}
