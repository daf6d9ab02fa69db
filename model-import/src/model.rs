//! Combines the settings, the labels and the graph of a model, and checks that they fit together.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::graph::{self, InputValues, Report, SimplifiedGraph};
use crate::labels::{self, Label};
use crate::output::{self, ModelOutput, OutputKind};
use crate::spec::ModelSpec;

/// A model that is ready for code generation.
pub struct Model {
    /// Settings from `model.toml`.
    pub spec: ModelSpec,
    /// The labels: one per output, none for an embedding, and one or two for a binary classifier.
    pub labels: Vec<Label>,
    /// Kind of the outputs.
    pub output: ModelOutput,
    /// The simplified graph and its report.
    pub graph: SimplifiedGraph,
    /// Path of the ONNX file that the graph was read from.
    pub onnx_path: PathBuf,
    /// SHA-256 of the ONNX file, in hexadecimal.
    pub sha256: String,
}

impl Model {
    /// Reads the labels and the graph of a model and checks that they fit together.
    ///
    /// # Errors
    /// Returns the errors of [`labels::read`], [`graph::simplify_file`] and [`Model::new`].
    pub fn read(spec: ModelSpec, onnx_path: PathBuf, sha256: String) -> Result<Self, Error> {
        let labels = spec.labels_path.as_deref().map_or(Ok(Vec::new()), labels::read)?;
        let graph = graph::simplify_file(&onnx_path, &spec.simplify_options())?;
        Self::new(spec, labels, graph, onnx_path, sha256)
    }

    /// Checks that the settings, the labels and the graph of a model fit together.
    ///
    /// # Errors
    /// Returns [`Error::UnsupportedGraph`] if the size or the channels of the graph's input differ from `input.crop`
    /// or `input.channels`, [`Error::UnsupportedOutput`] if the section `[output]` contradicts the graph, and
    /// [`Error::LabelCount`] or [`Error::InvalidLabels`] if the number of labels does not fit the number of outputs.
    pub fn new(
        spec: ModelSpec,
        labels: Vec<Label>,
        graph: SimplifiedGraph,
        onnx_path: PathBuf,
        sha256: String,
    ) -> Result<Self, Error> {
        let report = &graph.report;
        if let Err(reason) = check_input(&spec, report) {
            return Err(Error::UnsupportedGraph { reason, onnx_path });
        }
        let output = output::resolve(&spec.output, report.ending, report.class_count).map_err(|reason| {
            Error::UnsupportedOutput {
                toml_path: ModelSpec::toml_path(&spec.folder),
                onnx_path: onnx_path.clone(),
                reason,
            }
        })?;
        if let Some(labels_path) = &spec.labels_path {
            check_label_count(labels_path, labels.len(), output.kind, report.class_count, &onnx_path)?;
        }
        Ok(Self { spec, labels, output, graph, onnx_path, sha256 })
    }
}

/// Checks that the settings prepare an image of the size and the channels of the graph's input.
fn check_input(spec: &ModelSpec, report: &Report) -> Result<(), String> {
    let Report { input_name, height, width, channels, input_values, .. } = report;
    let toml_path = ModelSpec::toml_path(&spec.folder);
    let (crop, order) = (spec.input.crop, spec.input.channels);
    if (*height, *width) != (crop.height as usize, crop.width as usize) {
        return Err(format!(
            "the input {input_name:?} is {height}x{width} (height x width), but key `input.crop` of {} is {crop}; set \
             it to [{height}, {width}]",
            toml_path.display()
        ));
    }
    if *channels != order.count() {
        let expected = if *channels == 1 { "\"grey\"" } else { "\"rgb\" or \"bgr\"" };
        return Err(format!(
            "the input {input_name:?} has {channels} channels, but key `input.channels` of {} selects {}; set it to \
             {expected}",
            toml_path.display(),
            order.count()
        ));
    }
    if *input_values == InputValues::Bytes && !spec.input.normalisation.keeps_bytes() {
        return Err(format!(
            "the input {input_name:?} is the bytes of the picture (uint8), which the graph normalises itself, but {} \
             normalises them, too; write `scale = 1` and `offset = 0` in place of its normalisation",
            toml_path.display()
        ));
    }
    Ok(())
}

fn check_label_count(
    labels_path: &Path,
    label_count: usize,
    kind: OutputKind,
    output_count: usize,
    onnx_path: &Path,
) -> Result<(), Error> {
    if kind == OutputKind::Binary {
        return if label_count <= 2 {
            Ok(())
        } else {
            Err(Error::InvalidLabels {
                labels_path: labels_path.into(),
                line: None,
                reason: format!(
                    "the file has {label_count} labels, but {} is a binary classifier, expected two labels \
                     (the negative and then the positive class) or one (the positive class)",
                    onnx_path.display()
                ),
            })
        };
    }
    if label_count == output_count {
        return Ok(());
    }
    Err(Error::LabelCount {
        labels_path: labels_path.into(),
        label_count,
        onnx_path: onnx_path.into(),
        class_count: output_count,
    })
}
