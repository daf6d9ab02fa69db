//! What `classify/build.rs` does: find the model, generate its code into `OUT_DIR/model/`.
//!
//! Reads `CLASSIFY_MODEL`, `CLASSIFY_MODEL_ONNX` (see [`crate::locate`]) and `CLASSIFY_MODEL_FETCH`
//! (`never`: an absent file is not fetched). Writes `network.rs` (burn code with a `struct Model`),
//! `network.bpk` (its weights), `network.onnx` (the cleaned graph) and `spec.rs` (constants).
//!
//! When it runs again: a variable or a watched file changed. A build that fell back to the model in the
//! source watches the folder of the one it would rather have, so it neither tries the network at every
//! build nor misses a file that was put there later.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process;

use crate::Error;
use crate::fetch::Limits;
use crate::locate::{self, Located, Request};
use crate::model::Model;
use crate::spec::ModelSpec;

/// Environment variables that a build listens to.
pub const VARIABLES: [&str; 3] = ["CLASSIFY_MODEL", "CLASSIFY_MODEL_ONNX", "CLASSIFY_MODEL_FETCH"];

/// The whole build script: generates the code, tells cargo what to watch; on failure says why in one
/// sentence and ends the process with 1.
pub fn run() {
    let outcome = prepare(&|name| env::var(name).ok());
    let (lines, failed) = match outcome {
        Ok(lines) => (lines, false),
        Err(error) => (vec![format!("cargo::error={}", one_line(&error))], true),
    };
    print(&lines);
    if failed {
        process::exit(1);
    }
}

#[expect(clippy::print_stdout, reason = "cargo reads a build script's standard output")]
fn print(lines: &[String]) {
    for line in lines {
        println!("{line}");
    }
}

/// Generates the code and gives the lines for cargo. `variable` looks up the environment.
///
/// # Errors
/// See [`locate::locate`], [`Model::read`] and [`Model::generate`]; also a variable with a senseless
/// value, or one that cargo sets and that is not there.
pub fn prepare(variable: &dyn Fn(&'static str) -> Option<String>) -> Result<Vec<String>, Error> {
    let request = request(variable)?;
    let out = request.spare.join("model");
    let located = locate::locate(&request, &mut |_, _| {})?;
    settle(&located)?;
    let lines = directives(&located);
    let Located { spec, onnx, sha256, .. } = located;
    Model::read(spec, &onnx, sha256)?.generate(&onnx, &out)?;
    Ok(lines)
}

fn request(variable: &dyn Fn(&'static str) -> Option<String>) -> Result<Request, Error> {
    let from_cargo = |name| {
        variable(name).map(PathBuf::from).ok_or(Error::Setting {
            variable: name,
            value: String::new(),
            reason: "cargo sets it for build scripts; this is not run by cargo".into(),
        })
    };
    // Empty is unset: compose files and CI matrices have no other way to unset.
    let chosen = |name| variable(name).filter(|value| !value.is_empty());
    let may_fetch = match chosen("CLASSIFY_MODEL_FETCH").as_deref() {
        None | Some("auto") => true,
        Some("never") => false,
        Some(value) => {
            return Err(Error::Setting {
                variable: "CLASSIFY_MODEL_FETCH",
                value: value.into(),
                reason: "it is auto (the default) or never".into(),
            });
        }
    };
    let package = from_cargo("CARGO_MANIFEST_DIR")?;
    Ok(Request {
        models: package.parent().unwrap_or(&package).join("models"),
        spare: from_cargo("OUT_DIR")?,
        model: chosen("CLASSIFY_MODEL"),
        onnx: chosen("CLASSIFY_MODEL_ONNX").map(PathBuf::from),
        may_fetch,
        limits: Limits::default(),
    })
}

/// Cargo runs a script again if a watched file is younger than the script's start. A file that was
/// fetched by this very run would be; it is as old as the `model.toml` that pins its content.
fn settle(located: &Located) -> Result<(), Error> {
    let spec = ModelSpec::path(&located.spec.folder);
    let pinned = modified(&spec)?;
    if located.sha256 == located.spec.onnx.sha256 && modified(&located.onnx)? > pinned {
        // Best effort: at worst the script runs once more.
        let _ = File::options().append(true).open(&located.onnx).and_then(|file| file.set_modified(pinned));
    }
    Ok(())
}

fn modified(file: &Path) -> Result<std::time::SystemTime, Error> {
    fs::metadata(file).and_then(|metadata| metadata.modified()).map_err(Error::io("read", file))
}

fn directives(located: &Located) -> Vec<String> {
    let variables = VARIABLES.map(|name| format!("cargo::rerun-if-env-changed={name}"));
    let watched = located.watch.iter().map(|path| format!("cargo::rerun-if-changed={}", path.display()));
    let warning = located.warning.iter().map(|warning| format!("cargo::warning={}", one_line(warning)));
    variables.into_iter().chain(watched).chain(warning).collect()
}

/// A cargo directive ends with its line.
fn one_line(text: &dyn ToString) -> String {
    let text = text.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.join(" ")
}
