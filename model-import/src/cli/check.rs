//! The command `model-import check`.

use std::path::Path;

use crate::check;
use crate::locate;
use crate::model::Model;

/// Runs the checks of a build except for the generation of code, and compares the graph with the original.
pub(super) fn run(models_folder: &Path, name: &str) -> anyhow::Result<String> {
    let spec = locate::read_spec(models_folder, name)?;
    let (onnx_path, sha256) = super::find_checked_onnx(models_folder, &spec)?;
    let summary = super::format_summary(&spec, &onnx_path, &sha256);
    let model = Model::read(spec, onnx_path, sha256)?;
    let report = check::check(&model)?;
    Ok(format!(
        "{summary}\n{}\nkind        {}\nlabels      {}, which fit the outputs\n{report}",
        model.graph.report,
        model.output.kind,
        model.labels.len()
    ))
}
