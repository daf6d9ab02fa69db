//! A model, whole: its file read and cleaned up, its labels read, all of it checked together.

use std::path::Path;

use crate::graph::{self, Cleaned};
use crate::labels::{self, Label};
use crate::spec::ModelSpec;
use crate::{Error, codegen};

/// A model that is ready for code generation.
pub struct Model {
    /// Settings of the model's folder.
    pub spec: ModelSpec,
    /// One label for each class, in the order of the outputs.
    pub labels: Vec<Label>,
    /// The cleaned graph and what is known of it.
    pub network: Cleaned,
    /// SHA-256 of the ONNX file, in hexadecimal.
    pub sha256: String,
}

impl Model {
    /// Reads everything that belongs to a model and checks that it fits together.
    ///
    /// # Errors
    /// The labels or the graph cannot be read or used; the graph's input is not of the size that
    /// `input.crop` says; the number of labels is not the number of outputs.
    pub fn read(spec: ModelSpec, onnx: &Path, sha256: String) -> Result<Self, Error> {
        let labels = labels::read(&spec.labels)?;
        let network = graph::clean_file(onnx)?;
        let report = &network.report;
        let crop = spec.input.crop as usize;
        if report.height != crop || report.width != crop {
            return Err(Error::Graph {
                onnx: onnx.into(),
                reason: format!(
                    "its input {:?} is {}x{} (height x width), but key `input.crop` of {} is {crop}",
                    report.input,
                    report.height,
                    report.width,
                    ModelSpec::path(&spec.folder).display()
                ),
            });
        }
        if labels.len() != report.classes {
            return Err(Error::LabelCount {
                labels_file: spec.labels,
                labels: labels.len(),
                onnx: onnx.into(),
                classes: report.classes,
            });
        }
        Ok(Self { spec, labels, network, sha256 })
    }

    /// Writes `network.rs`, `network.bpk`, `network.onnx` and `spec.rs` into `out`.
    ///
    /// # Errors
    /// The graph does not convert, or the folder cannot be written.
    pub fn generate(&self, onnx: &Path, out: &Path) -> Result<(), Error> {
        codegen::network(&self.network.model, onnx, out, "network")?;
        codegen::spec(self, out)
    }
}
