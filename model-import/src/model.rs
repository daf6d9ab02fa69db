//! Combines the settings, the labels and the graph of a model, and checks that they fit together.

use std::path::PathBuf;

use crate::Error;
use crate::graph::{self, SimplifiedGraph};
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
    /// the size of the graph's input differs from `input.crop`, and [`Error::LabelCount`] if the number of
    /// labels differs from the number of outputs.
    pub fn read(spec: ModelSpec, onnx_path: PathBuf, sha256: String) -> Result<Self, Error> {
        let labels = labels::read(&spec.labels_path)?;
        let graph = graph::simplify_file(&onnx_path, Some([i64::from(spec.input.crop); 2]))?;
        let report = &graph.report;
        let crop = spec.input.crop as usize;
        if report.height != crop || report.width != crop {
            return Err(Error::UnsupportedGraph {
                reason: format!(
                    "the input {:?} is {}x{} (height x width), but key `input.crop` of {} is {crop}; \
                     the network's input must be a square with that side",
                    report.input_name,
                    report.height,
                    report.width,
                    ModelSpec::toml_path(&spec.folder).display()
                ),
                onnx_path,
            });
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
