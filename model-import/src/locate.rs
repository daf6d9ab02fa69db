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
use crate::graph::external::{self, Checksum};
use crate::spec::{ModelSpec, PublishedFile, is_plain_file_name};

/// Name of the model that a build uses if `CLASSIFY_MODEL` is not set.
pub const DEFAULT_MODEL: &str = "mobilenetv2";
/// Name of the model whose file is part of the source, for builds that cannot fetch the default model.
pub const FALLBACK_MODEL: &str = "efficientnet-lite0";

/// The requested model and the folders to search.
#[derive(Debug, Clone)]
pub struct LocateOptions {
    /// The folder that holds one folder per model.
    pub models_folder: PathBuf,
    /// The folder that receives a fetched file if the model's own folder is not writable.
    pub writable_folder: PathBuf,
    /// Value of `CLASSIFY_MODEL`.
    pub model_name: Option<String>,
    /// Value of `CLASSIFY_MODEL_ONNX`; a relative path is relative to the parent of `models_folder`.
    pub onnx_path: Option<PathBuf>,
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
    /// Path of the ONNX file. A published file has the size and checksum that `spec` states, unless
    /// `CLASSIFY_MODEL_ONNX` names the file.
    pub onnx_path: PathBuf,
    /// SHA-256 of the ONNX file and its data files, in hexadecimal (see [`Checksum`]).
    pub sha256: String,
    /// The reason for using the fallback model, and the ways to get the default model. `None` unless the
    /// fallback model replaces the default model.
    pub warning: Option<String>,
    /// Files and folders whose change makes cargo run the build script again.
    pub watched_paths: Vec<PathBuf>,
}

/// Finds the model and its ONNX file, and fetches a missing file if that is allowed.
///
/// # Errors
/// Returns the errors of [`read_spec`] and [`find_or_fetch_onnx`], and [`Error::InvalidVariable`] if the file
/// that `CLASSIFY_MODEL_ONNX` names cannot be read.
pub fn locate(
    options: &LocateOptions,
    report_progress: fetch::ProgressCallback<'_>,
) -> Result<LocatedModel, Error> {
    let name = options.model_name.as_deref().unwrap_or(DEFAULT_MODEL);
    let spec = read_spec(&options.models_folder, name)?;
    if let Some(chosen_path) = &options.onnx_path {
        return use_chosen_file(options, spec, chosen_path);
    }
    match find_or_fetch(options, &spec, report_progress) {
        Ok((onnx_path, checksum)) => Ok(new_located_model(spec, onnx_path, checksum)),
        Err(Error::MissingOnnxFile { cause, advice, .. }) if options.model_name.is_none() => {
            let fallback = read_spec(&options.models_folder, FALLBACK_MODEL)?;
            let (onnx_path, checksum) = find_or_fetch(options, &fallback, report_progress)?;
            // Watches the folder instead of the missing file. Cargo treats a missing file as changed, so it
            // would run the build script at every build, and the script would try to fetch the file each
            // time.
            let default_folder = spec.folder.clone();
            let mut located = new_located_model(fallback, onnx_path, checksum);
            located.watched_paths.push(default_folder);
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
/// Returns [`Error::UnknownModel`] if no folder in `models_folder` has that name, and the errors of
/// [`ModelSpec::read`].
pub fn read_spec(models_folder: &Path, name: &str) -> Result<ModelSpec, Error> {
    let folder = models_folder.join(name);
    // A path such as `..` or `/etc` is not accepted as a name.
    if !is_plain_file_name(name) || !folder.is_dir() {
        return Err(Error::UnknownModel {
            name: name.into(),
            models_folder: models_folder.into(),
            available: list_model_names(models_folder),
        });
    }
    ModelSpec::read(&folder)
}

fn list_model_names(models_folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(models_folder)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| ModelSpec::toml_path(&entry.path()).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Returns the model `spec` with the file that `CLASSIFY_MODEL_ONNX` names in place of the model's own file.
///
/// The file's size and checksum may differ from those in `model.toml`.
fn use_chosen_file(
    options: &LocateOptions,
    spec: ModelSpec,
    chosen_path: &Path,
) -> Result<LocatedModel, Error> {
    let base_folder = options.models_folder.parent().unwrap_or(Path::new(""));
    let onnx_path = base_folder.join(chosen_path);
    let checksum = external::checksum(&onnx_path).map_err(|error| Error::InvalidVariable {
        variable: "CLASSIFY_MODEL_ONNX",
        value: chosen_path.display().to_string(),
        reason: format!(
            "expected an ONNX file, but {} cannot be read: {error}; a relative path is relative to {}",
            onnx_path.display(),
            if base_folder.as_os_str().is_empty() { Path::new(".") } else { base_folder }.display()
        ),
    })?;
    Ok(new_located_model(spec, onnx_path, checksum))
}

fn new_located_model(spec: ModelSpec, onnx_path: PathBuf, checksum: Checksum) -> LocatedModel {
    let Checksum { sha256, data_paths, .. } = checksum;
    let own_paths =
        [Some(ModelSpec::toml_path(&spec.folder)), spec.labels_path.clone(), Some(onnx_path.clone())];
    let watched_paths = own_paths.into_iter().flatten().chain(data_paths).collect();
    LocatedModel { spec, onnx_path, sha256, warning: None, watched_paths }
}

/// Finds or fetches the ONNX file of a model, and returns its path and SHA-256.
///
/// A published file has the size and checksum that `model.toml` states. A file of the user's own may have any
/// content and is never fetched.
///
/// # Errors
/// Returns [`Error::WrongOnnxFile`] if the file has a different size or checksum, [`Error::MissingOnnxFile`]
/// if the file is missing and was not fetched, and [`Error::Io`] if the file cannot be read.
pub fn find_or_fetch_onnx(
    options: &LocateOptions,
    spec: &ModelSpec,
    report_progress: fetch::ProgressCallback<'_>,
) -> Result<(PathBuf, String), Error> {
    find_or_fetch(options, spec, report_progress).map(|(path, checksum)| (path, checksum.sha256))
}

fn find_or_fetch(
    options: &LocateOptions,
    spec: &ModelSpec,
    report_progress: fetch::ProgressCallback<'_>,
) -> Result<(PathBuf, Checksum), Error> {
    let onnx_path = spec.onnx_path();
    let missing = |cause: String| Error::MissingOnnxFile {
        name: spec.name.clone(),
        expected_path: spec.onnx_path(),
        cause,
        advice: advice_for_missing_file(spec),
    };
    let Some(published) = &spec.onnx.published else {
        if !onnx_path.is_file() {
            return Err(missing("model.toml states no checksum and no URL".into()));
        }
        let checksum = external::checksum(&onnx_path).map_err(Error::io("read", &onnx_path))?;
        return Ok((onnx_path, checksum));
    };
    for path in [onnx_path, path_in_writable_folder(options, spec)] {
        if path.is_file() {
            return check_onnx(spec, published, path);
        }
    }
    fetch_onnx(options, spec, published, report_progress).map_err(missing)
}

fn check_onnx(
    spec: &ModelSpec,
    expected: &PublishedFile,
    onnx_path: PathBuf,
) -> Result<(PathBuf, Checksum), Error> {
    let checksum = external::checksum(&onnx_path).map_err(Error::io("read", &onnx_path))?;
    if checksum.size == expected.size && checksum.sha256 == expected.sha256 {
        return Ok((onnx_path, checksum));
    }
    let Checksum { size, sha256, .. } = checksum;
    let fetch_advice = if expected.urls.is_empty() {
        "restore the file".into()
    } else {
        format!(
            "move it to another folder and run `cargo run -p model-import -- fetch {}`, which overwrites no file",
            spec.name
        )
    };
    Err(Error::WrongOnnxFile {
        onnx_path,
        toml_path: ModelSpec::toml_path(&spec.folder),
        expected: format!("{} bytes with SHA-256 {}", expected.size, expected.sha256),
        found: format!("{size} bytes with SHA-256 {sha256}"),
        advice: format!(
            "if it is a model of your own, give it its own folder with `cargo run -p model-import -- add NAME \
             FILE.onnx`, or set CLASSIFY_MODEL_ONNX to its path; otherwise {fetch_advice}"
        ),
    })
}

fn fetch_onnx(
    options: &LocateOptions,
    spec: &ModelSpec,
    published: &PublishedFile,
    report_progress: fetch::ProgressCallback<'_>,
) -> Result<(PathBuf, Checksum), String> {
    if !options.fetch_allowed {
        return Err("fetching is off".into());
    }
    let mut fetch_to = |target: PathBuf| {
        fetch::fetch(published, &target, &options.timeouts, report_progress).map(|()| target)
    };
    let path = match fetch_to(spec.onnx_path()) {
        // The checkout may be read-only. The build's own folder is always writable.
        Err(fetch::FetchError::Write { .. }) => fetch_to(path_in_writable_folder(options, spec)),
        outcome => outcome,
    };
    let path = path.map_err(|error| error.to_string())?;
    // A published file has no data files.
    let checksum =
        Checksum { size: published.size, sha256: published.sha256.clone(), data_paths: Vec::new() };
    Ok((path, checksum))
}

fn path_in_writable_folder(options: &LocateOptions, spec: &ModelSpec) -> PathBuf {
    options.writable_folder.join(format!("{}.onnx", spec.name))
}

fn advice_for_missing_file(spec: &ModelSpec) -> String {
    let advice = match spec.onnx.published.iter().flat_map(|published| &published.urls).next() {
        None if spec.source.is_empty() => "put the file there".into(),
        None => format!("put the file there (its source: {})", spec.source),
        Some(url) => format!(
            "fetch the file with `cargo run -p model-import -- fetch {}`, or download it from {url} and put \
             it there",
            spec.name
        ),
    };
    format!("{advice}, or set CLASSIFY_MODEL_ONNX to the path of another ONNX file of the model")
}
