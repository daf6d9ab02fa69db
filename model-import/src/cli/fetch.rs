//! The command `model-import fetch`.

use std::io::{IsTerminal as _, stderr};
use std::path::Path;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::fetch::{self, FetchTimeouts};
use crate::locate;

/// Fetches the ONNX file of a model, unless there is a file, and checks it.
pub(super) fn run(models_folder: &Path, name: &str) -> anyhow::Result<String> {
    let spec = locate::read_spec(models_folder, name)?;
    let onnx_path = spec.onnx_path();
    if let Some(published) = &spec.onnx.published
        && !onnx_path.exists()
    {
        let mut show_progress = progress_bar_callback(published.size);
        fetch::fetch(published, &onnx_path, &FetchTimeouts::default(), &mut show_progress)
            .with_context(|| format!("cannot fetch the ONNX file of model {name}"))?;
    }
    let (onnx_path, sha256) = super::find_checked_onnx(models_folder, &spec)?;
    Ok(super::format_summary(&spec, &onnx_path, &sha256))
}

/// Returns a callback that shows a progress bar if standard error is a terminal.
fn progress_bar_callback(size: u64) -> impl FnMut(u64, u64) {
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec}, {eta} left");
    let bar = if stderr().is_terminal() { ProgressBar::new(size) } else { ProgressBar::hidden() };
    if let Ok(style) = style {
        bar.set_style(style);
    }
    move |received, total| {
        bar.set_length(total);
        bar.set_position(received);
    }
}
