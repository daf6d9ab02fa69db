//! Chooses the labels of a new model.

use std::path::Path;

use super::LABELS_FILE;
use super::hugging_face::{CONFIG_FILE, Configuration};
use crate::labels;

/// The labels of a model, and their source.
#[derive(Debug)]
pub(super) struct ChosenLabels {
    /// Content of the labels file. `None` if the model has no labels file.
    pub(super) text: Option<String>,
    /// Description of the labels and their source.
    pub(super) assumption: String,
}

/// Chooses the labels: those of the file, or those of the configuration, or numbered ones.
///
/// `class_count` is `None` if the graph cannot be read. The labels are then only checked by themselves. A binary
/// classifier has one output, but may have labels for both classes.
///
/// # Errors
/// Returns a message if the labels are invalid, or if their number does not fit `class_count`.
pub(super) fn choose(
    labels_path: Option<&Path>,
    configuration: &Configuration,
    class_count: Option<usize>,
) -> Result<ChosenLabels, String> {
    let network = &configuration.network;
    let (lines, source) = if let Some(path) = labels_path {
        (read_lines(path)?, path.display().to_string())
    } else if let Some(labels) = &network.id2label {
        let is_complete = labels.keys().copied().eq(0..labels.len());
        if !is_complete {
            return Err(format!(
                "`id2label` of {CONFIG_FILE} has {} labels, but their numbers are not 0 to {}",
                labels.len(),
                labels.len().saturating_sub(1)
            ));
        }
        (labels.values().map(|label| to_line(label)).collect(), format!("`id2label` of {CONFIG_FILE}"))
    } else if let Some(labels) = &network.label_names {
        (labels.iter().map(|label| to_line(label)).collect(), format!("`label_names` of {CONFIG_FILE}"))
    } else {
        let count = class_count.unwrap_or(0);
        return Ok(ChosenLabels {
            text: Some(join(number_labels(count))),
            assumption: describe_numbers(count),
        });
    };
    if let Some(class_count) = class_count
        && lines.len() != class_count
        && (class_count, lines.len()) != (1, 2)
    {
        if class_count == 1 {
            return Err(format!(
                "{source} has {} labels, but the graph has one output: expected two labels (the negative and then the \
                 positive class) or one (the positive class)",
                lines.len()
            ));
        }
        let hint = if lines.len() + 1 == class_count {
            " (networks of TensorFlow often have a class for the background before the others)"
        } else {
            ""
        };
        return Err(format!(
            "{source} has {} labels, but the output of the graph has {class_count} classes{hint}: expected one label \
             per class, in the order of the outputs",
            lines.len()
        ));
    }
    let count = lines.len();
    Ok(ChosenLabels {
        text: Some(join(lines)),
        assumption: format!("{LABELS_FILE}: {count} labels, from {source}"),
    })
}

/// Returns no labels, for an embedding.
///
/// # Errors
/// Returns a message if there is a labels file.
pub(super) fn refuse_for_embedding(labels_path: Option<&Path>) -> Result<ChosenLabels, String> {
    match labels_path {
        None => Ok(ChosenLabels { text: None, assumption: "no labels: an embedding has none".into() }),
        Some(path) => Err(format!(
            "--labels {} contradicts --kind embedding, because an embedding has no labels: leave out one of the options",
            path.display()
        )),
    }
}

/// Reads the lines of a labels file, which may have a WordNet id before each label.
fn read_lines(path: &Path) -> Result<Vec<String>, String> {
    let labels = labels::read(path).map_err(|error| error.to_string())?;
    let format_label = |label: labels::Label| match label.wnid.as_str() {
        "" => label.name,
        wnid => format!("{wnid}\t{}", label.name),
    };
    Ok(labels.into_iter().map(format_label).collect())
}

/// Replaces the characters that separate lines and WordNet ids. A label without text becomes `(no label)`.
fn to_line(label: &str) -> String {
    let words: Vec<&str> = label.split_whitespace().collect();
    if words.is_empty() { "(no label)".into() } else { words.join(" ") }
}

fn number_labels(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("class_{index}")).collect()
}

fn describe_numbers(count: usize) -> String {
    let hint = if count == 1000 {
        " (if these are the classes of ImageNet in the usual order: --labels models/mobilenetv2/labels.txt)"
    } else {
        ""
    };
    let names = match count {
        0 | 1 => "class_0".into(),
        _ => format!("class_0 to class_{}", count - 1),
    };
    format!("{LABELS_FILE}: {names}, because no labels are known; give them with --labels{hint}")
}

fn join(lines: Vec<String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}
