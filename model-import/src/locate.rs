//! Which model a build gets, and from which file.
//!
//! | `CLASSIFY_MODEL` | `CLASSIFY_MODEL_ONNX` | result |
//! |---|---|---|
//! | – | – | [`DEFAULT_MODEL`]; if its file is neither there nor to be had, [`FALLBACK_MODEL`] with a warning |
//! | name | – | that model, or an error |
//! | – | file | that file with the settings and labels of [`DEFAULT_MODEL`] |
//! | name | file | that file with the settings and labels of the model |

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::fetch::{self, Limits};
use crate::spec::ModelSpec;

/// The model of a build that asks for none.
pub const DEFAULT_MODEL: &str = "mobilenetv2";
/// The model that ships with the source, for builds that cannot fetch the default one.
pub const FALLBACK_MODEL: &str = "efficientnet-lite0";

/// What is asked for, and where things are.
#[derive(Debug, Clone)]
pub struct Request {
    /// The folder of models.
    pub models: PathBuf,
    /// Where a fetched file goes if the model's own folder cannot be written.
    pub spare: PathBuf,
    /// `CLASSIFY_MODEL`.
    pub model: Option<String>,
    /// `CLASSIFY_MODEL_ONNX`; a relative path starts at the parent of `models`.
    pub onnx: Option<PathBuf>,
    /// Whether an absent file may be fetched.
    pub may_fetch: bool,
    /// Patience of the fetch.
    pub limits: Limits,
}

/// The model and the file to build from.
#[derive(Debug)]
pub struct Located {
    /// Settings of the model.
    pub spec: ModelSpec,
    /// The ONNX file, checked.
    pub onnx: PathBuf,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// Set if this is not the model that the build would rather have: what happened and what to do.
    pub warning: Option<String>,
    /// Files and folders whose change calls for another look.
    pub watch: Vec<PathBuf>,
}

/// Finds the model and its file, fetching it if that is needed and allowed.
///
/// # Errors
/// The model does not exist, its `model.toml` is wrong, its file is wrong or missing.
pub fn locate(request: &Request, progress: fetch::Progress<'_>) -> Result<Located, Error> {
    let name = request.model.as_deref().unwrap_or(DEFAULT_MODEL);
    let spec = find(&request.models, name)?;
    if let Some(file) = &request.onnx {
        return given_file(request, spec, file);
    }
    match own_file(request, &spec, progress) {
        Ok((onnx, sha256)) => Ok(located(spec, onnx, sha256)),
        Err(Error::Missing { cause, advice, .. }) if request.model.is_none() => {
            let fallback = find(&request.models, FALLBACK_MODEL)?;
            let (onnx, sha256) = own_file(request, &fallback, progress)?;
            // The folder, not the absent file in it: cargo takes an absent file for a changed one, so
            // watching it would run the build script (and the fetch) at every build.
            let watch_default = spec.folder.clone();
            let mut located = located(fallback, onnx, sha256);
            located.watch.push(watch_default);
            located.warning = Some(format!(
                "this build has the model {FALLBACK_MODEL} compiled in, not {name}: {name}'s ONNX file is not there and was not fetched ({cause}); {advice}; CLASSIFY_MODEL={FALLBACK_MODEL} chooses this one without a warning"
            ));
            Ok(located)
        }
        Err(error) => Err(error),
    }
}

/// Reads the settings of a model by name.
///
/// # Errors
/// There is no such model, or its `model.toml` is wrong.
pub fn find(models: &Path, name: &str) -> Result<ModelSpec, Error> {
    let folder = models.join(name);
    // A name, not a path: `..` and `/etc` are no models.
    let is_name = !name.is_empty() && !name.contains(['/', '\\']) && name != "." && name != "..";
    if !is_name || !folder.is_dir() {
        return Err(Error::UnknownModel { name: name.into(), folder, available: available(models) });
    }
    ModelSpec::read(&folder)
}

fn available(models: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(models)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| ModelSpec::path(&entry.path()).is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn given_file(request: &Request, spec: ModelSpec, file: &Path) -> Result<Located, Error> {
    let base = request.models.parent().unwrap_or(Path::new(""));
    let onnx = base.join(file);
    let (_, sha256) = fetch::measure(&onnx).map_err(Error::io("read CLASSIFY_MODEL_ONNX", &onnx))?;
    Ok(located(spec, onnx, sha256))
}

fn located(spec: ModelSpec, onnx: PathBuf, sha256: String) -> Located {
    let watch = vec![ModelSpec::path(&spec.folder), spec.labels.clone(), onnx.clone()];
    Located { spec, onnx, sha256, warning: None, watch }
}

/// The model's own ONNX file, by the sums of its `model.toml`.
///
/// # Errors
/// A file is there but a wrong one, or none is there and none could be fetched.
pub fn own_file(
    request: &Request,
    spec: &ModelSpec,
    progress: fetch::Progress<'_>,
) -> Result<(PathBuf, String), Error> {
    for file in [spec.onnx_path(), spare_file(request, spec)] {
        if file.is_file() {
            return checked(spec, file);
        }
    }
    fetch_file(request, spec, progress).map_err(|cause| Error::Missing {
        name: spec.name.clone(),
        file: spec.onnx_path(),
        cause,
        advice: how_to_get(spec),
    })
}

fn checked(spec: &ModelSpec, file: PathBuf) -> Result<(PathBuf, String), Error> {
    let (size, sha256) = fetch::measure(&file).map_err(Error::io("read", &file))?;
    let expected = &spec.onnx;
    if size == expected.size && sha256 == expected.sha256 {
        return Ok((file, sha256));
    }
    Err(Error::WrongFile {
        onnx: file,
        spec: ModelSpec::path(&spec.folder),
        expected: format!("{} bytes, SHA-256 {}", expected.size, expected.sha256),
        found: format!("{size} bytes, SHA-256 {sha256}"),
        advice: format!(
            "get the right one with `cargo run -p model-import -- fetch {} --force`, or build from this one with CLASSIFY_MODEL_ONNX",
            spec.name
        ),
    })
}

fn fetch_file(
    request: &Request,
    spec: &ModelSpec,
    progress: fetch::Progress<'_>,
) -> Result<(PathBuf, String), String> {
    if !request.may_fetch {
        return Err("fetching is off".into());
    }
    let mut fetch_to =
        |target: PathBuf| fetch::fetch(&spec.onnx, &target, &request.limits, progress).map(|()| target);
    let path = match fetch_to(spec.onnx_path()) {
        // A read-only checkout: the build's own folder is always writable.
        Err(fetch::FetchError::Write { .. }) => fetch_to(spare_file(request, spec)),
        outcome => outcome,
    };
    let path = path.map_err(|error| error.to_string())?;
    Ok((path, spec.onnx.sha256.clone()))
}

/// Where a fetched file goes if the model's folder cannot be written.
fn spare_file(request: &Request, spec: &ModelSpec) -> PathBuf {
    request.spare.join(format!("{}.onnx", spec.name))
}

fn how_to_get(spec: &ModelSpec) -> String {
    let fetch = if spec.onnx.urls.is_empty() {
        format!("put the file there (source: {})", spec.source)
    } else {
        format!(
            "fetch it with `cargo run -p model-import -- fetch {}`, or put the file from {} there",
            spec.name, spec.onnx.urls[0]
        )
    };
    format!("{fetch}, or name another ONNX file of the model with CLASSIFY_MODEL_ONNX")
}
