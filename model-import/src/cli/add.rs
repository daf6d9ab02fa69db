//! The command `model-import add`.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::add::{self, AddOptions, KerasMode, Recipe};
use crate::output::OutputKind;

/// Values of the option `--kind`.
const KINDS: [OutputKind; 5] = [
    OutputKind::Logits,
    OutputKind::Probabilities,
    OutputKind::Binary,
    OutputKind::Multilabel,
    OutputKind::Embedding,
];

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of the new model: letters, digits, `.`, `-` and `_`.
    name: String,
    /// The ONNX file. Its data files, such as `model.onnx.data`, must be in the same folder.
    #[arg(value_name = "FILE.onnx")]
    onnx_path: PathBuf,
    /// File with one label per line, in the order of the outputs. A binary classifier has two labels, the negative
    /// and then the positive class, or only the positive one.
    #[arg(long = "labels", value_name = "FILE")]
    labels_path: Option<PathBuf>,
    /// Folder with the `config.json` and the `preprocessor_config.json` of Hugging Face.
    #[arg(long = "config", value_name = "DIR")]
    config_folder: Option<PathBuf>,
    /// Height and width of the network's input in pixels [default: those of the graph].
    #[arg(long, value_name = "PIXELS")]
    crop: Option<u32>,
    /// Name of the output to use, for a graph with several outputs.
    #[arg(long = "output", value_name = "NAME")]
    output_name: Option<String>,
    /// Meaning of the output [default: recognised from the last node of the graph]. An embedding has no labels.
    #[arg(long, value_name = "KIND", value_parser = kind_parser())]
    kind: Option<OutputKind>,
    /// The network comes from timm: use timm's default preprocessing, with this crop fraction.
    #[arg(long, value_name = "CROP_PCT", num_args = 0..=1, default_missing_value = "0.875", conflicts_with = "keras")]
    timm: Option<f64>,
    /// The network comes from Keras: use the preprocessing of `preprocess_input` in this mode.
    #[arg(long, value_name = "MODE")]
    keras: Option<KerasMode>,
}

/// Returns a parser of the values of `output.kind`.
fn kind_parser() -> impl TypedValueParser<Value = OutputKind> {
    PossibleValuesParser::new(KINDS.map(OutputKind::name))
        .try_map(|name| KINDS.into_iter().find(|kind| kind.name() == name).ok_or("expected a kind of output"))
}

/// Makes the folder of a model and describes it.
pub(super) fn run(arguments: Arguments, models_folder: PathBuf) -> anyhow::Result<String> {
    let Arguments { name, onnx_path, labels_path, config_folder, crop, output_name, kind, timm, keras } =
        arguments;
    let recipe = match (timm, keras) {
        (Some(crop_fraction), _) => Recipe::Timm { crop_fraction },
        (None, Some(mode)) => Recipe::Keras(mode),
        (None, None) => Recipe::Torchvision,
    };
    let options = AddOptions {
        models_folder,
        name,
        onnx_path,
        labels_path,
        config_folder,
        crop,
        output_name,
        kind,
        recipe,
    };
    Ok(add::add(&options)?.to_string())
}
