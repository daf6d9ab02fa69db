//! The command `model-import`: fetch a model's file, look into one, check one.

use std::env;
use std::io::{IsTerminal as _, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::fetch::{self, Limits};
use crate::graph;
use crate::locate::{self, Request};
use crate::model::Model;
use crate::spec::ModelSpec;

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  the file is missing, wrong, or does not convert; the reason is on standard error
  2  the command line is wrong";

/// Fetches, inspects and checks the ONNX models that the build can compile in.
#[derive(Debug, Parser)]
#[command(name = "model-import", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Folder of models [default: `models` here, or the nearest one above].
    #[arg(long, global = true, value_name = "DIR")]
    models: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch a model's ONNX file into its folder and check it.
    Fetch {
        /// A folder of `models`.
        #[arg(default_value = locate::DEFAULT_MODEL)]
        model: String,
        /// Fetch it again even if a file is there.
        #[arg(long)]
        force: bool,
    },
    /// Show input, output and operators of an ONNX file, before and after cleaning.
    Inspect {
        /// A folder of `models`, or an ONNX file.
        model: String,
    },
    /// Check all that a build would check, conversion to code included.
    Check {
        /// A folder of `models`.
        model: String,
    },
}

impl Cli {
    /// Runs the command; messages go to standard output, failures to standard error.
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
        let models = self.models.unwrap_or_else(nearest_models);
        match self.command {
            Command::Fetch { model, force } => fetch_model(&models, &model, force),
            Command::Inspect { model } => inspect(&models, &model),
            Command::Check { model } => check(&models, &model),
        }
    }
}

/// `models` in the current folder or the nearest one above it that has one.
fn nearest_models() -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    here.ancestors()
        .map(|folder| folder.join("models"))
        .find(|models| models.is_dir())
        .unwrap_or_else(|| "models".into())
}

fn fetch_model(models: &Path, name: &str, force: bool) -> anyhow::Result<String> {
    let spec = locate::find(models, name)?;
    let file = spec.onnx_path();
    if force || !file.is_file() {
        fetch::fetch(&spec.onnx, &file, &Limits::default(), &mut bar(spec.onnx.size))?;
    }
    let (onnx, sha256) = own_file(models, &spec)?;
    Ok(describe(&spec, &onnx, &sha256))
}

fn inspect(models: &Path, model: &str) -> anyhow::Result<String> {
    let file = Path::new(model);
    let (onnx, head) = if file.is_file() {
        let (size, sha256) = fetch::measure(file)?;
        let head = format!("file        {}\nsize        {size} bytes\nsha256      {sha256}", file.display());
        (file.to_owned(), head)
    } else {
        let spec = locate::find(models, model)?;
        let (onnx, sha256) = own_file(models, &spec)?;
        let head = describe(&spec, &onnx, &sha256);
        (onnx, head)
    };
    Ok(format!("{head}\n{}", graph::clean_file(&onnx)?.report))
}

fn check(models: &Path, model: &str) -> anyhow::Result<String> {
    let spec = locate::find(models, model)?;
    let (onnx, sha256) = own_file(models, &spec)?;
    let head = describe(&spec, &onnx, &sha256);
    let model = Model::read(spec, &onnx, sha256)?;
    let folder = env::temp_dir().join(format!("model-import-{}", std::process::id()));
    let outcome = model.generate(&onnx, &folder);
    let removed = std::fs::remove_dir_all(&folder);
    outcome?;
    removed?;
    Ok(format!(
        "{head}\n{}\nlabels      {}\nconverts, and its labels fit its outputs",
        model.network.report,
        model.labels.len()
    ))
}

/// The file of a model as it lies in its folder; nothing is fetched.
fn own_file(models: &Path, spec: &ModelSpec) -> Result<(PathBuf, String), crate::Error> {
    let request = Request {
        models: models.into(),
        spare: spec.folder.clone(),
        model: Some(spec.name.clone()),
        onnx: None,
        may_fetch: false,
        limits: Limits::default(),
    };
    locate::own_file(&request, spec, &mut |_, _| {})
}

fn describe(spec: &ModelSpec, onnx: &Path, sha256: &str) -> String {
    format!(
        "model       {}\nlicence     {}\nsource      {}\nfile        {}\nsize        {} bytes\nsha256      {sha256}",
        spec.name,
        spec.license,
        spec.source,
        onnx.display(),
        spec.onnx.size
    )
}

/// A progress bar on a terminal, silence elsewhere.
fn bar(size: u64) -> impl FnMut(u64, u64) {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
    let bar = if stderr().is_terminal() { ProgressBar::new(size) } else { ProgressBar::hidden() };
    if let Ok(style) = style {
        bar.set_style(style);
    }
    move |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    }
}
