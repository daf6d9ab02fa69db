//! The README's table of settings is complete, and its defaults are those of the programs.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test helper that fails fails the test"
)]

use clap::{Arg, CommandFactory};

const README: &str = include_str!("../README.md");

/// The row of the README's tables that names the variable.
fn row_of(variable: &str) -> Option<&'static str> {
    let name = format!("`{variable}`");
    README.lines().find(|line| {
        let first_cell = line.strip_prefix('|').and_then(|row| row.split('|').next());
        first_cell.is_some_and(|cell| cell.contains(&name))
    })
}

fn arguments() -> Vec<Arg> {
    [image_pipeline::Config::command(), preprocess::Config::command(), classify::Config::command()]
        .iter()
        .flat_map(|command| command.get_arguments().cloned().collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_variable_is_in_the_table_with_its_default() {
    let mut variables = 0;
    for argument in arguments() {
        let Some(variable) = argument.get_env() else {
            assert!(["help", "version"].contains(&argument.get_id().as_str()), "{argument} has no variable");
            continue;
        };
        let variable = variable.to_str().unwrap();
        let row = row_of(variable).unwrap_or_else(|| panic!("{variable} is not in the README"));
        variables += 1;
        if argument.is_hide_default_value_set() {
            continue;
        }
        for default in argument.get_default_values() {
            let default = default.to_str().unwrap();
            // What depends on the build is told in words.
            let told = variable == "CLASSIFY_BACKEND" || row.split('|').nth(2).unwrap().contains(default);
            assert!(told, "{variable} is {default} by default, and the README says: {row}");
        }
    }
    assert!(variables > 40, "{variables}");
}

#[test]
fn a_flag_has_the_words_of_its_variable_or_the_table_names_it() {
    for argument in arguments() {
        let Some(variable) = argument.get_env().and_then(|variable| variable.to_str()) else { continue };
        let flag = argument.get_long().unwrap();
        let same = flag.replace('-', "_").eq_ignore_ascii_case(variable);
        let named = row_of(variable).is_some_and(|row| row.contains(&format!("`--{flag}`")));
        assert!(same || named, "--{flag} for {variable}");
    }
}
