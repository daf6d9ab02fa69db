//! Makes the folder of a model from an ONNX file and from the settings that other tools store.
//!
//! The graph states the size of the image and the number of classes. The preprocessing and the labels come from the
//! files of Hugging Face ([`hugging_face`]) or from the recipe of a library ([`Recipe`]). Each setting keeps the name
//! of its source, which the command prints, because a wrong assumption costs accuracy without an error.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use crate::Error;
use crate::check::{self, CheckReport};
use crate::graph::external::{self, Checksum};
use crate::graph::{self, SimplifiedGraph, SimplifyOptions};
use crate::labels::Label;
use crate::model::Model;
use crate::output::OutputKind;
use crate::spec::ModelSpec;

mod hugging_face;
mod labels;
mod model_toml;
mod preprocessing;
#[cfg(test)]
mod tests;
mod timm;
mod transformers;

pub use preprocessing::{KerasMode, Recipe};

use hugging_face::Configuration;
use model_toml::ModelToml;
use preprocessing::{Preprocessing, Setting};

/// Name of the ONNX file in the folder of a model.
const ONNX_FILE: &str = "model.onnx";
/// Name of the labels file in the folder of a model.
const LABELS_FILE: &str = "labels.txt";
/// Maximum number in the name of a temporary folder.
const MAX_FOLDER_NUMBER: u32 = 1000;

/// The arguments of [`add`].
#[derive(Debug, Clone)]
pub struct AddOptions {
    /// The folder that holds one folder per model.
    pub models_folder: PathBuf,
    /// Name of the new model.
    pub name: String,
    /// The ONNX file.
    pub onnx_path: PathBuf,
    /// A file with one label per line.
    pub labels_path: Option<PathBuf>,
    /// A folder with the configuration files of Hugging Face.
    pub config_folder: Option<PathBuf>,
    /// Height and width of the network's input, which must be those of the graph.
    pub crop: Option<u32>,
    /// Name of the output to use, for a graph with several.
    pub output_name: Option<String>,
    /// Kind of the output. `None` to recognise it from the graph and the configuration.
    pub kind: Option<OutputKind>,
    /// The preprocessing, for what the configuration files do not state.
    pub recipe: Recipe,
}

/// A model that was added. Its text lists the settings with their sources.
#[derive(Debug)]
pub struct Added {
    /// The new folder.
    pub folder: PathBuf,
    /// The settings, each with its source.
    pub assumptions: Vec<String>,
    /// The properties of the preprocessing that the services cannot reproduce.
    pub unmatched: Vec<String>,
    /// The result of the checks.
    pub check: CheckReport,
}

/// Makes the folder of a model.
///
/// The folder is written after the checks, and gets its name when it is complete. A failure leaves nothing behind.
///
/// # Errors
/// Returns [`Error::CannotAdd`] with every problem of the arguments and the files, [`Error::Io`] if the folder cannot
/// be written, and [`Error::OutputsDiffer`] if the comparison of [`check::check`] fails.
pub fn add(options: &AddOptions) -> Result<Added, Error> {
    let mut problems = Vec::new();
    let folder = options.models_folder.join(&options.name);
    problems.extend(find_name_problem(options, &folder));
    let configuration = hugging_face::read(options.config_folder.as_deref(), &mut problems);
    let size = preprocessing::read_configured_size(options.crop, &configuration);
    let simplify_options = SimplifyOptions {
        image_size: size.as_ref().map(|size| size.value.map(i64::from)),
        output_name: options.output_name.clone(),
    };
    let graph = graph::simplify_file(&options.onnx_path, &simplify_options);
    let graph = graph.map_err(|error| problems.push(add_option_hints(error.to_string()))).ok();
    let contents =
        collect_contents(options, &folder, &configuration, size.as_ref(), graph.as_ref(), &mut problems);
    let onnx_path = &options.onnx_path;
    let checksum = external::checksum(onnx_path).map_err(Error::io("read", onnx_path));
    // An unreadable file is already a problem of the graph.
    let data_paths = checksum.as_ref().map_or(&[][..], |checksum| &checksum.data_paths);
    problems.extend(data_paths.iter().filter_map(|path| find_collision(path)));
    let (Some(Contents { model_toml, labels }), Some(graph), true) = (contents, graph, problems.is_empty())
    else {
        return Err(Error::CannotAdd(problems));
    };
    let ModelToml { text, spec, assumptions, unmatched } = model_toml;
    let Checksum { sha256, data_paths, .. } = checksum?;
    let model = Model::new(spec, labels, graph, onnx_path.clone(), sha256)
        .map_err(|error| Error::CannotAdd(vec![add_option_hints(error.to_string())]))?;
    let check = check::check(&model)?;
    write_folder(&options.models_folder, &model, &text, &data_paths)?;
    Ok(Added { folder, assumptions, unmatched, check })
}

/// The settings and the labels of a new model.
struct Contents {
    model_toml: ModelToml,
    labels: Vec<Label>,
}

/// Appends the options of the command that set the keys of `model.toml` in a message.
fn add_option_hints(mut message: String) -> String {
    for (key, option) in
        [("`input.crop`", "--crop"), ("`output.name`", "--output"), ("`output.kind`", "--kind")]
    {
        if message.contains(key) {
            message += &format!("; `add` sets key {key} with the option {option}");
        }
    }
    message
}

/// Combines the graph, the configuration and the recipe. Appends what is wrong or contradictory to `problems`.
fn collect_contents(
    options: &AddOptions,
    folder: &Path,
    configuration: &Configuration,
    size: Option<&Setting<[u32; 2]>>,
    graph: Option<&SimplifiedGraph>,
    problems: &mut Vec<String>,
) -> Option<Contents> {
    let class_count = graph.map(|graph| graph.report.class_count);
    let kind = options.kind.map(|kind| Setting::new(kind, "--kind"));
    let kind = kind.or_else(|| Some(model_toml::recognise_kind(&graph?.report, configuration)));
    let labels = if kind.as_ref().is_some_and(|kind| kind.value == OutputKind::Embedding) {
        labels::refuse_for_embedding(options.labels_path.as_deref())
    } else {
        labels::choose(options.labels_path.as_deref(), configuration, class_count)
    };
    let labels = labels.map_err(|problem| problems.push(problem)).ok();
    let graph = graph?;
    let preprocessing = Preprocessing::choose(&graph.report, size, configuration, &options.recipe);
    let preprocessing = preprocessing.map_err(|mut found| problems.append(&mut found)).ok();
    let (labels, kind, preprocessing) = (labels?, kind?, preprocessing?);
    let mut model_toml = model_toml::format(options, folder, &kind, &preprocessing)
        .map_err(|error| problems.push(error.to_string()))
        .ok()?;
    model_toml.assumptions.push(labels.assumption);
    Some(Contents { model_toml, labels: labels.labels })
}

/// Returns the reason why the model cannot have this name.
fn find_name_problem(options: &AddOptions, folder: &Path) -> Option<String> {
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
    let name = &options.name;
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(is_allowed) {
        return Some(format!(
            "the name {name:?} is not allowed: expected 1 to 64 letters, digits, `.`, `-` and `_`, and no `.` at the \
             beginning"
        ));
    }
    if folder.symlink_metadata().is_ok() {
        return Some(format!(
            "{} exists already and is not changed: choose another name, or remove the folder yourself",
            folder.display()
        ));
    }
    None
}

/// Returns the problem of a data file that has the name of another file in the folder of a model.
fn find_collision(data_path: &Path) -> Option<String> {
    let name = data_path.file_name()?.to_str()?;
    [ONNX_FILE, LABELS_FILE, "model.toml"].contains(&name).then(|| {
        format!("the data file {} has the name of another file of a model; save the model with another name for its \
                 external data", data_path.display())
    })
}

/// Writes the folder of a model under a temporary name, and renames it when it is complete.
fn write_folder(
    models_folder: &Path,
    model: &Model,
    toml_text: &str,
    data_paths: &[PathBuf],
) -> Result<(), Error> {
    let draft = TemporaryFolder::create(models_folder)?;
    let copy = |source: &Path, name: &Path| {
        fs::copy(source, draft.path.join(name)).map(drop).map_err(Error::io("copy", source))
    };
    copy(&model.onnx_path, Path::new(ONNX_FILE))?;
    for path in data_paths {
        copy(path, Path::new(path.file_name().unwrap_or_default()))?;
    }
    let write = |path: PathBuf, text: &str| fs::write(&path, text).map_err(Error::io("write", path));
    write(ModelSpec::toml_path(&draft.path), toml_text)?;
    if model.spec.labels_path.is_some() {
        write(draft.path.join(LABELS_FILE), &crate::labels::format(&model.labels))?;
    }
    let folder = &model.spec.folder;
    fs::rename(&draft.path, folder).map_err(Error::io("create", folder))
}

/// A folder beside the model folders. It is removed when this value is dropped, unless it was renamed.
struct TemporaryFolder {
    path: PathBuf,
}

impl TemporaryFolder {
    /// Creates a folder with a new name. In a container, a process that was killed may have had the same process id,
    /// so a folder of this id may exist.
    fn create(models_folder: &Path) -> Result<Self, Error> {
        let mut number = 0;
        loop {
            let path = models_folder.join(format!(".add-{}-{number}", process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < MAX_FOLDER_NUMBER => {
                    number += 1
                }
                Err(error) => return Err(Error::io("create", path)(error)),
            }
        }
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        // A folder that was renamed is not found. The name of one that is left behind is that of no model.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl fmt::Display for Added {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Added {}. These settings were read or assumed:", self.folder.display())?;
        for assumption in &self.assumptions {
            writeln!(out, "  {assumption}")?;
        }
        for property in &self.unmatched {
            writeln!(out, "NOT matched: {property}")?;
        }
        writeln!(out, "{}", self.check)?;
        let name = self.folder.file_name().unwrap_or_default().to_string_lossy();
        write!(
            out,
            "Correct model.toml if a setting is wrong. Build and run: CLASSIFY_MODEL={name} cargo run --release"
        )
    }
}
