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
  1  the file is missing, has the wrong content or does not convert; see standard error
  2  the command line is invalid";

/// Fetches, inspects and checks the ONNX models that the build can compile in.
#[derive(Debug, Parser)]
#[command(name = "model-import", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Folder that holds the model folders [default: `models` in the current folder or the nearest parent].
    #[arg(long, global = true, value_name = "DIR")]
    models: Option<PathBuf>,

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
        let models = self.models.unwrap_or_else(find_nearest_models);
        match self.command {
            Command::Fetch { model, force } => fetch_model(&models, &model, force),
            Command::Inspect { model } => inspect(&models, &model),
            Command::Check { model } => check(&models, &model),
        }
    }
}

/// Finds the folder `models` in the current folder or in the nearest parent that has one.
///
/// Returns the relative path `models` if there is no such folder.
fn find_nearest_models() -> PathBuf {
    let current_folder = env::current_dir().unwrap_or_default();
    current_folder
        .ancestors()
        .map(|folder| folder.join("models"))
        .find(|models| models.is_dir())
        .unwrap_or_else(|| "models".into())
}

fn fetch_model(models: &Path, name: &str, force: bool) -> anyhow::Result<String> {
    let spec = locate::read_spec(models, name)?;
    let file = spec.onnx_path();
    if force || !file.is_file() {
        fetch::fetch(&spec.onnx, &file, &FetchTimeouts::default(), &mut progress_bar(spec.onnx.size))
            .with_context(|| format!("cannot fetch the ONNX file of model {name}"))?;
    }
    let (onnx, sha256) = find_pinned_file(models, &spec)?;
    Ok(format_summary(&spec, &onnx, &sha256))
}

fn inspect(models: &Path, model: &str) -> anyhow::Result<String> {
    let file = Path::new(model);
    let (onnx, summary) = if file.is_file() {
        let (size, sha256) = fetch::size_and_sha256(file).map_err(Error::io("read", file))?;
        let summary =
            format!("file        {}\nsize        {size} bytes\nsha256      {sha256}", file.display());
        (file.to_owned(), summary)
    } else {
        let spec = locate::read_spec(models, model)?;
        let (onnx, sha256) = find_pinned_file(models, &spec)?;
        let summary = format_summary(&spec, &onnx, &sha256);
        (onnx, summary)
    };
    Ok(format!("{summary}\n{}", graph::simplify_file(&onnx)?.report))
}

fn check(models: &Path, model: &str) -> anyhow::Result<String> {
    let spec = locate::read_spec(models, model)?;
    let (onnx, sha256) = find_pinned_file(models, &spec)?;
    let summary = format_summary(&spec, &onnx, &sha256);
    let model = Model::read(spec, onnx, sha256)?;
    let folder = env::temp_dir().join(format!("model-import-{}", process::id()));
    let outcome = codegen::generate(&model, &folder);
    let removal = fs::remove_dir_all(&folder);
    outcome?;
    removal?;
    Ok(format!(
        "{summary}\n{}\nlabels      {}\nThe model converts, and its labels fit its outputs.",
        model.graph.report,
        model.labels.len()
    ))
}

/// Finds the ONNX file in a model's folder and checks the file. Does not fetch a missing file.
fn find_pinned_file(models: &Path, spec: &ModelSpec) -> Result<(PathBuf, String), Error> {
    let options = LocateOptions {
        models: models.into(),
        writable_folder: spec.folder.clone(),
        model: Some(spec.name.clone()),
        onnx: None,
        fetch_allowed: false,
        timeouts: FetchTimeouts::default(),
    };
    locate::find_pinned_file(&options, spec, &mut |_, _| {})
}

fn format_summary(spec: &ModelSpec, onnx: &Path, sha256: &str) -> String {
    format!(
        "model       {}\nlicence     {}\nsource      {}\nfile        {}\nsize        {} bytes\nsha256      {sha256}",
        spec.name,
        spec.license,
        spec.source,
        onnx.display(),
        spec.onnx.size
    )
}

/// Returns a callback that shows a progress bar if standard error is a terminal.
fn progress_bar(size: u64) -> impl FnMut(u64, u64) {
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
