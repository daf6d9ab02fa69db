//! `models/<name>/model.toml`: what a model is, where its file comes from, and what it wants to see.
//!
//! Names, layout and sizes of the network's input and output are not here: the graph says them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::Error;

/// A model's `model.toml`, checked, together with the folder it lies in.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// The model's folder.
    pub folder: PathBuf,
    /// Name: the same as the folder's.
    pub name: String,
    /// SPDX expression of the weights' licence.
    pub license: String,
    /// Where the weights come from, for people.
    pub source: String,
    /// The ONNX file and how to know it.
    pub onnx: OnnxFile,
    /// What the network wants to see.
    pub input: Input,
    /// What the network says.
    pub output: OutputKind,
    /// The labels file.
    pub labels: PathBuf,
}

/// The ONNX file of a model.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OnnxFile {
    /// File name inside the model's folder.
    pub file: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
    /// Addresses to fetch it from, tried in order; empty for a file that ships with the source.
    pub urls: Vec<String>,
}

/// Preprocessing: RGB / 255, shorter side to `resize`, centre square of `crop`, minus mean, by std.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Mean of each channel, of RGB / 255.
    pub mean: [f32; 3],
    /// Standard deviation of each channel, of RGB / 255.
    pub std: [f32; 3],
    /// Shorter side after resizing, in pixels.
    pub resize: u32,
    /// Side of the centre square that the network sees, in pixels.
    pub crop: u32,
}

/// What the numbers at the network's output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputKind {
    /// Before a softmax.
    Logits,
    /// After it.
    Probabilities,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    license: String,
    source: String,
    labels: String,
    onnx: OnnxFile,
    input: Input,
    output: Output,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Output {
    kind: OutputKind,
}

impl ModelSpec {
    /// Where `model.toml` of a folder is.
    #[must_use]
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("model.toml")
    }

    /// Where the ONNX file of this model belongs.
    #[must_use]
    pub fn onnx_path(&self) -> PathBuf {
        self.folder.join(&self.onnx.file)
    }

    /// Reads and checks `folder/model.toml`.
    ///
    /// # Errors
    /// The file cannot be read, is no TOML, has an unknown or missing key, or a value out of bounds;
    /// the error names file and key.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = Self::path(folder);
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let file: File = toml::from_str(&text).map_err(|error| Error::Spec {
            file: path.clone(),
            line: error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1),
            reason: error.message().into(),
        })?;
        check(&file, folder).map_err(|reason| Error::Spec { file: path, line: None, reason })?;
        Ok(Self {
            folder: folder.into(),
            name: file.name,
            license: file.license,
            source: file.source,
            onnx: file.onnx,
            input: file.input,
            output: file.output.kind,
            labels: folder.join(file.labels),
        })
    }
}

fn check(file: &File, folder: &Path) -> Result<(), String> {
    let folder_name = folder.file_name().unwrap_or_default().to_string_lossy();
    if file.name != folder_name {
        return Err(format!("key `name` is {:?}, but the folder is {folder_name:?}", file.name));
    }
    for (key, value) in [("license", &file.license), ("source", &file.source)] {
        if value.trim().is_empty() {
            return Err(format!("key `{key}` is empty"));
        }
    }
    for (key, value) in [("labels", &file.labels), ("onnx.file", &file.onnx.file)] {
        if !is_plain_file_name(value) {
            return Err(format!("key `{key}` is {value:?}: it names a file in the model's own folder"));
        }
    }
    if file.onnx.size == 0 {
        return Err("key `onnx.size` is 0: it is the size of the ONNX file in bytes".into());
    }
    let sum = &file.onnx.sha256;
    let is_lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if sum.len() != 64 || !sum.bytes().all(is_lower_hex) {
        return Err(format!("key `onnx.sha256` is {sum:?}: it is 64 lower-case hexadecimal digits"));
    }
    for url in &file.onnx.urls {
        if !url.starts_with("https://") && !url.starts_with("http://") {
            return Err(format!("key `onnx.urls` has {url:?}: addresses begin with https:// or http://"));
        }
    }
    if !file.input.mean.iter().all(|mean| mean.is_finite()) {
        return Err("key `input.mean` has a value that is no number".into());
    }
    if !file.input.std.iter().all(|std| std.is_finite() && *std > 0.0) {
        return Err("key `input.std` has a value that is not above 0".into());
    }
    let Input { resize, crop, .. } = file.input;
    if crop == 0 || crop > resize {
        return Err(format!(
            "key `input.crop` is {crop} and `input.resize` is {resize}: the crop is at least 1 and at most the resized shorter side"
        ));
    }
    Ok(())
}

/// No folder, no way up: files of a model lie in its folder.
fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}
