//! Chooses the labels of a new model.

use std::path::Path;

use super::LABELS_FILE;
use super::hugging_face::{CONFIG_FILE, Configuration};
use crate::labels::{self, Label};

/// The labels of a model, and their source.
#[derive(Debug)]
pub(super) struct ChosenLabels {
    /// The labels in the order of the outputs. An embedding has none.
    pub(super) labels: Vec<Label>,
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
    let (labels, source) = if let Some(path) = labels_path {
        (labels::read(path).map_err(|error| error.to_string())?, path.display().to_string())
    } else if let Some(names) = &network.id2label {
        let is_complete = names.keys().copied().eq(0..names.len());
        if !is_complete {
            return Err(format!(
                "`id2label` of {CONFIG_FILE} has {} labels, but their numbers are not 0 to {}",
                names.len(),
                names.len().saturating_sub(1)
            ));
        }
        (names.values().map(|name| to_label(name)).collect(), format!("`id2label` of {CONFIG_FILE}"))
    } else if let Some(names) = &network.label_names {
        (names.iter().map(|name| to_label(name)).collect(), format!("`label_names` of {CONFIG_FILE}"))
    } else {
        let count = class_count.unwrap_or(0);
        let labels = (0..count).map(|index| to_label(&format!("class_{index}"))).collect();
        return Ok(ChosenLabels { labels, assumption: describe_numbers(count) });
    };
    if let Some(class_count) = class_count
        && labels.len() != class_count
        && (class_count, labels.len()) != (1, 2)
    {
        if class_count == 1 {
            return Err(format!(
                "{source} has {} labels, but the graph has one output: expected two labels (the negative and then the \
                 positive class) or one (the positive class)",
                labels.len()
            ));
        }
        let hint = if labels.len() + 1 == class_count {
            " (networks of TensorFlow often have a class for the background before the others)"
        } else {
            ""
        };
        return Err(format!(
            "{source} has {} labels, but the output of the graph has {class_count} classes{hint}: expected one label \
             per class, in the order of the outputs",
            labels.len()
        ));
    }
    let assumption = format!("{LABELS_FILE}: {} labels, from {source}", labels.len());
    Ok(ChosenLabels { labels, assumption })
}

/// Returns no labels, for an embedding.
///
/// # Errors
/// Returns a message if there is a labels file.
pub(super) fn refuse_for_embedding(labels_path: Option<&Path>) -> Result<ChosenLabels, String> {
    match labels_path {
        None => {
            Ok(ChosenLabels { labels: Vec::new(), assumption: "no labels: an embedding has none".into() })
        }
        Some(path) => Err(format!(
            "--labels {} contradicts --kind embedding, because an embedding has no labels: leave out one of the options",
            path.display()
        )),
    }
}

/// Returns the label with this name. Characters that separate lines and WordNet ids become spaces, and an empty name
/// becomes `(no label)`.
fn to_label(name: &str) -> Label {
    let words: Vec<&str> = name.split_whitespace().collect();
    let name = if words.is_empty() { "(no label)".into() } else { words.join(" ") };
    Label { wnid: String::new(), name }
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
