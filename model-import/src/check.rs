//! Checks a model beyond the checks of a build.
//!
//! The checks cover the passes of [`crate::graph`]. `compare_compiled` also covers the generated code.

use std::fmt;

use crate::Error;
use crate::graph::macs::{self, MacReport};
use crate::model::Model;

/// Maximum number of layers in a report.
const MAX_LISTED_LAYERS: usize = 10;

/// The result of [`check`].
#[derive(Debug)]
pub struct CheckReport {
    /// The comparison with the original in tract, or the reason why there is none.
    pub comparison: Result<Comparison, String>,
    /// The multiply-adds of the graph and of the fused path.
    pub macs: MacReport,
}

/// The differences between the outputs of two graphs.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// For each batch size, the largest difference between two outputs.
    pub largest_differences: Vec<(usize, f32)>,
    /// The output that is farthest from 0.
    pub largest_output: f32,
}

/// Compares the simplified graph of a model with the original, and counts multiply-adds.
///
/// A graph that tract cannot run is not an error, but the report says so.
///
/// # Errors
/// Returns [`Error::OutputsDiffer`] if tract runs the original, but the simplified graph has other outputs or does
/// not accept a batch.
pub fn check(model: &Model) -> Result<CheckReport, Error> {
    #[cfg(feature = "compare")]
    let comparison = crate::compare::compare(&model.onnx_path, &model.graph)?;
    #[cfg(not(feature = "compare"))]
    let comparison = Err(format!(
        "this program is built without tract; `cargo run -p model-import --features compare -- check {}` compares",
        model.spec.name
    ));
    let graph = model.graph.model.graph.as_ref().cloned().unwrap_or_default();
    Ok(CheckReport { comparison, macs: macs::count(&graph, &model.graph.report.input_name) })
}

impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "with the original in tract:")?;
        for (batch_size, difference) in &self.largest_differences {
            write!(out, " largest difference {difference:.1e} in a batch of {batch_size},")?;
        }
        write!(out, " largest output {:.1e}", self.largest_output)
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.comparison {
            Ok(comparison) => writeln!(out, "compared    {comparison}")?,
            Err(reason) => writeln!(out, "compared    NOT compared with the original: {reason}")?,
        }
        format_macs(&self.macs, out)
    }
}

fn format_macs(report: &MacReport, out: &mut fmt::Formatter<'_>) -> fmt::Result {
    let percent = |macs: u64| macs as f64 * 100.0 / report.total.max(1) as f64;
    write!(
        out,
        "fused       {:.1} % of {:.1} million multiply-adds per image",
        percent(report.fused),
        report.total as f64 / 1e6
    )?;
    if !report.unknown.is_empty() {
        write!(out, ", not counting {} layers of unknown shape", report.unknown.len())?;
    }
    for layer in report.unfused.iter().take(MAX_LISTED_LAYERS) {
        write!(out, "\nnot fused   {:.1} %: {}: {}", percent(layer.macs), layer.layer, layer.reason)?;
    }
    let rest = report.unfused.iter().skip(MAX_LISTED_LAYERS);
    if rest.len() > 0 {
        let macs = rest.clone().map(|layer| layer.macs).sum();
        write!(out, "\nnot fused   {:.1} %: {} more layers", percent(macs), rest.len())?;
    }
    for layer in report.unknown.iter().take(MAX_LISTED_LAYERS) {
        write!(out, "\nunknown     {layer}")?;
    }
    let rest = report.unknown.len().saturating_sub(MAX_LISTED_LAYERS);
    if rest > 0 {
        write!(out, "\nunknown     {rest} more layers")?;
    }
    Ok(())
}
