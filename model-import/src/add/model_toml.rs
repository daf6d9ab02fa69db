//! Writes the `model.toml` of a new model.

use std::path::Path;

use super::hugging_face::{CONFIG_FILE, Configuration};
use super::preprocessing::{Preprocessing, Resize, Setting};
use super::{AddOptions, LABELS_FILE, ONNX_FILE};
use crate::Error;
use crate::graph::{Ending, Report};
use crate::output::OutputKind;
use crate::spec::ModelSpec;

/// The text of a `model.toml`.
#[derive(Debug)]
pub(super) struct ModelToml {
    pub(super) text: String,
    /// The settings that the text states.
    pub(super) spec: ModelSpec,
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

/// Formats the settings of a model whose folder will be `folder`.
///
/// # Errors
/// Returns the error of [`ModelSpec::parse`] if it does not accept a setting.
pub(super) fn format(
    options: &AddOptions,
    folder: &Path,
    kind: &Setting<OutputKind>,
    preprocessing: &Preprocessing,
) -> Result<ModelToml, Error> {
    let Preprocessing { crop, resize, filter, channels, normalisation, unmatched } = preprocessing;
    let [height, width] = crop.value;
    let crop_text = if height == width { height.to_string() } else { format!("[{height}, {width}]") };
    let (resize_key, resize_text) = match resize.value {
        Resize::ShorterSide(side) => ("resize", side.to_string()),
        Resize::CropFraction(fraction) => ("crop_fraction", format!("{fraction:?}")),
        Resize::Squash => ("resize", "\"squash\"".into()),
    };
    let name_entry = options.output_name.as_ref().map(|name| Entry {
        key: "name",
        value: toml::Value::from(name.as_str()).to_string(),
        source: "--output".into(),
    });
    let kind_entry = Entry::new("kind", format!("\"{}\"", kind.value), kind);
    let sections = Sections {
        input: vec![
            Entry::new("crop", crop_text, crop),
            Entry::new(resize_key, resize_text, resize),
            Entry::new("filter", format!("\"{}\"", filter.value), filter),
            Entry::new("channels", format!("\"{}\"", channels.value), channels),
            Entry::new("mean", format_numbers(&normalisation.value.mean), normalisation),
            Entry::new("std", format_numbers(&normalisation.value.std), normalisation),
        ],
        output: name_entry.into_iter().chain([kind_entry]).collect(),
    };
    let text = sections.format(&options.name, kind.value != OutputKind::Embedding);
    let spec = ModelSpec::parse(&text, folder)?;
    Ok(ModelToml { text, spec, assumptions: sections.describe(), unmatched: unmatched.clone() })
}

/// Returns the kind of the outputs, and its source.
pub(super) fn recognise_kind(report: &Report, configuration: &Configuration) -> Setting<OutputKind> {
    let from_graph = || format!("the graph ends in {}", report.ending);
    let (kind, source) = match report.ending {
        Ending::Softmax => (OutputKind::Probabilities, from_graph()),
        _ if report.class_count == 1 => (OutputKind::Binary, "the graph has one output".into()),
        Ending::Sigmoid => (OutputKind::Multilabel, from_graph()),
        _ if configuration.network.problem_type.as_deref() == Some("multi_label_classification") => {
            (OutputKind::Multilabel, format!("`problem_type` of {CONFIG_FILE}"))
        }
        Ending::Other => (OutputKind::Logits, format!("assumed, because {}", from_graph())),
        _ => (OutputKind::Logits, from_graph()),
    };
    Setting::new(kind, source)
}

impl Sections {
    fn format(&self, name: &str, has_labels: bool) -> String {
        let format_section = |entries: &[Entry]| -> String {
            let format_entry =
                |Entry { key, value, source }: &Entry| format!("# {source}\n{key} = {value}\n");
            entries.iter().map(format_entry).collect()
        };
        let labels = if has_labels { format!("labels = \"{LABELS_FILE}\"\n") } else { String::new() };
        format!(
            "# Written by `model-import add`. The comment before a key is the source of its value.\n\
             name = \"{name}\"\n{labels}\n[onnx]\nfile = \"{ONNX_FILE}\"\n\n[input]\n{}\n\
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
