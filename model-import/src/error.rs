//! The errors of this crate, worded for the person who runs the build.

use std::io;
use std::path::PathBuf;

/// An error of this crate. Its message names the file or variable that caused it and, if possible, a remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The failed operation as a verb: "read", "write", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// `model.toml` has a syntax error, an unknown or missing key, or an invalid value.
    #[error("{}{}: {reason}", toml_path.display(), line_suffix(*.line))]
    InvalidModelToml {
        /// The `model.toml`.
        toml_path: PathBuf,
        /// Line number, counted from 1, if known.
        line: Option<usize>,
        /// The key, the value found and the value expected.
        reason: String,
    },
    /// The labels file is empty or has a line without a label.
    #[error("{}{}: {reason}", labels_path.display(), line_suffix(*.line))]
    InvalidLabels {
        /// The labels file.
        labels_path: PathBuf,
        /// Line number, counted from 1, if the error is about one line.
        line: Option<usize>,
        /// The problem and what is expected instead.
        reason: String,
    },
    /// The number of labels differs from the number of classes.
    #[error(
        "{} has {label_count} labels, but the output of {} has {class_count} classes: \
         the labels file needs one line per class, in the order of the outputs",
        labels_path.display(),
        onnx_path.display()
    )]
    LabelCount {
        /// The labels file.
        labels_path: PathBuf,
        /// Number of labels in the file.
        label_count: usize,
        /// The ONNX file.
        onnx_path: PathBuf,
        /// Number of classes at the network's output.
        class_count: usize,
    },
    /// No model folder has the requested name.
    #[error(
        "there is no model {name:?}; {}",
        if available.is_empty() {
            format!("no folder in {} has a model.toml", models_folder.display())
        } else {
            format!("the models in {} are: {}", models_folder.display(), available.join(", "))
        }
    )]
    UnknownModel {
        /// The requested name.
        name: String,
        /// The folder that was searched.
        models_folder: PathBuf,
        /// Names of the models in that folder.
        available: Vec<String>,
    },
    /// An environment variable has an invalid value.
    #[error("{variable}={value}: {reason}")]
    InvalidVariable {
        /// Name of the variable.
        variable: &'static str,
        /// Value of the variable.
        value: String,
        /// The reason for refusing the value, and the values that are accepted.
        reason: String,
    },
    /// An environment variable that cargo sets for build scripts is not set.
    #[error("{variable} is not set: cargo sets it for build scripts, so run this code from a build.rs")]
    MissingVariable {
        /// Name of the variable.
        variable: &'static str,
    },
    /// The ONNX file does not have the size and checksum that `model.toml` states.
    #[error(
        "{} is not the file that {} describes: expected {expected}, found {found}; {advice}",
        onnx_path.display(),
        toml_path.display()
    )]
    WrongOnnxFile {
        /// The ONNX file.
        onnx_path: PathBuf,
        /// The `model.toml`.
        toml_path: PathBuf,
        /// Expected size and checksum.
        expected: String,
        /// Actual size and checksum.
        found: String,
        /// Advice for the user.
        advice: String,
    },
    /// The ONNX file of a model is missing and was not fetched.
    #[error(
        "the ONNX file of model {name} is missing at {} and was not fetched: {cause}; {advice}",
        expected_path.display()
    )]
    MissingOnnxFile {
        /// Name of the model.
        name: String,
        /// The path at which the file is expected.
        expected_path: PathBuf,
        /// The reason why the file was not fetched.
        cause: String,
        /// Advice for the user.
        advice: String,
    },
    /// The file is not an ONNX model, or its graph is not a supported image classifier.
    #[error("cannot import {}: {reason}", onnx_path.display())]
    UnsupportedGraph {
        /// The ONNX file.
        onnx_path: PathBuf,
        /// The property that was found, the property that is expected, and advice for the user.
        reason: String,
    },
    /// The simplified graph or the generated code does not compute the outputs of the original.
    #[error("the {part} of {} does not compute what the original computes: {reason}", onnx_path.display())]
    OutputsDiffer {
        /// The ONNX file.
        onnx_path: PathBuf,
        /// `simplified graph` or `generated code`.
        part: &'static str,
        /// The difference.
        reason: String,
    },
    /// A model cannot be added. The value has one message per problem.
    #[error("cannot add the model:{}", .0.iter().map(|problem| format!("\n  - {problem}")).collect::<String>())]
    CannotAdd(Vec<String>),
    /// The section `[output]` of `model.toml` does not fit the graph.
    #[error("cannot import {} with {}: {reason}", onnx_path.display(), toml_path.display())]
    UnsupportedOutput {
        /// The ONNX file.
        onnx_path: PathBuf,
        /// The `model.toml`.
        toml_path: PathBuf,
        /// The property that was found, the property that is expected, and advice for the user.
        reason: String,
    },
    /// burn-onnx cannot generate code for the graph.
    #[error(
        "burn-onnx cannot convert {onnx} to code ({cause}). `cargo run -p model-import -- inspect {onnx}` lists \
         the operators of the graph. If burn-onnx does not support one of them, export the model without it, \
         or add it as a custom operator in model-import/src/codegen.rs",
        onnx = onnx_path.display()
    )]
    Conversion {
        /// The ONNX file.
        onnx_path: PathBuf,
        /// The message of the code generator.
        cause: String,
    },
}

impl Error {
    /// Returns a closure for `map_err` that wraps an [`io::Error`] as [`Error::Io`].
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

fn line_suffix(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}
