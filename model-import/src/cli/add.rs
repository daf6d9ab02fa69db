//! The command `model-import add`.

use std::path::PathBuf;

use crate::add::{self, AddOptions, KerasMode, Recipe};

/// Arguments of the command.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of the new model: letters, digits, `.`, `-` and `_`.
    name: String,
    /// The ONNX file. Its data files, such as `model.onnx.data`, must be in the same folder.
    #[arg(value_name = "FILE.onnx")]
    onnx_path: PathBuf,
    /// File with one label per line, in the order of the outputs.
    #[arg(long = "labels", value_name = "FILE")]
    labels_path: Option<PathBuf>,
    /// Folder with the `config.json` and the `preprocessor_config.json` of Hugging Face.
    #[arg(long = "config", value_name = "DIR")]
    config_folder: Option<PathBuf>,
    /// Height and width of the network's input in pixels [default: those of the graph].
    #[arg(long, value_name = "PIXELS")]
    crop: Option<u32>,
    /// The network comes from timm: use timm's default preprocessing, with this crop fraction.
    #[arg(long, value_name = "CROP_PCT", num_args = 0..=1, default_missing_value = "0.875", conflicts_with = "keras")]
    timm: Option<f64>,
    /// The network comes from Keras: use the preprocessing of `preprocess_input` in this mode.
    #[arg(long, value_name = "MODE")]
    keras: Option<KerasMode>,
}

/// Makes the folder of a model and describes it.
pub(super) fn run(arguments: Arguments, models_folder: PathBuf) -> anyhow::Result<String> {
    let Arguments { name, onnx_path, labels_path, config_folder, crop, timm, keras } = arguments;
    let recipe = match (timm, keras) {
        (Some(crop_fraction), _) => Recipe::Timm { crop_fraction },
        (None, Some(mode)) => Recipe::Keras(mode),
        (None, None) => Recipe::Torchvision,
    };
    let options = AddOptions { models_folder, name, onnx_path, labels_path, config_folder, crop, recipe };
    Ok(add::add(&options)?.to_string())
}
