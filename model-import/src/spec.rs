//! Reads the settings of a model from `models/<name>/model.toml`.
//!
//! The settings state the origin of the weights, the ONNX file, the preprocessing and the kind of output. The
//! names, layout and sizes of the network's input and output are read from the graph instead.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;

/// The checked contents of a `model.toml`, and the folder that holds it.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The model's folder.
    pub folder: PathBuf,
    /// Name of the model, which is the name of its folder.
    pub name: String,
    /// SPDX expression of the weights' licence.
    pub license: String,
    /// Human-readable origin of the weights.
    pub source: String,
    /// The ONNX file, with its size and checksum.
    pub onnx: OnnxFile,
    /// Preprocessing of the images.
    pub input: InputSpec,
    /// Kind of numbers at the output.
    pub output: OutputKind,
    /// Path of the labels file.
    pub labels_path: PathBuf,
}

/// The ONNX file of a model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxFile {
    /// Name of the file in the model's folder.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// URLs to fetch the file from, tried in order; empty if the file is part of the repository.
    pub urls: Vec<String>,
}

/// Preprocessing of an image.
///
/// The image is resized and cropped to its centre square. Each value is divided by 255, `mean` is subtracted,
/// and the difference is divided by `std`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Mean per channel, on a scale where RGB values are divided by 255.
    pub mean: [f32; 3],
    /// Standard deviation per channel, on the same scale.
    pub std: [f32; 3],
    /// Length of the shorter side after resizing, in pixels.
    pub resize: u32,
    /// Side of the centre square that is the network's input, in pixels.
    pub crop: u32,
}

/// Kind of numbers at the network's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// Logits, which a service converts to probabilities with a softmax.
    Logits,
    /// Probabilities, which are the result of a softmax.
    Probabilities,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelToml {
    name: String,
    license: String,
    source: String,
    labels: String,
    onnx: OnnxFile,
    input: InputSpec,
    output: OutputSection,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputSection {
    kind: OutputKind,
}

impl ModelSpec {
    /// Returns the path of the `model.toml` in a model's folder.
    #[must_use]
    pub fn toml_path(folder: &Path) -> PathBuf {
        folder.join("model.toml")
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
        let settings: ModelToml = toml::from_str(&text).map_err(|error| Error::InvalidModelToml {
            toml_path: toml_path.clone(),
            line: error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            reason: error.message().into(),
        })?;
        check_values(&settings, folder).map_err(|reason| Error::InvalidModelToml {
            toml_path,
            line: None,
            reason,
        })?;
        Ok(Self {
            folder: folder.into(),
            name: settings.name,
            license: settings.license,
            source: settings.source,
            onnx: settings.onnx,
            input: settings.input,
            output: settings.output.kind,
            labels_path: folder.join(settings.labels),
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
        if value.trim().is_empty() {
            return Err(format!("key `{key}` is empty, expected text"));
        }
    }
    for (key, value) in [("labels", &settings.labels), ("onnx.file", &settings.onnx.file)] {
        if !is_plain_file_name(value) {
            return Err(format!(
                "key `{key}` is {value:?}, expected the name of a file in the model's own folder"
            ));
        }
    }
    if settings.onnx.size == 0 {
        return Err("key `onnx.size` is 0, expected the size of the ONNX file in bytes".into());
    }
    let sha256 = &settings.onnx.sha256;
    let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if sha256.len() != 64 || !sha256.bytes().all(is_lower_hex) {
        return Err(format!("key `onnx.sha256` is {sha256:?}, expected 64 lower-case hexadecimal digits"));
    }
    for url in &settings.onnx.urls {
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(format!(
                "key `onnx.urls` contains {url:?}, expected URLs that begin with https:// or http://"
            ));
        }
    }
    if !settings.input.mean.iter().all(|mean| mean.is_finite()) {
        return Err(format!("key `input.mean` is {:?}, expected finite numbers", settings.input.mean));
    }
    if !settings.input.std.iter().all(|std| std.is_finite() && *std > 0.0) {
        return Err(format!("key `input.std` is {:?}, expected numbers greater than 0", settings.input.std));
    }
    let InputSpec { resize, crop, .. } = settings.input;
    if crop == 0 || crop > resize {
        return Err(format!(
            "key `input.crop` is {crop}, expected 1 to {resize}, which is the value of `input.resize`"
        ));
    }
    Ok(())
}

/// Returns true if `name` is a file name without a folder, so that the file is in the model's own folder.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
