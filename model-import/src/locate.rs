//! Chooses the model of a build and finds its ONNX file.
//!
//! | `CLASSIFY_MODEL` | `CLASSIFY_MODEL_ONNX` | result |
//! |---|---|---|
//! | – | – | [`DEFAULT_MODEL`]; if its file is missing and cannot be fetched, [`FALLBACK_MODEL`] with a warning |
//! | name | – | that model, or an error |
//! | – | file | that file with the settings and labels of [`DEFAULT_MODEL`] |
//! | name | file | that file with the settings and labels of the named model |

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::fetch::{self, FetchTimeouts};
use crate::spec::ModelSpec;

/// Name of the model that a build uses if `CLASSIFY_MODEL` is not set.
pub const DEFAULT_MODEL: &str = "mobilenetv2";
/// Name of the model whose file is part of the source, for builds that cannot fetch the default model.
pub const FALLBACK_MODEL: &str = "efficientnet-lite0";

/// The requested model and the folders to search.
#[derive(Debug, Clone)]
pub struct LocateOptions {
    /// The folder that holds one folder per model.
    pub models: PathBuf,
    /// The folder that receives a fetched file if the model's own folder is not writable.
    pub writable_folder: PathBuf,
    /// Value of `CLASSIFY_MODEL`.
    pub model: Option<String>,
    /// Value of `CLASSIFY_MODEL_ONNX`; a relative path is relative to the parent of `models`.
    pub onnx: Option<PathBuf>,
    /// True if a missing file may be fetched.
    pub fetch_allowed: bool,
    /// Timeouts for fetching.
    pub timeouts: FetchTimeouts,
}

/// The model and the ONNX file to build from.
#[derive(Debug)]
pub struct LocatedModel {
    /// Settings of the model.
    pub spec: ModelSpec,
    /// The ONNX file. Its size and checksum match `spec`, unless `CLASSIFY_MODEL_ONNX` names the file.
    pub onnx: PathBuf,
    /// SHA-256 of the ONNX file, in hexadecimal.
    pub sha256: String,
    /// The reason for using the fallback model, and the ways to get the default model. `None` unless the
    /// fallback model replaces the default model.
    pub warning: Option<String>,
    /// Files and folders whose change makes cargo run the build script again.
    pub watch: Vec<PathBuf>,
}

/// Finds the model and its ONNX file, and fetches a missing file if that is allowed.
///
/// # Errors
/// Returns the errors of [`read_spec`] and [`find_pinned_file`], and [`Error::InvalidVariable`] if the file
/// that `CLASSIFY_MODEL_ONNX` names cannot be read.
pub fn locate(options: &LocateOptions, progress: fetch::ProgressCallback<'_>) -> Result<LocatedModel, Error> {
    let name = options.model.as_deref().unwrap_or(DEFAULT_MODEL);
    let spec = read_spec(&options.models, name)?;
    if let Some(file) = &options.onnx {
        return use_chosen_file(options, spec, file);
    }
    match find_pinned_file(options, &spec, progress) {
        Ok((onnx, sha256)) => Ok(new_located_model(spec, onnx, sha256)),
        Err(Error::MissingOnnxFile { cause, advice, .. }) if options.model.is_none() => {
            let fallback = read_spec(&options.models, FALLBACK_MODEL)?;
            let (onnx, sha256) = find_pinned_file(options, &fallback, progress)?;
            // Watches the folder instead of the missing file. Cargo treats a missing file as changed, so it
            // would run the build script at every build, and the script would try to fetch the file each
            // time.
            let default_folder = spec.folder.clone();
            let mut located = new_located_model(fallback, onnx, sha256);
            located.watch.push(default_folder);
            located.warning = Some(format!(
                "this build contains the fallback model {FALLBACK_MODEL} instead of {name}: the ONNX file of \
                 {name} is missing and was not fetched: {cause}; {advice}; to choose {FALLBACK_MODEL} \
                 without this warning, set CLASSIFY_MODEL={FALLBACK_MODEL}"
            ));
            Ok(located)
        }
        Err(error) => Err(error),
    }
}

/// Reads the settings of the model called `name`.
///
/// # Errors
/// Returns [`Error::UnknownModel`] if no folder in `models` has that name, and the errors of
/// [`ModelSpec::read`].
pub fn read_spec(models: &Path, name: &str) -> Result<ModelSpec, Error> {
    let folder = models.join(name);
    // A path such as `..` or `/etc` is not accepted as a name.
    let is_name = !name.is_empty() && !name.contains(['/', '\\']) && name != "." && name != "..";
    if !is_name || !folder.is_dir() {
        return Err(Error::UnknownModel {
            name: name.into(),
            models: models.into(),
            available: list_model_names(models),
        });
    }
    ModelSpec::read(&folder)
}

fn list_model_names(models: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(models)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| ModelSpec::toml_path(&entry.path()).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Uses the file that `CLASSIFY_MODEL_ONNX` names. Its checksum may differ from the one in `model.toml`.
fn use_chosen_file(options: &LocateOptions, spec: ModelSpec, file: &Path) -> Result<LocatedModel, Error> {
    let base = options.models.parent().unwrap_or(Path::new(""));
    let onnx = base.join(file);
    let (_, sha256) = fetch::size_and_sha256(&onnx).map_err(|error| Error::InvalidVariable {
        variable: "CLASSIFY_MODEL_ONNX",
        value: file.display().to_string(),
        reason: format!(
            "expected an ONNX file, but {} cannot be read: {error}; a relative path is relative to {}",
            onnx.display(),
            if base.as_os_str().is_empty() { Path::new(".") } else { base }.display()
        ),
    })?;
    Ok(new_located_model(spec, onnx, sha256))
}

fn new_located_model(spec: ModelSpec, onnx: PathBuf, sha256: String) -> LocatedModel {
    let watch = vec![ModelSpec::toml_path(&spec.folder), spec.labels.clone(), onnx.clone()];
    LocatedModel { spec, onnx, sha256, warning: None, watch }
}

/// Finds or fetches the ONNX file that `model.toml` pins, and returns its path and SHA-256.
///
/// # Errors
/// Returns [`Error::WrongOnnxFile`] if the file has a different size or checksum, [`Error::MissingOnnxFile`]
/// if the file is missing and was not fetched, and [`Error::Io`] if the file cannot be read.
pub fn find_pinned_file(
    options: &LocateOptions,
    spec: &ModelSpec,
    progress: fetch::ProgressCallback<'_>,
) -> Result<(PathBuf, String), Error> {
    for file in [spec.onnx_path(), path_in_writable_folder(options, spec)] {
        if file.is_file() {
            return verify_pinned_file(spec, file);
        }
    }
    fetch_pinned_file(options, spec, progress).map_err(|cause| Error::MissingOnnxFile {
        name: spec.name.clone(),
        file: spec.onnx_path(),
        cause,
        advice: advice_for_missing_file(spec),
    })
}

fn verify_pinned_file(spec: &ModelSpec, file: PathBuf) -> Result<(PathBuf, String), Error> {
    let (size, sha256) = fetch::size_and_sha256(&file).map_err(Error::io("read", &file))?;
    let expected = &spec.onnx;
    if size == expected.size && sha256 == expected.sha256 {
        return Ok((file, sha256));
    }
    Err(Error::WrongOnnxFile {
        onnx: file,
        spec: ModelSpec::toml_path(&spec.folder),
        expected: format!("{} bytes with SHA-256 {}", expected.size, expected.sha256),
        found: format!("{size} bytes with SHA-256 {sha256}"),
        advice: format!(
            "fetch the right file with `cargo run -p model-import -- fetch {} --force`, \
             or set CLASSIFY_MODEL_ONNX to build from another file",
            spec.name
        ),
    })
}

fn fetch_pinned_file(
    options: &LocateOptions,
    spec: &ModelSpec,
    progress: fetch::ProgressCallback<'_>,
) -> Result<(PathBuf, String), String> {
    if !options.fetch_allowed {
        return Err("fetching is off".into());
    }
    let mut fetch_to =
        |target: PathBuf| fetch::fetch(&spec.onnx, &target, &options.timeouts, progress).map(|()| target);
    let path = match fetch_to(spec.onnx_path()) {
        // The checkout may be read-only. The build's own folder is always writable.
        Err(fetch::FetchError::Write { .. }) => fetch_to(path_in_writable_folder(options, spec)),
        outcome => outcome,
    };
    let path = path.map_err(|error| error.to_string())?;
    Ok((path, spec.onnx.sha256.clone()))
}

fn path_in_writable_folder(options: &LocateOptions, spec: &ModelSpec) -> PathBuf {
    options.writable_folder.join(format!("{}.onnx", spec.name))
}

fn advice_for_missing_file(spec: &ModelSpec) -> String {
    let advice = match spec.onnx.urls.first() {
        None => format!("put the file there (its source: {})", spec.source),
        Some(url) => format!(
            "fetch the file with `cargo run -p model-import -- fetch {}`, or download it from {url} and put \
             it there",
            spec.name
        ),
    };
    format!("{advice}, or set CLASSIFY_MODEL_ONNX to the path of another ONNX file of the model")
}
