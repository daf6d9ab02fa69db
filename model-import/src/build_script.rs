//! Implements the build script of `classify`, which finds a model and generates the model's code.
//!
//! The generated files are in `OUT_DIR/model/`: `network.rs` (burn code with a `struct Model`), `network.bpk`
//! (the model's weights), `network.onnx` (the simplified graph), `fused/network.onnx` (the same graph with
//! fused operators) and `spec.rs` (constants).
//!
//! The script reads these environment variables:
//!
//! - `CLASSIFY_MODEL` and `CLASSIFY_MODEL_ONNX` choose the model (see [`crate::locate`]).
//! - `CLASSIFY_MODEL_FETCH` is `auto`, the default, or `never`. With `never`, a missing file is not fetched.
//!
//! Cargo runs the script again when one of these variables or a watched file changes. A build that uses the
//! fallback model also watches the folder of the default model, so the script runs again after the default
//! model's file is put there. The missing file itself is not watched: cargo would then run the script, which
//! tries to fetch the file, at every build.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;
use std::time::SystemTime;

use crate::fetch::FetchTimeouts;
use crate::locate::{self, LocateOptions, LocatedModel};
use crate::model::Model;
use crate::spec::ModelSpec;
use crate::{Error, codegen};

/// Environment variables that select the model and allow or forbid fetching its file.
pub const WATCHED_VARIABLES: [&str; 3] = ["CLASSIFY_MODEL", "CLASSIFY_MODEL_ONNX", "CLASSIFY_MODEL_FETCH"];

/// Runs the whole build script: generates the code and prints the directives for cargo.
///
/// On failure, prints the error as a directive, which cargo shows to the user, and exits with 1.
pub fn run() {
    let outcome = generate(&|name| env::var(name).ok());
    let (directives, failed) = match outcome {
        Ok(directives) => (directives, false),
        Err(error) => (vec![format!("cargo::error={}", join_lines(&error))], true),
    };
    print_directives(&directives);
    if failed {
        process::exit(1);
    }
}

#[expect(clippy::print_stdout, reason = "cargo reads a build script's standard output")]
fn print_directives(directives: &[String]) {
    for directive in directives {
        println!("{directive}");
    }
}

/// Generates the code and returns the directives for cargo.
///
/// `read_variable` returns the value of an environment variable. Tests pass a function that returns fixed
/// values.
///
/// # Errors
/// Returns the errors of [`locate::locate`], [`Model::read`] and [`codegen::generate`],
/// [`Error::InvalidVariable`] if `CLASSIFY_MODEL_FETCH` has an invalid value, and
/// [`Error::MissingVariable`] if a variable that cargo sets is missing.
pub fn generate(read_variable: &dyn Fn(&'static str) -> Option<String>) -> Result<Vec<String>, Error> {
    let options = read_options(read_variable)?;
    let output_folder = options.writable_folder.join("model");
    let located = locate::locate(&options, &mut |_, _| {})?;
    align_modification_time(&located)?;
    let directives = format_directives(&located);
    let LocatedModel { spec, onnx_path, sha256, .. } = located;
    codegen::generate(&Model::read(spec, onnx_path, sha256)?, &output_folder)?;
    Ok(directives)
}

fn read_options(read_variable: &dyn Fn(&'static str) -> Option<String>) -> Result<LocateOptions, Error> {
    let read_cargo_path =
        |name| read_variable(name).map(PathBuf::from).ok_or(Error::MissingVariable { variable: name });
    // An empty value is treated as unset, because compose files and CI matrices cannot unset a variable.
    let read_user_variable = |name| read_variable(name).filter(|value| !value.is_empty());
    let fetch_allowed = match read_user_variable("CLASSIFY_MODEL_FETCH").as_deref() {
        None | Some("auto") => true,
        Some("never") => false,
        Some(value) => {
            return Err(Error::InvalidVariable {
                variable: "CLASSIFY_MODEL_FETCH",
                value: value.into(),
                reason: "expected auto (the default: fetch a missing ONNX file) or never".into(),
            });
        }
    };
    let package_folder = read_cargo_path("CARGO_MANIFEST_DIR")?;
    Ok(LocateOptions {
        models_folder: package_folder.parent().unwrap_or(&package_folder).join("models"),
        writable_folder: read_cargo_path("OUT_DIR")?,
        model_name: read_user_variable("CLASSIFY_MODEL"),
        onnx_path: read_user_variable("CLASSIFY_MODEL_ONNX").map(PathBuf::from),
        fetch_allowed,
        timeouts: FetchTimeouts::default(),
    })
}

/// Gives the ONNX file the modification time of its `model.toml`, if the ONNX file is newer.
///
/// Cargo runs a build script again if a watched file is newer than the start of the script's last run. A file
/// that the script has just fetched is newer, so without this change the next build would run the script
/// again. A file whose checksum differs from the one in `model.toml` was not fetched and is left unchanged.
fn align_modification_time(located: &LocatedModel) -> Result<(), Error> {
    let toml_time = read_modification_time(&ModelSpec::toml_path(&located.spec.folder))?;
    let onnx_path = &located.onnx_path;
    let published = located.spec.onnx.published.as_ref();
    if published.is_some_and(|published| published.sha256 == located.sha256)
        && read_modification_time(onnx_path)? > toml_time
    {
        // A failure only costs time: the next build runs the script once more.
        let _ = File::options().append(true).open(onnx_path).and_then(|file| file.set_modified(toml_time));
    }
    Ok(())
}

fn read_modification_time(path: &Path) -> Result<SystemTime, Error> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).map_err(Error::io("read", path))
}

fn format_directives(located: &LocatedModel) -> Vec<String> {
    let variables = WATCHED_VARIABLES.map(|name| format!("cargo::rerun-if-env-changed={name}"));
    let watched_paths = located.watched_paths.iter();
    let watches = watched_paths.map(|path| format!("cargo::rerun-if-changed={}", path.display()));
    let warning = located.warning.iter().map(|warning| format!("cargo::warning={}", join_lines(warning)));
    variables.into_iter().chain(watches).chain(warning).collect()
}

/// Joins the lines of a text with spaces, because a cargo directive is a single line.
fn join_lines(text: &dyn ToString) -> String {
    let text = text.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" ")
}
