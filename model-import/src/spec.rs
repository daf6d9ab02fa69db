//! Reads the settings of a model from `models/<name>/model.toml`.
//!
//! The settings state the origin of the weights, the ONNX file, the preprocessing and the kind of output. The
//! names, layout and sizes of the network's input and output are read from the graph instead.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;
use crate::graph::SimplifyOptions;
use crate::output::{OutputKind, OutputSpec};

mod input;

use input::InputSection;
pub use input::{Channels, Filter, InputSpec, Normalisation, Resize, Size};

/// Licence of a model whose `model.toml` does not state one.
pub const UNKNOWN_LICENSE: &str = "unknown";

/// The checked contents of a `model.toml`, and the folder that holds it.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The model's folder.
    pub folder: PathBuf,
    /// Name of the model, which is the name of its folder.
    pub name: String,
    /// SPDX expression of the weights' licence, or [`UNKNOWN_LICENSE`].
    pub license: String,
    /// Human-readable origin of the weights. Empty if it is not known.
    pub source: String,
    /// The ONNX file. A published file has a size and a checksum.
    pub onnx: OnnxFile,
    /// Preprocessing of the images.
    pub input: InputSpec,
    /// The choice and the kind of the output.
    pub output: OutputSpec,
    /// Path of the labels file, which only a model of embeddings lacks.
    pub labels_path: Option<PathBuf>,
}

/// The ONNX file of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct OnnxFile {
    /// Name of the file in the model's folder.
    pub file: String,
    /// The content that the file must have. `None` for the user's own file, which may have any content and is
    /// never fetched or overwritten.
    pub published: Option<PublishedFile>,
}

/// A published file: its checksum and the places to fetch it from.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishedFile {
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// URLs to fetch the file from, tried in order; empty if the file is part of the repository.
    pub urls: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelToml {
    name: String,
    license: Option<String>,
    source: Option<String>,
    labels: Option<String>,
    onnx: OnnxSection,
    input: InputSection,
    #[serde(default)]
    output: OutputSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OnnxSection {
    file: String,
    size: Option<u64>,
    sha256: Option<String>,
    #[serde(default)]
    urls: Vec<String>,
}

impl ModelSpec {
    /// Returns the path of the `model.toml` in a model's folder.
    #[must_use]
    pub fn toml_path(folder: &Path) -> PathBuf {
        folder.join("model.toml")
    }

    /// Returns the settings for the simplification of the model's graph.
    #[must_use]
    pub fn simplify_options(&self) -> SimplifyOptions {
        SimplifyOptions { output_name: self.output.name.clone(), image_size: Some(self.input.crop.into()) }
    }

    /// Returns the path at which the ONNX file of this model is expected.
    #[must_use]
    pub fn onnx_path(&self) -> PathBuf {
        self.folder.join(&self.onnx.file)
    }

    /// Reads and checks `folder/model.toml`.
    ///
    /// # Errors
    /// Returns [`Error::Io`] if the file cannot be read, and [`Error::InvalidModelToml`] if the file is not
    /// valid TOML, has an unknown or missing key, or has an invalid value.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let toml_path = Self::toml_path(folder);
        let text = fs::read_to_string(&toml_path).map_err(Error::io("read", &toml_path))?;
        Self::parse(&text, folder)
    }

    /// Parses and checks `text`, the content of `folder/model.toml`.
    ///
    /// # Errors
    /// Returns [`Error::InvalidModelToml`] as [`ModelSpec::read`] does.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Error> {
        let toml_path = Self::toml_path(folder);
        let settings: ModelToml = toml::from_str(text).map_err(|error| Error::InvalidModelToml {
            toml_path: toml_path.clone(),
            line: error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            reason: error.message().into(),
        })?;
        let invalid = |reason| Error::InvalidModelToml { toml_path: toml_path.clone(), line: None, reason };
        check_values(&settings, folder).map_err(invalid)?;
        let input = settings.input.check().map_err(invalid)?;
        let onnx = read_onnx_section(settings.onnx).map_err(invalid)?;
        Ok(Self {
            folder: folder.into(),
            name: settings.name,
            license: settings.license.unwrap_or_else(|| UNKNOWN_LICENSE.into()),
            source: settings.source.unwrap_or_default(),
            onnx,
            input,
            output: settings.output,
            labels_path: settings.labels.map(|file| folder.join(file)),
        })
    }
}

fn check_values(settings: &ModelToml, folder: &Path) -> Result<(), String> {
    let folder_name = folder.file_name().unwrap_or_default().to_string_lossy();
    if settings.name != folder_name {
        return Err(format!(
            "key `name` is {:?}, expected the name of the folder, {folder_name:?}",
            settings.name
        ));
    }
    for (key, value) in [("license", &settings.license), ("source", &settings.source)] {
        if value.as_ref().is_some_and(|value| value.trim().is_empty()) {
            return Err(format!("key `{key}` is empty, expected text, or no such key if it is unknown"));
        }
    }
    let labels = settings.labels.as_ref().map(|file| ("labels", file));
    for (key, value) in labels.into_iter().chain([("onnx.file", &settings.onnx.file)]) {
        if !is_plain_file_name(value) {
            return Err(format!(
                "key `{key}` is {value:?}, expected the name of a file in the model's own folder"
            ));
        }
    }
    check_output(&settings.output, settings.labels.is_some())
}

/// Reads the section `[onnx]`, in which `size` and `sha256` describe a published file and `urls` locate it.
fn read_onnx_section(section: OnnxSection) -> Result<OnnxFile, String> {
    let OnnxSection { file, size, sha256, urls } = section;
    let (size, sha256) = match (size, sha256) {
        (Some(size), Some(sha256)) => (size, sha256),
        (None, None) if urls.is_empty() => return Ok(OnnxFile { file, published: None }),
        (None, None) => {
            return Err(
                "key `onnx.urls` has URLs, expected `onnx.size` and `onnx.sha256` as well, because a \
                        download is checked; leave out all three for a file of your own"
                    .into(),
            );
        }
        (size, _) => {
            let (present, absent) = if size.is_some() { ("size", "sha256") } else { ("sha256", "size") };
            return Err(format!(
                "key `onnx.{present}` is there without `onnx.{absent}`, expected both for a published file, or \
                 neither for a file of your own"
            ));
        }
    };
    if size == 0 {
        return Err("key `onnx.size` is 0, expected the size of the ONNX file in bytes".into());
    }
    let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if sha256.len() != 64 || !sha256.bytes().all(is_lower_hex) {
        return Err(format!("key `onnx.sha256` is {sha256:?}, expected 64 lower-case hexadecimal digits"));
    }
    if let Some(url) = urls.iter().find(|url| !url.starts_with("https://") && !url.starts_with("http://")) {
        return Err(format!(
            "key `onnx.urls` contains {url:?}, expected URLs that begin with https:// or http://"
        ));
    }
    Ok(OnnxFile { file, published: Some(PublishedFile { size, sha256, urls }) })
}

fn check_output(output: &OutputSpec, has_labels: bool) -> Result<(), String> {
    match (output.kind, has_labels) {
        (Some(OutputKind::Embedding), true) => {
            return Err(
                "key `labels` is set, but key `output.kind` is \"embedding\", and an embedding has no \
                 labels; remove one of the keys"
                    .into(),
            );
        }
        (Some(OutputKind::Embedding), false) | (_, true) => {}
        (_, false) => {
            return Err(
                "key `labels` is missing, expected the name of a file with one label per line; only a \
                 model with `output.kind` = \"embedding\" has no labels"
                    .into(),
            );
        }
    }
    if let Some(threshold) = output.threshold
        && !(0.0..=1.0).contains(&threshold)
    {
        return Err(format!("key `output.threshold` is {threshold}, expected a probability from 0 to 1"));
    }
    Ok(())
}

/// Returns true if `name` is a file name without a folder, so that the file is in the model's own folder.
///
/// A name with a control character is not accepted: a line break would end the line of a cargo directive.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty()
        && name != "."
        && name != ".."
        && !name.contains(|c: char| matches!(c, '/' | '\\') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_name_with_a_folder_or_a_line_break_is_not_plain() {
        assert!(is_plain_file_name("model.onnx.data") && is_plain_file_name("Modèle 1.onnx"));
        for name in ["", ".", "..", "a/b", "a\\b", "a\0", "a\ncargo::rustc-env=B=c", "a\r"] {
            assert!(!is_plain_file_name(name), "{name:?}");
        }
    }
}
