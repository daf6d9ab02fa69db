//! What can go wrong between a model folder and generated code, in words for whoever runs the build.

use std::io;
use std::path::PathBuf;

/// A failure that names the file it is about and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or writing failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why the system refused.
        source: io::Error,
    },
    /// `model.toml` is not what it should be.
    #[error("{}{}: {reason}", file.display(), at_line(*.line))]
    Spec {
        /// The `model.toml`.
        file: PathBuf,
        /// Line, counted from 1, where it is known.
        line: Option<usize>,
        /// Key and complaint.
        reason: String,
    },
    /// The labels file is not what it should be.
    #[error("{}{}: {reason}", file.display(), at_line(*.line))]
    Labels {
        /// The labels file.
        file: PathBuf,
        /// Line, counted from 1, where it is known.
        line: Option<usize>,
        /// Complaint.
        reason: String,
    },
    /// The labels do not fit the network's outputs.
    #[error(
        "{} has {labels} labels, but the output of {} has {classes} classes: one label a line, in the order of the outputs",
        labels_file.display(),
        onnx.display()
    )]
    LabelCount {
        /// The labels file.
        labels_file: PathBuf,
        /// Labels in it.
        labels: usize,
        /// The ONNX file.
        onnx: PathBuf,
        /// Size of the network's output.
        classes: usize,
    },
    /// There is no such model folder.
    #[error("there is no model {name:?}: {} does not exist; the models are {}", folder.display(), available.join(", "))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
        /// What there is.
        available: Vec<String>,
    },
    /// An environment variable has a value that means nothing.
    #[error("{variable}={value}: {reason}")]
    Setting {
        /// Name of the variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// The ONNX file is not the one that `model.toml` means.
    #[error(
        "{} is not the file that {} describes: expected {expected}, found {found}; {advice}",
        onnx.display(),
        spec.display()
    )]
    WrongFile {
        /// The file found.
        onnx: PathBuf,
        /// The `model.toml`.
        spec: PathBuf,
        /// Size and sum expected.
        expected: String,
        /// Size and sum found.
        found: String,
        /// What to do about it.
        advice: String,
    },
    /// The ONNX file of a model is not there and could not be fetched.
    #[error("the ONNX file of model {name} is not at {}: {cause}; {advice}", file.display())]
    Missing {
        /// Name of the model.
        name: String,
        /// Where the file belongs.
        file: PathBuf,
        /// Why it was not fetched.
        cause: String,
        /// What to do about it.
        advice: String,
    },
    /// The file is no ONNX graph that this importer understands.
    #[error("{}: {reason}", onnx.display())]
    Graph {
        /// The ONNX file.
        onnx: PathBuf,
        /// What is wrong with its graph.
        reason: String,
    },
    /// The graph was understood, but no burn code came of it.
    #[error("{} does not convert to burn code: {cause}", onnx.display())]
    Convert {
        /// The ONNX file.
        onnx: PathBuf,
        /// What the code generator said.
        cause: String,
    },
}

impl Error {
    /// For `map_err`: the failed action and the path it was about.
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn at_line(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}
