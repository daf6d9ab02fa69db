//! Implements the command `model-import`, which fetches, inspects and checks models.

use std::io::{IsTerminal as _, stderr};
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::{env, fs};

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::fetch::{self, FetchTimeouts};
use crate::locate::{self, LocateOptions};
use crate::model::Model;
use crate::spec::ModelSpec;
use crate::{Error, codegen, graph};

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  the command failed, for example because the ONNX file is missing, has the wrong content or does not
     convert; standard error has the reason
  2  the command line is invalid";

/// Fetches, inspects and checks the ONNX models that a build can compile into the program.
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
    /// Fetch the ONNX file of a model into the model's folder and check it.
    Fetch {
        /// Name of a model, which is the name of its folder.
        #[arg(default_value = locate::DEFAULT_MODEL)]
        model: String,
        /// Fetch the file even if it exists already.
        #[arg(long)]
        force: bool,
    },
    /// Show the input, the output and the operators of an ONNX file, before and after simplification.
    Inspect {
        /// Name of a model, or path of an ONNX file.
        model: String,
    },
    /// Run all checks of a build, including the conversion to code.
    Check {
        /// Name of a model, which is the name of its folder.
        model: String,
    },
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

    fn execute(self) -> anyhow::Result<String> {
        let models_folder = self.models_folder.unwrap_or_else(find_models_folder);
        match self.command {
            Command::Fetch { model, force } => fetch_model(&models_folder, &model, force),
            Command::Inspect { model } => inspect(&models_folder, &model),
            Command::Check { model } => check(&models_folder, &model),
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

fn fetch_model(models_folder: &Path, name: &str, force: bool) -> anyhow::Result<String> {
    let spec = locate::read_spec(models_folder, name)?;
    let onnx_path = spec.onnx_path();
    if force || !onnx_path.is_file() {
        fetch::fetch(
            &spec.onnx,
            &onnx_path,
            &FetchTimeouts::default(),
            &mut progress_bar_callback(spec.onnx.size),
        )
        .with_context(|| format!("cannot fetch the ONNX file of model {name}"))?;
    }
    let (onnx_path, sha256) = find_checked_onnx(models_folder, &spec)?;
    Ok(format_summary(&spec, &onnx_path, &sha256))
}

fn inspect(models_folder: &Path, name_or_path: &str) -> anyhow::Result<String> {
    let path = Path::new(name_or_path);
    let (onnx_path, size, summary) = if path.is_file() {
        let (size, sha256) = fetch::size_and_sha256(path).map_err(Error::io("read", path))?;
        let summary =
            format!("file        {}\nsize        {size} bytes\nsha256      {sha256}", path.display());
        (path.to_owned(), None, summary)
    } else {
        let spec = locate::read_spec(models_folder, name_or_path)?;
        let (onnx_path, sha256) = find_checked_onnx(models_folder, &spec)?;
        let summary = format_summary(&spec, &onnx_path, &sha256);
        (onnx_path, Some([i64::from(spec.input.crop); 2]), summary)
    };
    Ok(format!("{summary}\n{}", graph::simplify_file(&onnx_path, size)?.report))
}

fn check(models_folder: &Path, name: &str) -> anyhow::Result<String> {
    let spec = locate::read_spec(models_folder, name)?;
    let (onnx_path, sha256) = find_checked_onnx(models_folder, &spec)?;
    let summary = format_summary(&spec, &onnx_path, &sha256);
    let model = Model::read(spec, onnx_path, sha256)?;
    let output_folder = env::temp_dir().join(format!("model-import-{}", process::id()));
    let outcome = codegen::generate(&model, &output_folder);
    let removal = fs::remove_dir_all(&output_folder);
    outcome?;
    removal?;
    Ok(format!(
        "{summary}\n{}\nlabels      {}\nThe model converts, and its labels fit its outputs.",
        model.graph.report,
        model.labels.len()
    ))
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
    format!(
        "model       {}\nlicence     {}\nsource      {}\nfile        {}\nsize        {} bytes\nsha256      {sha256}",
        spec.name,
        spec.license,
        spec.source,
        onnx_path.display(),
        spec.onnx.size
    )
}

/// Returns a callback that shows a progress bar if standard error is a terminal.
fn progress_bar_callback(size: u64) -> impl FnMut(u64, u64) {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
    let bar = if stderr().is_terminal() { ProgressBar::new(size) } else { ProgressBar::hidden() };
    if let Ok(style) = style {
        bar.set_style(style);
    }
    move |received, total| {
        bar.set_length(total);
        bar.set_position(received);
    }
}
