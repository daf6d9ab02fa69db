//! Combines the settings, the labels and the graph of a model, and checks that they fit together.

use std::path::PathBuf;

use crate::Error;
use crate::graph::{self, InputValues, Report, SimplifiedGraph};
use crate::labels::{self, Label};
use crate::spec::ModelSpec;

/// A model that is ready for code generation.
pub struct Model {
    /// Settings from `model.toml`.
    pub spec: ModelSpec,
    /// One label per class, in the order of the outputs.
    pub labels: Vec<Label>,
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
    /// Returns the errors of [`labels::read`] and [`graph::simplify_file`], [`Error::UnsupportedGraph`] if
    /// the size or the channels of the graph's input differ from `input.crop` or `input.channels`, and [`Error::LabelCount`] if the number of
    /// labels differs from the number of outputs.
    pub fn read(spec: ModelSpec, onnx_path: PathBuf, sha256: String) -> Result<Self, Error> {
        let labels = labels::read(&spec.labels_path)?;
        let graph = graph::simplify_file(&onnx_path, Some(spec.input.crop.into()))?;
        let report = &graph.report;
        if let Err(reason) = check_input(&spec, report) {
            return Err(Error::UnsupportedGraph { reason, onnx_path });
        }
        if labels.len() != report.class_count {
            return Err(Error::LabelCount {
                labels_path: spec.labels_path,
                label_count: labels.len(),
                onnx_path,
                class_count: report.class_count,
            });
        }
        Ok(Self { spec, labels, graph, onnx_path, sha256 })
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
