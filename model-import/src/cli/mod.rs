//! Implements the command `model-import`, which adds, fetches, inspects and checks models.

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::Error;
use crate::fetch::FetchTimeouts;
use crate::locate::{self, LocateOptions};
use crate::spec::ModelSpec;

mod add;
mod check;
mod fetch;
mod inspect;

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  the command failed, for example because the ONNX file is missing, has the wrong content or does not
     convert; standard error has the reason
  2  the command line is invalid";

/// Adds, fetches, inspects and checks the ONNX models that a build can compile into the program.
#[derive(Debug, Parser)]
#[command(name = "model-import", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Folder that holds the model folders [default: `models` in the current folder, or in the nearest parent
    /// that has one].
    #[arg(long = "models", global = true, value_name = "DIR")]
    models_folder: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the folder of a model from an ONNX file, and check it.
    Add(add::Arguments),
    /// Fetch the ONNX file of a model into the model's folder and check it.
    ///
    /// An existing file is never overwritten.
    Fetch {
        /// Name of a model, which is the name of its folder.
        #[arg(default_value = locate::DEFAULT_MODEL)]
        model: String,
    },
    /// Show the input, the output and the operators of an ONNX file, before and after simplification.
    Inspect {
        /// Name of a model, or path of an ONNX file.
        model: String,
    },
    /// Compare the simplified graph of a model with the original, and show the share of the fused path.
    Check(check::Arguments),
}

impl Cli {
    /// Runs the command and prints the result to standard output, or the error to standard error.
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a command for a terminal")]
    pub fn run(self) -> ExitCode {
        match self.execute() {
            Ok(message) => {
                println!("{message}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        }
    }

    /// Runs the command and returns the text for standard output.
    ///
    /// # Errors
    /// Returns the failure of the command, worded for the user.
    pub fn execute(self) -> anyhow::Result<String> {
        let models_folder = self.models_folder.unwrap_or_else(find_models_folder);
        match self.command {
            Command::Add(arguments) => add::run(arguments, models_folder),
            Command::Fetch { model } => fetch::run(&models_folder, &model),
            Command::Inspect { model } => inspect::run(&models_folder, &model),
            Command::Check(arguments) => check::run(&models_folder, &arguments),
        }
    }
}

/// Finds the folder `models` in the current folder or in the nearest parent that has one.
///
/// Returns the relative path `models` if there is no such folder.
fn find_models_folder() -> PathBuf {
    let current_folder = env::current_dir().unwrap_or_default();
    current_folder
        .ancestors()
        .map(|folder| folder.join("models"))
        .find(|folder| folder.is_dir())
        .unwrap_or_else(|| "models".into())
}

/// Returns the path and the SHA-256 of a model's ONNX file after checking the file.
///
/// Does not fetch a missing file.
fn find_checked_onnx(models_folder: &Path, spec: &ModelSpec) -> Result<(PathBuf, String), Error> {
    let options = LocateOptions {
        models_folder: models_folder.into(),
        writable_folder: spec.folder.clone(),
        model_name: Some(spec.name.clone()),
        onnx_path: None,
        fetch_allowed: false,
        timeouts: FetchTimeouts::default(),
    };
    locate::find_or_fetch_onnx(&options, spec, &mut |_, _| {})
}

fn format_summary(spec: &ModelSpec, onnx_path: &Path, sha256: &str) -> String {
    let source = if spec.source.is_empty() { "unknown" } else { &spec.source };
    let checksum_source =
        if spec.onnx.published.is_some() { "as model.toml states" } else { "not stated in model.toml" };
    format!(
        "model       {}\nlicence     {}\nsource      {source}\nfile        {}\nsha256      {sha256}, {checksum_source}",
        spec.name,
        spec.license,
        onnx_path.display(),
    )
}
