//! Writes the `model.toml` of a new model.

use std::path::Path;

use super::hugging_face::{CONFIG_FILE, Configuration};
use super::preprocessing::{Preprocessing, Resize, Setting};
use super::{LABELS_FILE, ONNX_FILE};
use crate::Error;
use crate::graph::SimplifiedGraph;
use crate::spec::ModelSpec;

/// The text of a `model.toml`.
#[derive(Debug)]
pub(super) struct ModelToml {
    pub(super) text: String,
    /// The settings, each with its source.
    pub(super) assumptions: Vec<String>,
    /// The properties of the preprocessing and the output that the text does not express.
    pub(super) unmatched: Vec<String>,
}

/// A key of `model.toml` with its value in TOML.
struct Entry {
    key: &'static str,
    value: String,
    source: String,
}

impl Entry {
    fn new<T>(key: &'static str, value: impl Into<String>, setting: &Setting<T>) -> Self {
        Self { key, value: value.into(), source: setting.source.clone() }
    }
}

/// The sections `[input]` and `[output]`.
#[derive(Default)]
struct Sections {
    input: Vec<Entry>,
    output: Vec<Entry>,
}

/// Formats the settings of a model. [`ModelSpec`] accepts the text.
///
/// A setting whose key or value [`ModelSpec`] does not know is left out and listed as unmatched.
///
/// # Errors
/// Returns the error of [`ModelSpec::parse`] if it does not accept the other settings.
pub(super) fn format(
    name: &str,
    graph: &SimplifiedGraph,
    configuration: &Configuration,
    preprocessing: &Preprocessing,
) -> Result<ModelToml, Error> {
    let mut sections = Sections::default();
    let mut unmatched = preprocessing.unmatched.clone();
    let accepts = |sections: &Sections| ModelSpec::parse(&sections.format(name), Path::new(name)).is_ok();
    let [height, width] = preprocessing.crop.value;
    let crop = if height == width { height.to_string() } else { format!("[{height}, {width}]") };
    let normalisation = &preprocessing.normalisation;
    let shorter_side = match preprocessing.resize.value {
        Resize::ShorterSide(side) => side,
        Resize::Squash => height.min(width),
    };
    sections.input = vec![
        Entry::new("crop", crop, &preprocessing.crop),
        Entry::new("resize", shorter_side.to_string(), &preprocessing.resize),
        Entry::new("mean", format_numbers(&normalisation.value.mean), normalisation),
        Entry::new("std", format_numbers(&normalisation.value.std), normalisation),
    ];
    let (kind, kind_source) = recognise_output(graph, configuration);
    sections.output = vec![Entry { key: "kind", value: "\"logits\"".into(), source: kind_source }];

    if preprocessing.resize.value == Resize::Squash {
        sections.input[1].value = "\"squash\"".into();
        if !accepts(&sections) {
            sections.input[1].value = shorter_side.to_string();
            unmatched.push("the image must be squashed to the network's input; it is cropped instead".into());
        }
    }
    let filter = &preprocessing.filter;
    let channels = &preprocessing.channels;
    for (key, setting, default) in [("filter", filter, "bilinear"), ("channels", channels, "rgb")] {
        sections.input.push(Entry::new(key, format!("\"{}\"", setting.value), setting));
        if !accepts(&sections) {
            sections.input.pop();
            if setting.value != default {
                unmatched.push(format!("`input.{key}` must be {:?}, from {}", setting.value, setting.source));
            }
        }
    }
    sections.output[0].value = format!("\"{kind}\"");
    if !accepts(&sections) {
        sections.output[0].value = "\"logits\"".into();
        unmatched.push(format!("`output.kind` must be {kind:?}; the outputs are treated as logits"));
    }
    let text = sections.format(name);
    ModelSpec::parse(&text, Path::new(name))?;
    Ok(ModelToml { text, assumptions: sections.describe(), unmatched })
}

/// Returns the kind of the outputs, and its source.
fn recognise_output(graph: &SimplifiedGraph, configuration: &Configuration) -> (&'static str, String) {
    let output_name = &graph.report.output_name;
    let nodes = graph.model.graph.as_ref().map(|graph| graph.node.as_slice()).unwrap_or_default();
    let last_node = nodes.iter().find(|node| node.output.first() == Some(output_name));
    let operator = last_node.map(|node| node.op_type.as_str()).unwrap_or_default();
    let has_one_output = graph.report.class_count == 1;
    let from_graph = || format!("the last node of the graph is {operator}");
    match operator {
        "Softmax" => ("probabilities", from_graph()),
        _ if has_one_output => ("binary", "the graph has one output".into()),
        "Sigmoid" => ("multilabel", from_graph()),
        _ if configuration.network.problem_type.as_deref() == Some("multi_label_classification") => {
            ("multilabel", format!("`problem_type` of {CONFIG_FILE}"))
        }
        _ => ("logits", from_graph()),
    }
}

impl Sections {
    fn format(&self, name: &str) -> String {
        let format_section = |entries: &[Entry]| -> String {
            let format_entry =
                |Entry { key, value, source }: &Entry| format!("# {source}\n{key} = {value}\n");
            entries.iter().map(format_entry).collect()
        };
        format!(
            "# Written by `model-import add`. The comment before a key is the source of its value.\n\
             name = \"{name}\"\nlabels = \"{LABELS_FILE}\"\n\n[onnx]\nfile = \"{ONNX_FILE}\"\n\n[input]\n{}\n\
             [output]\n{}",
            format_section(&self.input),
            format_section(&self.output)
        )
    }

    /// Returns a line for each setting.
    fn describe(&self) -> Vec<String> {
        let describe_section = |section: &'static str, entries: &[Entry]| -> Vec<String> {
            let describe =
                |Entry { key, value, source }: &Entry| format!("{section}.{key} = {value}: {source}");
            entries.iter().map(describe).collect()
        };
        [describe_section("input", &self.input), describe_section("output", &self.output)].concat()
    }
}

/// Formats three numbers with the digits of float32.
fn format_numbers(values: &[f64; 3]) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "the settings are float32")]
    let values = values.map(|value| value as f32);
    format!("{values:?}")
}
