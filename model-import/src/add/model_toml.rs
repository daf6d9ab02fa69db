//! Writes the `model.toml` of a new model.

use std::path::Path;

use super::hugging_face::{CONFIG_FILE, Configuration};
use super::preprocessing::{Preprocessing, Resize, Setting};
use super::{LABELS_FILE, ONNX_FILE};
use crate::Error;
use crate::graph::{Ending, SimplifiedGraph};
use crate::output::OutputKind;
use crate::spec::ModelSpec;

/// The text of a `model.toml`.
#[derive(Debug)]
pub(super) struct ModelToml {
    pub(super) text: String,
    /// The settings, each with its source.
    pub(super) assumptions: Vec<String>,
    /// The properties of the preprocessing that the text does not express.
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
struct Sections {
    input: Vec<Entry>,
    output: Vec<Entry>,
}

/// Formats the settings of a model. [`ModelSpec`] accepts the text.
///
/// # Errors
/// Returns the error of [`ModelSpec::parse`] if it does not accept a setting.
pub(super) fn format(
    name: &str,
    graph: &SimplifiedGraph,
    configuration: &Configuration,
    preprocessing: &Preprocessing,
) -> Result<ModelToml, Error> {
    let Preprocessing { crop, resize, filter, channels, normalisation, unmatched } = preprocessing;
    let [height, width] = crop.value;
    let crop_text = if height == width { height.to_string() } else { format!("[{height}, {width}]") };
    let resize_text = match resize.value {
        Resize::ShorterSide(side) => side.to_string(),
        Resize::Squash => "\"squash\"".into(),
    };
    let (kind, kind_source) = recognise_output(graph, configuration);
    let sections = Sections {
        input: vec![
            Entry::new("crop", crop_text, crop),
            Entry::new("resize", resize_text, resize),
            Entry::new("filter", format!("\"{}\"", filter.value), filter),
            Entry::new("channels", format!("\"{}\"", channels.value), channels),
            Entry::new("mean", format_numbers(&normalisation.value.mean), normalisation),
            Entry::new("std", format_numbers(&normalisation.value.std), normalisation),
        ],
        output: vec![Entry { key: "kind", value: format!("\"{kind}\""), source: kind_source }],
    };
    let text = sections.format(name);
    ModelSpec::parse(&text, Path::new(name))?;
    Ok(ModelToml { text, assumptions: sections.describe(), unmatched: unmatched.clone() })
}

/// Returns the kind of the outputs, and its source.
fn recognise_output(graph: &SimplifiedGraph, configuration: &Configuration) -> (OutputKind, String) {
    let report = &graph.report;
    let from_graph = || format!("the graph ends in {}", report.ending);
    match report.ending {
        Ending::Softmax => (OutputKind::Probabilities, from_graph()),
        _ if report.class_count == 1 => (OutputKind::Binary, "the graph has one output".into()),
        Ending::Sigmoid => (OutputKind::Multilabel, from_graph()),
        _ if configuration.network.problem_type.as_deref() == Some("multi_label_classification") => {
            (OutputKind::Multilabel, format!("`problem_type` of {CONFIG_FILE}"))
        }
        _ => (OutputKind::Logits, from_graph()),
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

/// Formats the numbers of the channels with the digits of float32. Equal numbers are written once.
fn format_numbers(values: &[f64; 3]) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "the settings are float32")]
    let values = values.map(|value| value as f32);
    if values.iter().all(|value| *value == values[0]) {
        format!("{:?}", values[0])
    } else {
        format!("{values:?}")
    }
}
