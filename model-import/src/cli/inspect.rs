//! The command `model-import inspect`.

use std::path::Path;

use crate::graph::SimplifyOptions;
use crate::graph::external::{self, Checksum};
use crate::{Error, graph, locate};

/// Describes the graph of a model, or of an ONNX file, before and after simplification.
pub(super) fn run(models_folder: &Path, name_or_path: &str) -> anyhow::Result<String> {
    let path = Path::new(name_or_path);
    let (onnx_path, options, summary) = if path.is_file() {
        let Checksum { size, sha256, .. } = external::checksum(path).map_err(Error::io("read", path))?;
        let summary =
            format!("file        {}\nsize        {size} bytes\nsha256      {sha256}", path.display());
        (path.to_owned(), SimplifyOptions::default(), summary)
    } else {
        let spec = locate::read_spec(models_folder, name_or_path)?;
        let (onnx_path, sha256) = super::find_checked_onnx(models_folder, &spec)?;
        let summary = super::format_summary(&spec, &onnx_path, &sha256);
        (onnx_path, spec.simplify_options(), summary)
    };
    Ok(format!("{summary}\n{}", graph::simplify_file(&onnx_path, &options)?.report))
}
